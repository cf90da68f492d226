"""The base of all errors that are meant for a person."""


class FlywheelError(Exception):
    """Something a person can act on: the message says what is wrong, where, and what to do. No traceback is shown."""
