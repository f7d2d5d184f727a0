"""Words of a command that a message suggests, for users who paste it into their shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def quoted(value: str | Path) -> str:
    """A path or name as one word of a command line that can be pasted; line ends, terminal codes and bytes that are not UTF-8 as ``\\x1b``.

    That form, ``$'...'``, is known to bash, zsh and ksh; no other could be shown on one line.
    """
    text = str(value)
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    return letter if letter.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
