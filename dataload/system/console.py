"""The logger by which every room reports what it does. Long-running commands show it on standard error; elsewhere only warnings show."""

from __future__ import annotations

import logging
import sys

console = logging.getLogger("md")


def set_up_console() -> None:
    """Send the messages to standard error, above the progress bar."""
    if not console.handlers:
        console.addHandler(_BarHandler())
        console.setLevel(logging.INFO)


class _BarHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if "tqdm" not in sys.modules:  # no bar to stay above, and md-predict does without that package
            print(self.format(record), file=sys.stderr)
            return
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)
