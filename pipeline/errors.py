"""Failures that a user can mend: the message says what is wrong, where, and what to do; no traceback is shown."""


class UserError(Exception):
    """Base of every failure that is reported as a message."""


class ConfigError(UserError):
    """params.yaml or data/catalog.yaml says something that cannot be."""


class DataError(UserError):
    """Data that is missing, unreadable or not what it should be."""


class DeviceError(UserError):
    """A device was asked for that this machine does not have."""


class TrainingError(UserError):
    """Training went wrong in a way that other parameters would avoid."""
