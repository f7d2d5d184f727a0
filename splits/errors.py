"""The one exception for what a user can mend."""

# More letters of a message are left out in its middle: what it says stands first, the remedy last.
MOST_LETTERS, GAP = 1000, " ... "


class InputError(ValueError):
    """Bad input from the user: the message says what is wrong, where, and the remedy.

    Commands print the message without a traceback; every other exception is a bug and keeps its traceback. Whatever names and values of
    files it quotes, it is one line of at most ``MOST_LETTERS``.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class StillComputing(InputError):
    """A fault after which a thread of this process continues in a library that nothing ends. Commands then leave without Python's own end,
    during which that thread would abort them when it comes back."""


def one_line(text: str) -> str:
    """A text as one line for any terminal and file: what is not printable, and bytes that are not UTF-8, stand there as ``\\x1b``."""
    text = _shortened(text)
    return text if text.isprintable() else _shortened(printable(text))


def printable(text: str) -> str:
    """A text of any length that moves no cursor, changes no colour and ends no line, escaped as by ``one_line``."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _shortened(text: str) -> str:
    if len(text) <= MOST_LETTERS:
        return text
    first = MOST_LETTERS * 2 // 3
    return f"{text[:first]}{GAP}{text[first + len(GAP) - MOST_LETTERS :]}"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else ascii(letter)[1:-1]
