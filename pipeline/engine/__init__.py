"""Fits as tasks: run in this process, by processes of this machine, or on a Dask cluster."""
