"""A command started twice at the same time, in processes of their own, with varied delays between the two.

Run as a program: a folder, how many times, what each new folder begins as a copy of (or nothing), and the command line, before which
``NAME=value`` of its environment may stand. In all of it ``{}`` stands for a new folder each time, and ``WHICH`` for 0 or 1 of the two.
Prints a line of JSON for each time: the statuses of the two, what they said, and that folder.
"""

import json
import os
import shutil
import sys
import time
from functools import partial
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
# What commands import only when they work, once for all processes, so that the two meet over their outputs and not in their imports.
HEAVY = {
    "md-data check": ("dataload.check.inspection",),
    "md-data from-bag": ("dataload.bags.convert",),
    "md-data from-video": ("dataload.footage.video_frames", "av"),
    "md-train": ("engine.training.train", "torch.utils.tensorboard"),
    "md-eval": ("engine.evaluation.run", "engine.odometry.run", "matplotlib.figure", "matplotlib.backends.backend_agg"),
    "md-export": ("export.conversion.run", "onnxruntime", "onnxscript"),
    "md-predict": ("export.prediction.predict", "export.prediction.torch_predictor", "onnxruntime"),
}
# A demo world of other size is made and published no otherwise, in a second instead of minutes.
SMALL_WORLD = {"height_px": 32, "width_px": 96, "drives": 4, "frames": 3}
# Delays go from none up to this share of the time that the command takes alone.
MOST_DELAY = 1.1


def started(arguments: list[str], said: Path) -> int:
    """The command in a process of its own, which writes what it says to a file."""
    child = os.fork()
    if not child:
        output = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        first = next(number for number, word in enumerate(arguments) if word in COMMANDS)
        os.environ.update(word.split("=", 1) for word in arguments[:first])
        name, *rest = arguments[first:]
        module, attribute = COMMANDS[name]
        status: object = 1
        try:
            world = import_module("dataload.demo.world")
            world.WorldConfig = partial(world.WorldConfig, **SMALL_WORLD)
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


def main(folder: Path, times: int, begin: str, arguments: list[str]) -> None:
    heavy = [module for line, modules in HEAVY.items() if f" {line} " in f" {' '.join(arguments)} " for module in modules]
    own = [COMMANDS[word][0] for word in arguments if word in COMMANDS]
    for module in ("filelock", "psutil", "yaml", "PIL.Image", "numpy", "dataload.demo.world", *own, *heavy):
        import_module(module)
    alone_s = 0.0
    for number in range(times + 1):
        root = folder / str(number)
        if begin:
            shutil.copytree(begin, root)
        root.mkdir(parents=True, exist_ok=True)
        lines = [[word.replace("{}", str(root)).replace("WHICH", which) for word in arguments] for which in "01"]
        begun_s = time.monotonic()
        children = [started(lines[0], folder / f"{number}.0")]
        if number:  # the first time alone
            time.sleep(MOST_DELAY * alone_s * (number - 1) / times)
            children.append(started(lines[1], folder / f"{number}.1"))
        statuses = [ended(child) for child in children]
        alone_s = alone_s or time.monotonic() - begun_s
        said = [(folder / f"{number}.{which}").read_text() for which in range(len(children))]
        print(json.dumps({"statuses": statuses, "said": said, "folder": str(root)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
