"""The progress bar of everything that takes long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress_bar(
    total: float | None,
    what: str,
    unit: str,
    *,
    items: Iterable[Any] | None = None,
    done: float = 0,
    shown: bool = True,
    in_logs: bool = False,
    stays: bool = True,
    smoothing: float = 0.3,
) -> tqdm[Any]:
    """A bar on standard error, over ``items`` or advanced by ``update``.

    Args:
        total: how many units there are; None where unknown.
        what: stands before it.
        unit: of the count; "B" counts bytes.
        items: what to iterate over through the bar.
        done: units that were there before.
        shown: False hides it altogether.
        in_logs: show it where standard error is no terminal, too.
        stays: leave it on the screen when it is done.
        smoothing: from 0, the mean speed of the whole, to 1, the present one.
    """
    from tqdm import tqdm

    off_in_logs = False if in_logs else None  # None: tqdm hides the bar where standard error is no terminal
    disable = off_in_logs if shown else True
    return tqdm(
        items, what, total, unit=unit, unit_scale=unit == "B", initial=done, disable=disable, leave=stays, dynamic_ncols=True,
        smoothing=smoothing,
    )  # fmt: skip
