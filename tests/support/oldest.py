"""The oldest release of each package that setup.py allows; run by itself, it prints them as constraints for pip (make test-oldest)."""

import re
from pathlib import Path

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
# A requirement with a lower bound: its name, with its extras apart, and the bound.
BOUND = re.compile(r"\"(?P<name>[A-Za-z][\w.-]*)(?:\[[\w,]+\])?>=(?P<version>[\d.]+)")


def lower_bounds() -> dict[str, str]:
    """The least version that serves, by the name of each package."""
    return {found["name"]: found["version"] for found in BOUND.finditer(SETUP.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    for name, version in lower_bounds().items():
        print(f"{name}=={version}")
