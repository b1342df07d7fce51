"""Errors the user can fix. The message says what is wrong, where, and what to do; no traceback is shown."""


class UserError(Exception):
    """Base class of the errors that are reported without a traceback."""


class ConfigError(UserError):
    """params.yaml or data/catalog.yaml is invalid."""


class DataError(UserError):
    """Data is missing, unreadable or invalid."""


class DeviceError(UserError):
    """The requested device does not exist on this machine."""


class TrainingError(UserError):
    """Training failed in a way that other parameters would avoid."""


class ClusterError(UserError):
    """The Dask cluster cannot be used, or is gone."""
