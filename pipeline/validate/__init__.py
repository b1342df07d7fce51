"""The stage `validate`: checks, splits, and arrays to train on."""
