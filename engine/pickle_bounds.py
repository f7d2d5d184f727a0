"""Whether a pickle may be unpacked: one of a few kilobytes can stand for objects that take hours to hash, or more memory than there is.

Nothing is unpacked to find that out: the opcodes are counted, and what they would make is followed by its size alone. Only the opcodes that
torch's unpickler of weights has are distinguished: it stops at all others.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import IO, Any

# Adam's state of the largest networks here has 150,000. A second for each million of them.
MOST_OPCODES = 1_000_000
# Parts of a tuple, those of the tuples in it included; a tensor's has about twenty.
MOST_PARTS = 100_000
# How many parts of the stack an opcode takes before it leaves one.
TAKEN = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1, "BUILD": 2, "APPEND": 2, "SETITEM": 3}
TO_MARK = ("APPENDS", "SETITEMS")
SILENT = ("PROTO", "STOP")
PUTS, GETS = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
MARK = -1


class UnboundedError(ValueError):
    """What a pickle would make is too much."""


def require_bounded(file: IO[bytes], pickles: int) -> None:
    """Follow so many pickles, one behind the other.

    Raises:
        UnboundedError: they make more than any file of weights holds.
    """
    left = MOST_OPCODES
    try:
        for _ in range(pickles):
            left = _follow(((opcode.name, argument) for opcode, argument, _ in pickletools.genops(file)), left)
    except UnboundedError:
        raise
    except Exception:  # damage: the unpickler, which comes next, stops there too and says what it is
        pass


def _follow(opcodes: Iterator[tuple[str, Any]], left: int) -> int:
    """How many of ``left`` opcodes remain behind this pickle."""
    stack: list[int] = []
    memo: dict[Any, int] = {}
    for name, argument in opcodes:
        left -= 1
        if left < 0:
            raise UnboundedError("it has more parts than any file of weights")
        if name in PUTS:
            memo[argument] = stack[-1]
        elif name in GETS:
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(MARK)
        elif name in TO_MARK:
            _pop_to_mark(stack.pop)
        elif name == "TUPLE":
            stack.append(1 + _pop_to_mark(stack.pop))
        elif name not in SILENT:
            taken = [stack.pop() for _ in range(TAKEN.get(name, 0))]
            # Only tuples are hashed with all that is in them.
            stack.append(1 + sum(taken) if name.startswith("TUPLE") else 1)
        if name == "GLOBAL" and argument.endswith(" bytearray"):
            raise UnboundedError("it makes bytes of any number, as no file of weights does")
        if stack and stack[-1] > MOST_PARTS:
            raise UnboundedError("it nests tuples in tuples, as no file of weights does")
    return left


def _pop_to_mark(pop: Callable[[], int]) -> int:
    parts = 0
    while (part := pop()) != MARK:
        parts += part
    return parts
