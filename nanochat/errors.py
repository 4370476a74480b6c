"""Errors of the pipeline that a user can mend."""


class DataError(RuntimeError):
    """Data that is missing, empty or unreadable; the text says what to do."""


class NanLoss(ArithmeticError):
    """The loss is not finite any more; the text says at which step and what usually helps."""
