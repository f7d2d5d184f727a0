"""What the tests of frame stores share: small runs whose decoders note what they decode, here or in processes of their own."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from places import PROJECT

from dataload.config import DataConfig
from dataload.datasets import open_dataset
from dataload.datasets.frame_table import FrameTable
from dataload.frames.frame_ref import FrameRef
from dataload.pipeline.decoders import TorchDecoder
from dataload.store.build import ensure_store
from dataload.store.choice import open_store
from dataload.store.file import StoreFile, StoreKey
from dataload.store.reading import DeviceFrames, FrameStore, fingerprint, fingerprints
from splits.errors import InputError

SIZE_PX = (64, 96)
CPU = torch.device("cpu")
ENOUGH = 10**9


class NotingDecoder(TorchDecoder):
    """The twin's decoder, which notes the names of the files that it decodes.

    Args:
        log: a file that takes a line per frame, for other processes to see.
        stop_at, gate: after so many frames wait for the file ``gate``.
        delay_s: how much longer each frame takes.
    """

    def __init__(self, config: DataConfig, log: Path | None = None, stop_at: int = ENOUGH, gate: Path = Path(), delay_s: float = 0) -> None:
        super().__init__(config)
        self.root, self.log, self.stop_at, self.gate, self.delay_s = config.data_path, log, stop_at, gate, delay_s
        self.names: list[str] = []

    def frame(self, path: Path) -> NDArray[np.uint8]:
        while len(self.names) >= self.stop_at and not self.gate.exists():
            time.sleep(0.01)
        time.sleep(self.delay_s)
        frame = super().frame(path)
        name = path.relative_to(self.root).as_posix()
        self.names.append(name)
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{os.getpid()} {name}\n")
        return frame


def config_of(root: Path, folder: Path | None = None, **options: object) -> DataConfig:
    """A small run over a tree that brings its own split."""
    height, width = SIZE_PX
    fixed = {"data_path": root, "split": str(root / "split"), "height_px": height, "width_px": width, "batch_size": 3, "num_workers": 2}
    return DataConfig(**{**fixed, "loader": "torch", "frame_store": "disk", "frame_store_dir": folder, **options})


def refs_of(config: DataConfig, *subsets: str) -> tuple[FrameRef, ...]:
    dataset = open_dataset(config)
    return tuple(ref for subset in subsets or ("train",) for ref in dataset.read(config.split, subset))


def table_of(config: DataConfig) -> FrameTable:
    return FrameTable.of(config, open_dataset(config), refs_of(config))


def key_of(config: DataConfig) -> StoreKey:
    table = table_of(config)
    return StoreKey(config.dataset, str(table.data_path.resolve()), SIZE_PX, TorchDecoder(config).name, table.names)


def opened(
    config: DataConfig, decoder: TorchDecoder | None = None, *, subsets: Sequence[str] = ("train",), frames_to_load: int = ENOUGH
) -> FrameStore | DeviceFrames | None:
    decoder = decoder or TorchDecoder(config)
    refs = refs_of(config, *subsets)
    return open_store(config, open_dataset(config), refs, decoder=decoder, device=CPU, frames_to_load=frames_to_load)


def build(config: DataConfig) -> tuple[StoreFile, list[str]]:
    """The whole store of a config, and the names of the files that were decoded for it."""
    decoder = NotingDecoder(config)
    table = table_of(config)
    folder = config.frame_store_dir
    assert folder is not None
    key = key_of(config)
    return ensure_store(folder, key, fingerprints(key), lambda rows, keep: decoder.make(table, rows, keep)), decoder.names


def build_part(config: DataConfig, count: int) -> list[str]:
    """Breaks a build off after so many frames; what they were."""
    key, table, decoder = key_of(config), table_of(config), TorchDecoder(config)

    def make(rows, keep):
        for row in rows[:count]:
            keep(row, decoder.frame(table.path(row)))
            yield row
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_store(config.frame_store_dir, key, fingerprints(key), make)
    return list(key.names[:count])


def store_of(config: DataConfig) -> FrameStore:
    """The store of a config, made by the way."""
    return FrameStore(build(config)[0], table_of(config), TorchDecoder(config).frame)


def file_in(folder: Path, suffix: str = ".frames") -> Path:
    """The one file in a folder with that ending."""
    (path,) = folder.glob(f"*{suffix}")
    return path


def there(path: Path) -> set[str]:
    """The names of the frames that a file holds, whole or not."""
    file = StoreFile(path)
    frame = np.empty((*SIZE_PX, 3), np.uint8)
    names = {name for row, name in enumerate(file.key.names) if file.records["bytes"][row] and file.read(row, frame)}
    file.close()
    return names


def is_whole(path: Path, config: DataConfig) -> bool:
    """Whether a file holds every frame of a config, made of the sources as they are, to the bit."""
    file, table, decoder = StoreFile(path), table_of(config), TorchDecoder(config)
    frame = np.empty((*SIZE_PX, 3), np.uint8)
    whole = file.key == key_of(config)
    for row, record in enumerate(file.records):
        made_of = (int(record["bytes"]), int(record["mtime_ns"]))
        whole &= made_of == fingerprint(table.path(row)) and file.read(row, frame) and np.array_equal(frame, decoder.frame(table.path(row)))
    file.close()
    return whole


def frame_offset(path: Path, row: int = 0) -> int:
    """Where a frame begins: the frames are the end of the file."""
    file = StoreFile(path)
    frame_bytes, count = file.key.frame_bytes, len(file.key.names)
    file.close()
    return path.stat().st_size - (count - row) * frame_bytes


def flip_bit(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


def wait_for(done: Callable[[], object], seconds: float = 60) -> None:
    """Returns when it is so; fails if it is not after so many seconds."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Build:
    """A process of its own that opens the store of a tree; what it says and decodes goes to files below ``out``."""

    def __init__(self, root: Path, folder: Path, out: Path, *, name: str = "a", **options: object) -> None:
        self.text, self.log = out / f"{name}.txt", out / f"{name}.log"
        arguments = [f"{key}={value}" for key, value in {"root": root, "folder": folder, "log": self.log, **options}.items()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        with self.text.open("w") as text:
            command = [sys.executable, __file__, *arguments]
            self.process = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT, env=environment)

    @property
    def said(self) -> str:
        return self.text.read_text()

    @property
    def decoded(self) -> list[str]:
        """The names of the files that it has decoded."""
        return [line.split()[1] for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def end(self, seconds: float = 60) -> int:
        """Its exit status, when it has ended."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def mounted(tmp_path: Path):
    """Makes a small disk of so many bytes, mounted below the test's folder; skips where the test may not mount."""
    places: list[Path] = []

    def mount(size_bytes: int) -> Path:
        place = tmp_path / f"disk{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this test mounts a small disk, which takes root and the right to mount")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(path: Path) -> None:
    """Takes all the rest of a disk for a file."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(path.parent).free == 0


@contextmanager
def file_bytes_limit(number: int) -> Iterator[None]:
    """In the block the kernel refuses to write beyond so many bytes of any file, as if there were no room left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def read_only(place: Path) -> None:
    """Takes a mounted disk's leave to be written."""
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)


def _main(
    *, root: str, folder: str, log: str, stop_at: str = "", gate: str = "", delay_s: str = "0", file_bytes: str = "", store: str = "disk"
) -> int:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    # However many cores there are, no more than two frames are in the making.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    config = config_of(Path(root), Path(folder), frame_store=store)
    decoder = NotingDecoder(config, Path(log), int(stop_at or ENOUGH), Path(gate), float(delay_s))
    try:
        with file_bytes_limit(int(file_bytes or resource.RLIM_INFINITY)):
            found = opened(config, decoder)
    except InputError as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    print("opened" if found else "without")
    return 0


if __name__ == "__main__":
    sys.exit(_main(**dict(argument.split("=", 1) for argument in sys.argv[1:])))
