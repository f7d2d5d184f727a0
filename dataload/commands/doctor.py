"""``md-data doctor``: whether this machine is ready, on one screen."""

from __future__ import annotations

import click

from dataload.commands.command import Command, say
from dataload.system.json_text import json_text


@click.command(cls=Command, short_help="Show what this machine offers, and what is missing")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, for a bug report or a program.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show versions, GPU, driver, decoders, caches and free room; say what is wrong or missing.

    Each problem is named with its remedy. Exit status 0 without problems, 1 with some. Nothing is changed, and nothing leaves the machine.
    """
    from dataload.doctor.examination import examine
    from dataload.doctor.report import lines

    found = examine()
    say(*(json_text(found.as_json(), 2).splitlines() if as_json else lines(found)))
    ctx.exit(1 if found.problems else 0)
