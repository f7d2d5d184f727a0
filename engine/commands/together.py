"""The end of a command that several processes run together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from engine.parallel.ranks import FaultElsewhere


@contextmanager
def one_report() -> Iterator[None]:
    """Where another process reports a fault, this one ends with the same status and says nothing."""
    try:
        yield
    except FaultElsewhere as fault:
        raise click.exceptions.Exit(fault.status) from fault
