"""The stage `download`: the files of a dataset."""
