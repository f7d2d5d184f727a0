"""The one exception for what a user can mend."""

# More letters of a message are left out in its middle: what it says stands first, the remedy last.
MOST_LETTERS = 1500


class InputError(ValueError):
    """Bad input from the user: the message says what is wrong, where, and the remedy.

    Commands print the message without a traceback; every other exception is a bug and keeps its traceback. Whatever names and values of
    files it quotes, it is one line of at most ``MOST_LETTERS``.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


def one_line(text: str) -> str:
    """A text as one line that any terminal and file takes: what is not printable, and bytes that are not UTF-8, stand there as ``\\x1b``."""
    if len(text) > MOST_LETTERS:
        text = f"{text[: MOST_LETTERS // 2]} ... {text[-MOST_LETTERS // 2 :]}"
    return text if text.isprintable() else "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
