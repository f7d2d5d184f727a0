"""A disk on which a process is killed, or a call fails, at a chosen one of all its file-system calls.

Calls are seen by Python's audit hook, whoever makes them, and where that has no event (writes, fsync) by functions put in their place. A
call that ends the process has not been made: with every call chosen in turn, the process ends between any two of them.
"""

import builtins
import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.listdir", "os.scandir", "os.truncate", "os.link", "fcntl.flock"}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)


class FaultyDisk:
    """Counts the calls below a folder, and lets one of them, or all from it on, fail or kill; for one process, for good."""

    def __init__(self, root: Path, at: int | None, fault: int | None, *, lasting: bool = False) -> None:
        """``fault`` is an error number; None kills."""
        self.root, self.at, self.fault, self.lasting = str(root), at, fault, lasting
        self.calls: list[str] = []
        self._inside = False
        sys.addaudithook(self._audit)
        for name in ("fsync", "write", "pwrite", "ftruncate"):
            setattr(os, name, self._counted(name, getattr(os, name)))
        builtins.open = io.open = self._open  # type: ignore[assignment]

    def call(self, what: str, path: object) -> None:
        """One call; does not return where it is to kill or to fail."""
        self.calls.append(f"{what} {path}")
        number = len(self.calls) - 1
        if self.at is None or number < self.at or (number > self.at and not self.lasting):
            return
        if self.fault is None:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            raise OSError(self.fault, os.strerror(self.fault), str(path))

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in EVENTS or self._inside:
            return
        self._inside = True
        try:
            found = next((path for path in map(self._path, args[:2]) if path is not None), None)
            # Of a folder that is open, only the name in it is given.
            if found is None and event in ("os.remove", "os.rmdir", "open") and isinstance(args[-1], int) and args[-1] > 2:
                found = self._path(args[-1])
        finally:
            self._inside = False
        if found is not None:
            self.call(event, found)

    def _path(self, given: object) -> str | None:
        """A path below the folder; None for any other."""
        try:
            text = os.readlink(f"/proc/self/fd/{given}") if isinstance(given, int) else os.path.abspath(os.fsdecode(given))  # type: ignore[arg-type]
        except (OSError, TypeError):
            return None
        return text if text.startswith(self.root) else None

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(descriptor: int, *rest: Any) -> Any:
            path = self._path(descriptor)
            if path is not None:
                self.call(name, path)
            return original(descriptor, *rest)

        return counted

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
              closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        disk = self

        class Counted(io.FileIO):
            def write(self, data: Any) -> int:
                path = disk._path(self.fileno())
                if path is not None:
                    disk.call("write", path)
                return super().write(data)

        raw = Counted(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        kind = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        buffer = kind(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)
