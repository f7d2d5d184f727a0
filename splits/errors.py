"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input from the user: the message says what is wrong, where, and the remedy.

    Commands print the message without a traceback; every other exception is a bug and keeps its traceback.
    """
