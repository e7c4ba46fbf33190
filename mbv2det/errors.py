"""Errors that a user can cause and fix; the commands print them as one line."""


class ConfigError(ValueError):
    """A setting that is unknown, impossible, or contradicts another."""


class DataError(ValueError):
    """A file of a data set that is missing, damaged or inconsistent."""


class TrainingStoppedError(Exception):
    """A signal ended the training, after it had saved.

    Args:
        number: Number of the signal, 0 if another process received it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; raised before the optimiser step."""


class ProcessLostError(RuntimeError):
    """Another process of a distributed training ended or cannot be reached."""
