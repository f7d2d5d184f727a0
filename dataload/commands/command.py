"""The base class of the commands: one line and an exit status for what a user can mend, a traceback for bugs."""

from __future__ import annotations

import difflib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from dataload.system.home import expand_home, name_user
from dataload.system.installing import WITH_REQUIREMENTS, has_module
from dataload.system.interrupts import ending_raises, exit_status, leave_lost_terminal, signal_of
from dataload.system.launch import launch
from dataload.system.machine import keep_to_share
from splits.errors import InputError, StillComputing, one_line, printable
from splits.faults import describe_fault


def say(*lines: str, err: bool = False) -> None:
    """Print lines, on standard error with ``err``. Names in them may be of anybody's files: no line moves the cursor or makes another."""
    click.echo("\n".join(map(printable, lines)), err=err)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn an ``InputError`` raised inside into ``click.UsageError`` (exit status 2); for building a config from options."""
    try:
        yield
    except InputError as error:
        raise _said_once(click.UsageError(str(error), ctx=click.get_current_context(silent=True))) from error


def _said_once(error: click.UsageError) -> click.UsageError | click.exceptions.Exit:
    """The error; of processes that torchrun started on one machine, which have one command line, for the first alone."""
    return click.exceptions.Exit(error.exit_code) if launch().local_rank else error


class Command(click.Command):
    """A click command with exit status 2 for wrong usage, 1 for a fault a user can mend, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.

    SIGTERM and SIGHUP (a closed terminal) end it as Ctrl-C does: what it was writing is removed, and what it held is let go.
    ``InputError``, ``OSError`` and a package that is not installed become one line, ``Error: ...``. Every other exception is a bug and
    keeps its traceback.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        """Parse the arguments; an ``InputError`` of an option's callback is wrong usage."""
        _open_streams()
        name_user()
        with usage_errors():
            keep_to_share()
            _require_current_folder()
            try:
                return super().make_context(info_name, args, parent, **extra)
            except click.UsageError as error:
                error.message = one_line(error.message)  # type: ignore[misc]  # what click shows, and names of files are quoted in
                raise _said_once(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, turning faults into their one line."""
        try:
            with ending_raises():
                return super().invoke(ctx)
        except StillComputing as error:
            with suppress(OSError):
                click.ClickException(str(error)).show()
                sys.stdout.flush()
            os._exit(click.ClickException.exit_code)
        except InputError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE and _has_reader_left():  # click ends quietly
                raise
            raise click.ClickException(describe_fault(error)) from error
        except ModuleNotFoundError as error:
            if error.name is None or has_module(error.name.partition(".")[0]):
                raise
            raise click.ClickException(f"{error.name} is not installed; {WITH_REQUIREMENTS}") from error
        except KeyboardInterrupt as error:
            number = signal_of(error)
            end_by_signal(ctx, number, "Interrupted" if number == signal.SIGINT else "Terminated")


def end_by_signal(ctx: click.Context, number: int, said: str = "") -> NoReturn:
    """End a command with the exit status of a signal, whoever is left to read its last line.

    Args:
        said: that line; none where all is said.
    """
    with suppress(OSError):
        if said:
            say(said, err=True)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    # Python flushes once more when it ends, and would end with a status of its own where nobody reads.
    leave_lost_terminal()
    ctx.exit(exit_status(number))


class Group(click.Group):
    """A group whose subcommands are ``Command``; a mistyped subcommand is answered with the nearest one."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; ``click.UsageError`` names the choices where there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            choices = self.list_commands(ctx)
            near = difflib.get_close_matches(name, choices, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"
            ctx.fail(f"no such command {name!r}; {hint}")
        return super().resolve_command(ctx, args)


def named(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """What a shell is offered of names to complete what is typed."""
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class _GivenPath(click.Path):
    """A path, or where there are ``names`` one of them, which a shell is offered too."""

    def __init__(self, names: Iterable[str] = (), **settings: Any) -> None:
        super().__init__(path_type=Path, **settings)
        self.names = tuple(names)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Paths, which come first: bash forgets the names that stand before them."""
        return [*super().shell_complete(ctx, param, incomplete), *named(self.names, incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        # A ``Path`` is an option's default, which is shown and saved as it is.
        return super().convert(_expand(self, value, param, ctx) if isinstance(value, str) else value, param, ctx)


class NameOrFolder(click.ParamType):
    """A known name, of which a shell is offered ``names``, or the path of a folder, which stays text; ``~`` in a path is expanded."""

    name = "text"

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Folders and names."""
        return [CompletionItem(incomplete, type="dir"), *named(self.names, incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text with ``~`` expanded."""
        return _expand(self, str(value), param, ctx)


def folder_path(names: Iterable[str] = (), **kwargs: Any) -> click.Path:
    """A path argument turned into ``pathlib.Path``; whether it exists is checked where it is used, with a better message.

    Every option and argument that takes a path is of this type, or of ``NameOrFolder``. A shell completes paths, and ``names``.
    """
    return _GivenPath(names, **kwargs)


def _expand(kind: click.ParamType, text: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
    # pathlib would take it for the current folder.
    if text == "":
        kind.fail("an empty path; is a variable of the shell not set?", param, ctx)
    try:
        return expand_home(text)
    except InputError as error:
        kind.fail(str(error), param, ctx)


def _open_streams() -> None:
    """Open the standard streams that were closed (``2>&-``): else a file of ours would take their place and get what libraries print.

    Names that are not UTF-8, or that a terminal's own code has no letters for, are printed all the same.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_current_folder() -> None:
    """Raise ``InputError`` where the current folder was removed: libraries cannot be loaded there, and relative paths mean nothing."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the current folder was removed or replaced since you entered it; cd to it again, or to another") from error


def _has_reader_left() -> bool:
    """Whether nobody reads our output any more, as after ``| head``; a broken pipe to a process that we started does not count."""
    poll = select.poll()
    try:
        for stream in (sys.stdout, sys.stderr):
            poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # not a file of the operating system
        return True
    return any(event & select.POLLERR for _, event in poll.poll(0))
