"""What is published, replaced and removed, as small programs that are killed at each of their file-system calls, or fail there.

Run as a program: the name of a scenario, and ``kill``, or an error's number that one call fails with, negative for all calls from it on;
prints what is wrong, a line each, then the number of calls.
"""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from faulty_disk import FaultyDisk

from dataload.system import files
from dataload.system.locks import hold, settle
from splits.errors import InputError

TREE = {"a": "one", "b/c": "two", "b/d/e": "three"}
Content = dict[str, str] | None


class Scenario(NamedTuple):
    """What is there before, what a process does, what a reader finds afterwards, and the next start.

    Attributes:
        prepare: makes what is there before.
        act: what is killed; ``said`` is to be called when something is acknowledged.
        read: what a reader finds, who holds nothing.
        again: the next start.
        is_set: it is of files that belong together: some may be missing until the next start, and never are some of the old ones there
            beside some of the new ones.
    """

    prepare: Callable[[Path], object]
    act: Callable[[Path, Callable[[], object]], object]
    read: Callable[[Path], Content]
    again: Callable[[Path], object]
    is_set: bool = False


def fill(folder: Path, word: str) -> None:
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{word} {text}")


def tree(folder: Path) -> Content:
    """Everything below a folder that is not hidden; None where it is not there."""
    if not folder.is_dir():
        return None
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {str(name): path.read_text() for name, path in found.items() if not any(part.startswith(".") for part in name.parts)}


def held(root: Path) -> None:
    with hold(root / "out", "", folder=True):
        pass


def write_file(root: Path, word: str = "new") -> None:
    with hold(root / "out", ""), files.whole_file(root / "out") as temporary:
        temporary.write_text(word * 10000)


def read_file(root: Path) -> Content:
    return {"out": (root / "out").read_text()[:3]} if (root / "out").is_file() and (root / "out").stat().st_size == 30000 else None


def write_folder(root: Path, word: str = "new") -> None:
    with files.whole_folder(root / "out") as temporary:
        fill(temporary, word)


def in_two_steps(root: Path, said: Callable[[], object]) -> None:
    files._exchange = lambda one, other: False  # as on a disk that cannot swap two folders
    write_folder(root)
    said()


def settled(root: Path) -> Content:
    settle(root)
    return tree(root / "out")


def swapped(root: Path, said: Callable[[], object]) -> None:
    write_folder(root)
    said()


def remove(root: Path, said: Callable[[], object]) -> None:
    files.remove_whole(root / "out")
    said()


def write_lists(root: Path, word: str = "new") -> None:
    from dataload.footage.split_lists import SplitLists

    with hold(root / "out", "", folder=True):
        SplitLists({name: [f"{word} {name}"] for name in ("train", "val", "test")}, {}, {}, []).write(root / "out", force=True)


def read_lists(root: Path) -> Content:
    """The lists that are there; nobody trains without a training list, so that it must not be there before the others."""
    found = tree(root / "out") or {}
    assert len(found) == 3 or "train_files.txt" not in found, f"training would be begun with {sorted(found)} alone"
    return found


def write_models(root: Path, word: str = "new") -> None:
    """A model and its pose network, as an export writes them."""
    from export.config import ExportConfig
    from export.targets import file
    from export.targets.exported import Export

    config = ExportConfig(weights=root, out=root / "out" / "model.onnx", with_pose=True)
    made = [root / "model", root / "pose"]
    for path in made:
        path.write_text(word)
    (root / "out").mkdir(exist_ok=True)
    with ExitStack() as stack:
        for path in file.outputs(config):
            stack.enter_context(hold(path, ""))
        file.pack(Export(config, None, None, *made, "", None), config.out)


def read_models(root: Path) -> Content:
    """What is there; where there was a model, there is one."""
    found = tree(root / "out") or {}
    assert "model.onnx" in found or "model_pose.onnx" not in found, "a pose network without its model"
    return found


def save_step(models: Path, step: int, name: str) -> Path:
    """A checkpoint all of whose weights are the number of its step."""
    import torch
    from torch import nn

    from engine.training.checkpoint import Position, save_checkpoint
    from engine.weights import InputSize

    networks = nn.Module()
    networks.encoder, networks.depth = nn.Linear(2, 2), nn.Linear(2, 2)
    for parameter in networks.parameters():
        nn.init.constant_(parameter, step)
    optimizer = torch.optim.Adam(networks.parameters())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    position = Position(0, step, step, samples=step)
    save_checkpoint(models / name, networks, InputSize(64, 96, False), optimizer, scaler, position)
    return models / name


def pack_files(out: Path, model: bytes, pose: bytes | None = None) -> None:
    """What md-export does with finished files."""
    from export.targets.exported import Export
    from export.targets.file import pack

    with tempfile.TemporaryDirectory(dir=quick_folder()) as name:
        files_of = [Path(name) / "model", None if pose is None else Path(name) / "pose"]
        for path, content in zip(files_of, (model, pose), strict=True):
            if path is not None and content is not None:
                path.write_bytes(content)
        pack(Export(None, None, None, *files_of, "", None), out)  # type: ignore[arg-type]


def export(root: Path, word: str = "new") -> None:
    with hold(root / "out.onnx", ""), hold(root / "out.onnx.sha256", ""):
        pack_files(root / "out.onnx", word.encode())


def read_export(root: Path) -> Content:
    from engine.sums import require_undamaged

    require_undamaged(root / "out.onnx", among_others=True)
    return {"out": (root / "out.onnx").read_text()}


def begin_run(root: Path) -> None:
    with hold(root / "run", "", folder=True):
        save_step(root / "run" / "models", 9, "step_9")


def go_on(root: Path, said: Callable[[], object]) -> None:
    from engine.training.checkpoint import remove_superseded

    models = root / "run" / "models"
    with hold(root / "run", "", folder=True):
        newest = save_step(models, 10, "step_10")
        said()
        remove_superseded(models, newest)


def resumed(root: Path) -> Content:
    """The checkpoint that a run would be resumed from, and that the commands would take."""
    import torch

    from engine.training.checkpoint import latest_resumable
    from engine.weights import weights_folder

    folder = latest_resumable(root / "run" / "models")
    assert weights_folder(root / "run") == folder
    return {folder.name: str(torch.load(folder / "depth.pth")["weight"][0, 0].item())}


def run_again(root: Path) -> None:
    """As a run that is resumed, saves, and removes."""
    from engine.training.checkpoint import latest_resumable, remove_superseded

    with hold(root / "run", "", folder=True):
        newest = latest_resumable(root / "run" / "models")
        remove_superseded(newest.parent, newest)


def make_store(root: Path) -> None:
    import numpy as np

    from dataload.store.build import ensure_store

    def make(rows, keep):
        for row in rows:
            keep(row, np.full((4, 6, 3), row + 1, np.uint8))
            yield row

    ensure_store(root / "out", store_key(3), np.full((3, 2), 5, np.int64), make).close()


def store_key(frames: int):
    from dataload.store.file import StoreKey

    return StoreKey("kitti", "data", (4, 6), "test", [str(number) for number in range(frames)])


def read_store(root: Path, frames: int = 3) -> Content:
    """Fails where a frame of a store, each filled with the number of its row, counted from 1, is not whole."""
    import numpy as np

    from dataload.store.file import StoreFile

    with suppress(FileNotFoundError, NotADirectoryError):
        store = StoreFile(root / "out" / store_key(frames).file_name)
        frame = np.empty((4, 6, 3), np.uint8)
        assert all(store.read(row, frame) and (frame == row + 1).all() for row in range(frames)), "a frame is not as written"
        store.close()
        return {"store": "whole"}
    return None


def prepare_png(root: Path) -> None:
    import numpy as np
    from PIL import Image

    (root / "out").mkdir()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / "out" / "0.png")


def make_jpeg(root: Path) -> None:
    from dataload.kitti.jpeg import convert

    with hold(root / "out", "", folder=True):
        if (root / "out" / "0.png").exists():
            outcome = convert(root / "out" / "0.png", quality=92, delete=True)
            assert not outcome.fault, outcome.fault


def read_picture(root: Path) -> Content:
    """The picture, from the PNG or from its JPEG."""
    from PIL import Image

    found = [path for path in ((root / "out" / "0.jpg"), (root / "out" / "0.png")) if path.is_file()]
    for path in found:
        with Image.open(path) as image:
            assert image.convert("RGB").getpixel((3, 3)) == (90, 90, 90)
    return {"picture": "whole"} if found else None


def prepare_zip(root: Path) -> None:
    import zipfile

    with zipfile.ZipFile(root / "model.zip", "w") as archive:
        for name, text in TREE.items():
            archive.writestr(name, f"new {text}")
        archive.writestr("encoder.pth", "new")


def unpack_model(root: Path) -> None:
    from engine.fetching.models import unpack

    with hold(root / "out", "", folder=True):
        if not (root / "out").is_dir():
            unpack(root / "model.zip", root / "out")


def then(act: Callable[[Path], object]) -> Callable[[Path, Callable[[], object]], None]:
    """``act``, and what it did is acknowledged."""

    def acknowledged(root: Path, said: Callable[[], object]) -> None:
        act(root)
        said()

    return acknowledged


def nothing(_: Path) -> None:
    pass


SCENARIOS = {
    "file": Scenario(nothing, then(write_file), read_file, held),
    "file over another": Scenario(lambda root: write_file(root, "old"), then(write_file), read_file, held),
    "folder": Scenario(nothing, swapped, lambda root: tree(root / "out"), held),
    "folder over another": Scenario(lambda root: write_folder(root, "old"), swapped, lambda root: tree(root / "out"), held),
    "folder over another in two steps": Scenario(lambda root: write_folder(root, "old"), in_two_steps, settled, held),
    "removal": Scenario(lambda root: write_folder(root, "old"), remove, lambda root: tree(root / "out"), held),
    "lock": Scenario(nothing, then(held), lambda root: None, held),
    "split lists over others": Scenario(lambda root: write_lists(root, "old"), then(write_lists), read_lists, write_lists, is_set=True),
    "model with its pose network": Scenario(
        lambda root: write_models(root, "old"), then(write_models), read_models, write_models, is_set=True
    ),
    "store": Scenario(nothing, then(make_store), read_store, make_store),
    "JPEG for a PNG": Scenario(prepare_png, then(make_jpeg), read_picture, make_jpeg),
    "zip": Scenario(prepare_zip, then(unpack_model), lambda root: tree(root / "out"), unpack_model),
    "export over another": Scenario(lambda root: export(root, "old"), then(export), read_export, export),
    "checkpoint": Scenario(begin_run, go_on, resumed, run_again),
}


class Trial(NamedTuple):
    """How a process ended: its status (negative for a signal), what it said of errors, whether it acknowledged, and how many calls."""

    status: int
    error: str
    acknowledged: bool
    calls: int


def tried(scenario: Scenario, root: Path, at: int | None, fault: int | None, *, lasting: bool = False) -> Trial:
    """Run a scenario's part in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        status = 0
        disk = FaultyDisk(root, at, fault, lasting=lasting)
        try:
            scenario.act(root, lambda: os.write(writing, b"acknowledged\n"))
        except (OSError, InputError) as error:
            os.write(writing, f"error {error}\n".encode())
            status = 3
        except BaseException:
            os.write(writing, f"error {traceback.format_exc()}\n".encode())
            status = 4
        os.write(writing, f"calls {len(disk.calls)}\n".encode())
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, ended = os.waitpid(child, 0)
    lines = said.splitlines()
    calls = next((int(line.split()[1]) for line in lines if line.startswith("calls ")), 0)
    return Trial(os.waitstatus_to_exitcode(ended), said.partition("error ")[2], "acknowledged" in lines, calls)


def hidden(root: Path) -> list[str]:
    """Leftovers: hidden names, and stores being made."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name.startswith(".") or ".partial" in path.name)


def in_process(work: Callable[[Path], object], root: Path) -> str:
    """Do something in a process of its own; the traceback where it fails."""
    done = tried(Scenario(nothing, lambda place, _: work(place), lambda _: None, nothing), root, None, None)
    return done.error if done.status else ""


def is_part(found: Content, of: Content) -> bool:
    return (found or {}).items() <= (of or {}).items()


def faults_of(scenario: Scenario, folder: Path, fault: int | None, *, lasting: bool = False) -> tuple[list[str], int]:
    """What is wrong after any of the calls was chosen, and how many calls there are."""
    root = folder / "whole"
    root.mkdir()
    scenario.prepare(root)
    old = scenario.read(root)
    whole = tried(scenario, root, None, None)
    assert whole.status == 0, whole.error
    new = scenario.read(root)
    wrong = [f"left without any fault: {hidden(root)}"] if hidden(root) else []
    for at in range(whole.calls):
        root = folder / str(at)
        root.mkdir()
        scenario.prepare(root)
        trial = tried(scenario, root, at, fault, lasting=lasting)
        where = f"call {at} of {whole.calls}"
        expected = (-signal.SIGKILL,) if fault is None else (0, 3)
        if trial.status not in expected:
            wrong.append(f"{where}: status {trial.status}, {trial.error}")
        try:
            found = scenario.read(root)
        except Exception:
            wrong.append(f"{where}: a reader fails: {traceback.format_exc(limit=-2)}")
            continue
        if not (is_part(found, old) or is_part(found, new) if scenario.is_set else found in (old, new)):
            wrong.append(f"{where}: a reader finds {found}")
        if (trial.acknowledged or trial.status == 0) and found != new:
            wrong.append(f"{where}: what was acknowledged is lost")
        if error := in_process(scenario.again, root):
            wrong.append(f"{where}: the next start fails: {error}")
        if hidden(root):
            wrong.append(f"{where}: left after the next start: {hidden(root)}")
        if scenario.read(root) not in ((new,) if scenario.is_set else (found, new)):
            wrong.append(f"{where}: the next start has lost something")
    return wrong, whole.calls


def quick_folder() -> str | None:
    """Where there is no disk to wait for, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def main(name: str, kind: str) -> None:
    for module in ("click", "filelock", "psutil"):  # once, before the processes part
        import_module(module)
    fault = None if kind == "kill" else abs(int(kind))
    with tempfile.TemporaryDirectory(dir=quick_folder()) as folder:
        wrong, calls = faults_of(SCENARIOS[name], Path(folder).resolve(), fault, lasting=fault is not None and int(kind) < 0)
    print("\n".join([*wrong, f"{calls} calls"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
