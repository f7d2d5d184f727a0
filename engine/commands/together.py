"""The end of a command that several processes run together."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from engine.parallel.ranks import FaultElsewhere
from splits.errors import InputError
from splits.faults import describe_fault


@contextmanager
def one_report() -> Iterator[None]:
    """Where another process reports a fault, this one ends with the same status and says nothing.

    A fault of this one is given to torchrun too, which shows it as the cause at the end of its own long message.
    """
    try:
        yield
    except (InputError, OSError) as error:
        _tell_torchrun(describe_fault(error))
        raise
    except FaultElsewhere as fault:
        raise click.exceptions.Exit(fault.status) from fault


def _tell_torchrun(fault: str) -> None:
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        with suppress(OSError):  # the fault itself may be that of a full disk
            # As torch's own handler writes it, or torchrun warns of a new format.
            said = {"message": fault, "extraInfo": {"timestamp": str(int(time.time()))}}
            Path(file).write_text(json.dumps({"message": said}), encoding="utf-8")
