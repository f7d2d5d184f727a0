"""Where every room speaks of what it does. The commands that run for long send it to standard error; elsewhere only warnings show."""

from __future__ import annotations

import logging

console = logging.getLogger("md")


def set_up_console() -> None:
    """Send the messages to standard error, above the progress bar."""
    if not console.handlers:
        console.addHandler(_BarHandler())
        console.setLevel(logging.INFO)


class _BarHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        import sys

        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)
