"""The one way to remove a public name: it works for a while beside its successor, with a warning."""

from __future__ import annotations

import warnings


def warn_deprecated(old: str, new: str, *, removed_in: str, stacklevel: int = 3) -> None:
    """Warn, by ``DeprecationWarning``, that a name will be removed.

    Args:
        old: what is used, as its user knows it. new: what to use instead.
        removed_in: the version that no longer has the old name.
        stacklevel: whose line is shown: 2 that of who calls this function, 3 that of its caller.
    """
    warnings.warn(f"{old} is deprecated and will be gone in version {removed_in}; use {new}", DeprecationWarning, stacklevel=stacklevel)
