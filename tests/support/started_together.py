"""A command started twice at the same time, in processes of their own, with varied delays between the two.

Run as a program: a folder, how many times, and the command line, in which ``{}`` stands for a new folder each time; prints a line of JSON
for each time: the statuses of the two, what they said, and that folder.
"""

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path

import click

COMMANDS = {
    "md-data": ("dataload.commands.md_data", "md_data"),
    "md-train": ("engine.commands.md_train", "md_train"),
    "md-eval": ("engine.commands.md_eval", "md_eval"),
    "md-export": ("export.commands.md_export", "md_export"),
    "md-predict": ("export.commands.md_predict", "md_predict"),
}
# Delays go from none up to this share of the time that the command takes alone.
MOST_DELAY = 1.1


def started(arguments: list[str], said: Path) -> int:
    """The command in a process of its own, which writes what it says to a file."""
    child = os.fork()
    if not child:
        output = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        name, *rest = arguments
        module, attribute = COMMANDS[name]
        status: object = 1
        try:
            command: click.Command = getattr(import_module(module), attribute)
            command(rest, prog_name=name)
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status if isinstance(status, int) else 1)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, times: int, arguments: list[str]) -> None:
    for module in ("filelock", "psutil", "yaml", "PIL.Image", "numpy", COMMANDS[arguments[0]][0]):
        import_module(module)
    alone_s = 0.0
    for number in range(times + 1):
        root = folder / str(number)
        root.mkdir(parents=True)
        line = [argument.replace("{}", str(root)) for argument in arguments]
        begun_s = time.monotonic()
        children = [started(line, folder / f"{number}.0")]
        if number:  # the first time alone
            time.sleep(MOST_DELAY * alone_s * (number - 1) / times)
            children.append(started(line, folder / f"{number}.1"))
        statuses = [ended(child) for child in children]
        alone_s = alone_s or time.monotonic() - begun_s
        said = [(folder / f"{number}.{which}").read_text() for which in range(len(children))]
        print(json.dumps({"statuses": statuses, "said": said, "folder": str(root)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
