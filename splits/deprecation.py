"""The one way to remove a public name: it works for a while beside its successor, with a warning."""

from __future__ import annotations

import warnings


def warn_deprecated(old: str, new: str, *, removed_in: str) -> None:
    """Warn, by ``DeprecationWarning``, that a name will be removed.

    Args:
        old: what is used, as its user knows it. new: what to use instead.
        removed_in: the version that no longer has the old name.
    """
    # The line shown is that of whoever calls the function which warns.
    warnings.warn(f"{old} is deprecated and will be gone in version {removed_in}; use {new}", DeprecationWarning, stacklevel=3)
