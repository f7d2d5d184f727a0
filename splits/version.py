"""The name under which this project is installed, and its version."""

from __future__ import annotations

DISTRIBUTION = "monodepth-engine"


def version() -> str:
    """The installed version, such as 0.2.0.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed, but run from its folder.
    """
    from importlib import metadata

    return metadata.version(DISTRIBUTION)
