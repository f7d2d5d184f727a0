"""Work that is killed at random instants (from a fixed seed), again and again, and goes on: nothing torn, nothing lost, right at the end.

Run as a program: the name of a kind of work, the number of kills, and another seed if wanted; prints what is wrong, a line each, then how
many kills met the work, and how often it acknowledged something.
"""

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from publishing import hidden, quick_folder, read_lists, read_models, read_store, save_step, store_key, write_lists, write_models

from dataload.system.locks import hold
from engine.sums import OWN_SUFFIX

FRAMES = 12
Say = Callable[[int], object]


class Work(NamedTuple):
    """What is killed, and what must hold after each kill, given the numbers that it acknowledged.

    Attributes:
        prepare: makes what the work reads.
        act: calls its argument with each number that is safe from then on.
        check: raises AssertionError where something is torn or lost.
        enough: it is killed within the time, and a third of it, in which, undisturbed, it acknowledges so many or comes to its end.
    """

    prepare: Callable[[Path], object]
    act: Callable[[Path, Say], object]
    check: Callable[[Path, list[int]], object]
    enough: int


def run_steps(root: Path, say: Say) -> None:
    """A run that saves each step, each fourth over an earlier epoch's checkpoint, and goes on where it stood."""
    from engine.training.checkpoint import latest_resumable, remove_superseded

    models = root / "run" / "models"
    with hold(root / "run", "", folder=True):
        assert not hidden(models) or not models.exists(), hidden(models)
        step = step_of(latest_resumable(models)) if models.is_dir() and any(models.iterdir()) else 0
        while True:
            step += 1
            folder = save_step(models, step, "weights_0" if step % 4 == 0 else f"step_{step}")
            say(step)
            remove_superseded(models, folder)


def step_of(folder: Path) -> int:
    """A checkpoint's step; fails unless all of it is of that step."""
    import torch

    step = torch.load(folder / "state.pt")["position"]["global_step"]
    for name in ("encoder", "depth"):
        assert torch.load(folder / f"{name}.pth")["weight"].eq(step).all(), f"{folder} is of several steps"
    torch.load(folder / "adam.pth")
    return step


def check_run(root: Path, acknowledged: list[int]) -> None:
    from engine.checkpoints import checkpoint_folders
    from engine.training.checkpoint import latest_resumable
    from engine.weights import weights_folder

    models = root / "run" / "models"
    steps = [step_of(folder) for folder in checkpoint_folders(models)]
    if acknowledged:
        assert max(steps) >= max(acknowledged), f"step {max(acknowledged)} is lost: {steps}"
    if steps:
        assert step_of(latest_resumable(models)) == max(steps)
        assert step_of(weights_folder(root / "run")) in steps


def make_store(root: Path, say: Say) -> None:
    from dataload.store.build import ensure_store

    def make(rows, keep):
        for row in rows:
            keep(row, np.full((4, 6, 3), row + 1, np.uint8))
            say(row)
            time.sleep(0.002)
            yield row

    ensure_store(root / "out", store_key(FRAMES), np.full((FRAMES, 2), 5, np.int64), make).close()


def check_store(root: Path, acknowledged: list[int]) -> None:
    from dataload.store.file import StoreFile

    if read_store(root, FRAMES) is None and acknowledged:
        (partial,) = (root / "out").glob("*.partial")
        with closing(StoreFile(partial)) as file:
            lost = [row for row in acknowledged if not file.records["bytes"][row]]
        assert not lost, f"rows {lost} are lost"


def prepare_bag(root: Path) -> None:
    import bags

    k = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
    images = [bags.image("/left/image_rect", bags.picture((32, 48), i), "rgb8", bags.START_NS + i * bags.PERIOD_NS) for i in range(FRAMES)]
    bags.write_bag(root, "drive", "bag", [bags.camera_info("/left/camera_info", k, (32, 48)), *images])


def convert_bag(root: Path, say: Say) -> None:
    from dataload.bags.convert import convert
    from dataload.bags.options import ConvertOptions

    convert(root / "drive.bag", root / "out" / "drive", ConvertOptions(), progress=False)
    say(FRAMES)


def prepare_video(root: Path) -> None:
    from videos import save_video

    save_video(root / "drive.mp4", count=2 * FRAMES)


def convert_video(root: Path, say: Say) -> None:
    from dataload.footage.video_frames import FrameOptions, extract

    say(extract("drive", root / "drive.mp4", root / "out", FrameOptions()).frames)


def check_sequence(root: Path, acknowledged: list[int]) -> None:
    """The sequence is not there, or whole."""
    from PIL import Image

    folder = root / "out" / "drive"
    assert folder.is_dir() or not acknowledged, "the sequence is lost"
    if folder.is_dir():
        images = [path for path in folder.rglob("*.jpg") if not path.name.startswith(".")]
        assert len(images) == FRAMES, f"{len(images)} of {FRAMES} frames under the final name"
        for path in images:
            with Image.open(path) as image:
                image.load()


def write_sets(root: Path, say: Say) -> None:
    """Split lists, and a model with its pose network: again and again, over those that are there."""
    (root / "lists").mkdir(exist_ok=True)
    number = max(numbers_of(read_models(root)), default=0)
    while True:
        number += 1
        write_models(root, str(number))
        write_lists(root / "lists", str(number))
        say(number)


def numbers_of(found: dict[str, str] | None) -> set[int]:
    return {int(text.split()[0]) for name, text in (found or {}).items() if not name.endswith(OWN_SUFFIX)}


def check_sets(root: Path, acknowledged: list[int]) -> None:
    for found in (read_models(root), read_lists(root / "lists")):
        numbers = numbers_of(found)
        assert len(numbers) == 1 or not (numbers or acknowledged), f"of several sets: {found}"
        assert not acknowledged or max(numbers) >= max(acknowledged), f"{max(acknowledged)} is lost: {found}"


def nothing(_: Path) -> None:
    pass


WORK = {
    "run": Work(nothing, run_steps, check_run, 5),
    "store": Work(nothing, make_store, check_store, FRAMES + 1),
    "bag": Work(prepare_bag, convert_bag, check_sequence, 2),
    "video": Work(prepare_video, convert_video, check_sequence, 2),
    "sets": Work(nothing, write_sets, check_sets, 5),
}
# Imported before the processes part, so that kills meet the work and not its imports.
MODULES = ("click", "filelock", "psutil", "yaml", "PIL.Image", "dataload.store.build")
OF_WORK = {
    "run": ("engine.training.checkpoint",),
    "bag": ("bags", "dataload.bags.convert"),
    "video": ("videos", "simplejpeg", "dataload.footage.video_frames"),
    "sets": ("dataload.footage.split_lists", "export.targets.exported", "export.targets.file"),
}


def started(work: Work, root: Path) -> tuple[int, IO[str]]:
    """A process that does the work, and what it acknowledges, a line each, then its traceback where it fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            work.act(root, lambda number: os.write(writing, f"{number}\n".encode()))
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


def time_undisturbed(work: Work, root: Path) -> float:
    """How long the work takes, to its end or to enough of it."""
    root.mkdir()
    work.prepare(root)
    begun_s = time.monotonic()
    child, said = started(work, root)
    with said:
        lines = list(islice(said, work.enough))
        assert not any("Traceback" in line for line in lines), lines + said.readlines()
        took_s = time.monotonic() - begun_s
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return took_s


def killed_once(work: Work, root: Path, after_s: float) -> tuple[int, list[int], str]:
    """How the process ended, what it acknowledged, and its traceback where it failed."""
    child, pipe = started(work, root)
    with pipe:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        said = pipe.read()
    numbers = [int(line) for line in said.splitlines() if line.isdigit()]
    return os.waitstatus_to_exitcode(status), numbers, "" if "Traceback" not in said else said


def kill_at_random(name: str, kills: int, seed: int, folder: Path) -> tuple[list[str], int, int]:
    """What is wrong after any of the kills, how many met the work, how often it acknowledged; it begins anew where it came to its end."""
    work, draw, wrong, acknowledged = WORK[name], random.Random(seed), [], []
    met = said = 0
    # The first time takes longer than all that follow, and most kills would come after their end.
    most_s = min(time_undisturbed(work, folder / name) for name in ("undisturbed", "undisturbed again"))
    root = folder / "0"
    root.mkdir()
    work.prepare(root)
    for number in range(1, kills + 1):
        status, numbers, failure = killed_once(work, root, draw.uniform(0, 1.3 * most_s))
        acknowledged += numbers
        met, said = met + (status == -signal.SIGKILL), said + len(numbers)
        try:
            assert not failure, failure
            work.check(root, acknowledged)
        except Exception:
            wrong.append(f"kill {number}: {traceback.format_exc(limit=-2)}")
        if status == 0:
            if hidden(root):
                wrong.append(f"kill {number}: at the end there are {hidden(root)}")
            root, acknowledged = folder / str(number), []
            root.mkdir()
            work.prepare(root)
    return wrong, met, said


def main(name: str, kills: int, seed: int = 20) -> None:
    for module in (*MODULES, *OF_WORK.get(name, ())):
        import_module(module)
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        if name == "run":  # torch imports more at its first step
            save_step(Path(folder) / "first", 1, "step_1")
        wrong, met, said = kill_at_random(name, kills, seed, Path(folder).resolve())
    print("\n".join([*wrong, f"{met} kills {said} acknowledged"]))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
