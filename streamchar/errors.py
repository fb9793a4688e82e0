"""Errors that a user can act on: each names what was given, what was expected and the remedy."""


class StreamCharError(Exception):
    """Base of all errors raised on purpose by this library."""


class InputError(StreamCharError):
    """Wrong configuration or input (a missing file, a picture that is none, unknown keys). Exit code 2."""


class DataError(InputError):
    """Damaged or unusable training data: missing shards, a truncated archive, too many quarantined samples."""


class CheckpointError(InputError):
    """A checkpoint or exported model that is missing, damaged or of another architecture."""


class AdmissionError(StreamCharError):
    """One more stream would break the deadlines of those that are running."""


class NumericsError(StreamCharError):
    """Training met non-finite values too often in a row to go on."""


class DeviceMemoryError(StreamCharError):
    """The device's memory did not suffice. ``doing``: what was being computed, with the role's name."""

    def __init__(self, doing: str, cause: str, remedy: str = "") -> None:
        self.doing, self.cause = doing, cause
        super().__init__(f"out of memory in {doing} ({cause})" + (f"; {remedy}" if remedy else ""))
