"""The progress bar of everything that takes long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dataload.system.launch import launch
from splits.errors import printable

if TYPE_CHECKING:
    from tqdm import tqdm


# Units per second however slow, "0.25 frames/s": tqdm's own form would turn to seconds per unit.
FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
OPEN_FORMAT = "{desc}: {n_fmt}{unit} [{elapsed}, {rate_noinv_fmt}{postfix}]"


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
        total: how many units there are; None where unknown. Of none no bar is shown.
        what: stands before it.
        unit: of the count, in the plural; "B" counts bytes.
        items: what to iterate over through the bar.
        done: units that were there before.
        shown: False hides it altogether.
        in_logs: show it where standard error is no terminal, too.
        stays: leave it on the screen when it is done.
        smoothing: from 0, the mean speed of the whole, to 1, the present one.
    """
    from tqdm import tqdm

    off_in_logs = False if in_logs else None  # None: tqdm hides the bar where standard error is no terminal
    # Of processes that work together on a machine one shows what all of them do.
    shown = shown and launch().local_rank == 0
    # With an unknown total, nothing is shown before there is something to count.
    delay_s = 1 if total is None else 0
    disable = off_in_logs if shown and total != 0 else True
    counts_bytes = unit == "B"
    return tqdm(
        items, printable(what), total, unit=unit if counts_bytes else f" {unit}", unit_scale=counts_bytes, initial=done,
        disable=disable, leave=stays, dynamic_ncols=True, smoothing=smoothing, delay=delay_s,
        bar_format=OPEN_FORMAT if total is None else FORMAT,
    )  # fmt: skip
