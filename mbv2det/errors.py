"""Errors that a user can cause and correct; the commands print them as one line."""


class ConfigError(ValueError):
    """A setting that is unknown, impossible, or contradicts another setting."""


class DataError(ValueError):
    """A file of a data set that cannot be used as it is."""
