"""Where frames are kept: as asked for, or where they fit; what is said of it, and what auto does where there can be no store."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import CPU, NotingDecoder, build, config_of, file_in, key_of, opened

from dataload.config import DataConfig
from dataload.store import build as store_build
from dataload.store.build import Missing, StoreError, find_missing
from dataload.store.choice import Choice, Machine, choose, default_folder, free_gpu_bytes, require_gpu_memory
from dataload.store.file import StoreKey, required_bytes
from dataload.store.reading import fingerprints
from dataload.system.disk import gigabytes

# 1,000 frames: 18.4 MB.
KEY = StoreKey("kitti", "/data", (64, 96), "pillow", [f"{number:010d}.jpg" for number in range(1000)])
SIZE = required_bytes(KEY)
# More than any disk has.
HUGE = KEY._replace(size_px=(2**20, 2**20))
PLENTY = 100 * SIZE


def all_of(key: StoreKey) -> Missing:
    return Missing(len(key.names), required_bytes(key))


CASES = {
    "no GPU": (KEY, Machine(PLENTY, None), 3000, "disk", "fits into the 1.8 GB of free memory, which keeps what is read"),
    "a GPU with room": (KEY, Machine(PLENTY, PLENTY), 3000, "gpu", "fits into half of the 1.8 GB free on the GPU"),
    "a GPU with room, no memory": (KEY, Machine(0, PLENTY), 3000, "gpu", "fits into half of the 1.8 GB free on the GPU"),
    "half the GPU": (KEY, Machine(0, 2 * SIZE), 3000, "gpu", "fits into half of the 37.0 MB free on the GPU"),
    "a byte more": (KEY, Machine(PLENTY, 2 * SIZE - 1), 3000, "disk", "fits into the 1.8 GB of free memory, which keeps what is read"),
    "a full GPU": (KEY, Machine(PLENTY, 0), 3000, "disk", "fits into the 1.8 GB of free memory, which keeps what is read"),
    "four fifths of the memory": (
        KEY,
        Machine(-(-SIZE * 10 // 8), None),
        3000,
        "disk",
        "fits into the 23.1 MB of free memory, which keeps",
    ),
    "a bit more": (
        KEY,
        Machine(SIZE * 10 // 8 - 2, None),
        3000,
        "none",
        "18.5 MB of frames do not fit into the 23.1 MB of free memory; --frame_store disk reads them from the disk nevertheless",
    ),
    "no memory anywhere": (
        KEY,
        Machine(0, 0),
        3000,
        "none",
        "18.5 MB of frames do not fit into the 0.0 MB of free memory; --frame_store disk",
    ),
    "a frame too few": (
        KEY,
        Machine(PLENTY, PLENTY),
        999,
        "none",
        "the run loads 999 frames, fewer than the 1000 that a store would decode",
    ),
    "each frame once": (KEY, Machine(PLENTY, None), 1000, "disk", "fits into the 1.8 GB of free memory, which keeps what is read"),
    "a small disk": (HUGE, Machine(2**80, 2**80), 10**9, "none", "3298534.9 GB of frames are too many for the disk of "),
}


@pytest.mark.parametrize("case", CASES)
def test_auto_takes_the_fastest_place_that_fits_and_says_why(tmp_path, case) -> None:
    key, free, frames_to_load, where, why = CASES[case]
    choice = choose(tmp_path / "not" / "there", key, all_of(key), free, frames_to_load)
    assert choice.where == where
    assert choice.why.startswith(why)
    assert not (tmp_path / "not").exists()


def test_a_small_disk_is_named_with_the_remedy(tmp_path) -> None:
    choice = choose(tmp_path, HUGE, all_of(HUGE), Machine(2**80, None), 10**9)
    assert choice.why.endswith(f"of frames are too many for the disk of {tmp_path}; --frame_store_dir names another")


def test_a_store_that_is_there_is_used_however_short_the_run_and_small_the_memory(config) -> None:
    key, free, folder = key_of(config), Machine(PLENTY, None), config.frame_store_dir

    def chosen(key: StoreKey, free: Machine) -> str:
        return choose(folder, key, find_missing(folder, key, fingerprints(key)), free, 10).where

    assert chosen(key, free) == "none"
    build(config)[0].close()
    assert chosen(key, free) == "disk"
    assert chosen(key, Machine(0, 0)) == "disk"
    assert chosen(key, Machine(PLENTY, PLENTY)) == "gpu"
    assert chosen(key._replace(dataset="demo"), free) == "none"


def test_only_what_is_missing_is_weighed_against_the_run() -> None:
    free = Machine(PLENTY, None)
    assert choose(Path(), KEY, Missing(10, SIZE), free, 10).where == "disk"
    assert choose(Path(), KEY, Missing(10, SIZE), free, 9).where == "none"


BYTES = st.integers(0, 4 * SIZE) | st.integers(0, 2**50)


@settings(max_examples=200, deadline=None)
@given(memory=BYTES, gpu=st.none() | BYTES, frames_to_load=st.integers(0, 3000))
def test_auto_never_takes_what_is_not_there(tmp_path_factory, memory, gpu, frames_to_load) -> None:
    folder = tmp_path_factory.getbasetemp() / "none"
    choice = choose(folder, KEY, all_of(KEY), Machine(memory, gpu), frames_to_load)
    assert choice.where in ("none", "disk", "gpu")
    assert choice.why
    if choice.where == "gpu":
        assert gpu is not None
        assert gpu >= 2 * SIZE
        # What auto takes is never refused when it is asked for.
        require_gpu_memory(choice, KEY, Machine(memory, gpu))
    if choice.where == "disk":
        assert memory > SIZE
        assert gpu is None or gpu < 2 * SIZE
    if frames_to_load < 1000:
        assert choice.where == "none"


@pytest.mark.parametrize("gpu", [0, SIZE, int(SIZE / 0.9) - 2])
def test_gpu_is_refused_where_the_frames_do_not_fit(gpu) -> None:
    with pytest.raises(StoreError) as error:
        require_gpu_memory(Choice("gpu", "asked for"), KEY, Machine(PLENTY, gpu))
    assert str(error.value) == (
        f"frame_store=gpu: 18.5 MB of frames do not fit beside training into the {gigabytes(gpu)} free on the GPU; "
        "give --frame_store disk or auto, or a smaller --height and --width"
    )


def test_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(StoreError, match=r"^frame_store=gpu: training runs on a CPU; give --frame_store disk or auto$"):
        require_gpu_memory(Choice("gpu", "asked for"), KEY, Machine(PLENTY, None))


@pytest.mark.parametrize(("where", "gpu"), [("gpu", int(SIZE / 0.9) + 2), ("disk", None), ("disk", 0), ("none", None)])
def test_the_rest_is_not_refused(where, gpu) -> None:
    assert require_gpu_memory(Choice(where, ""), KEY, Machine(0, gpu)) is None


def test_a_cpu_has_no_gpu_memory() -> None:
    assert free_gpu_bytes(CPU) is None


def test_stores_lie_in_the_cache_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "md-engine" / "frames"


@pytest.fixture(scope="module")
def root(kitti_tree: Callable[..., Path]) -> Path:
    return kitti_tree()


@pytest.fixture
def config(root: Path, tmp_path: Path) -> DataConfig:
    return config_of(root, tmp_path / "stores", frame_store="auto")


def test_none_makes_none(root, tmp_path) -> None:
    assert opened(config_of(root, tmp_path / "stores", frame_store="none")) is None
    assert not (tmp_path / "stores").exists()


def test_gpu_on_a_cpu_is_refused_before_anything_is_made(root, tmp_path) -> None:
    with pytest.raises(StoreError, match="training runs on a CPU"):
        opened(config_of(root, tmp_path / "stores", frame_store="gpu"))
    assert not (tmp_path / "stores").exists()


def test_auto_on_a_cpu_is_the_disk_and_says_so(config, caplog) -> None:
    caplog.set_level("INFO", "md")
    store = opened(config)
    assert store is not None
    where = re.escape(f"Frame store  disk: 12 frames, 0.2 MB, in {store.file.path} ")
    assert re.search(where + r"\(fits into the [\d.]+ GB of free memory, which keeps what is read\)", caplog.text)


def test_auto_makes_none_for_a_short_run(config, caplog) -> None:
    caplog.set_level("INFO", "md")
    assert opened(config, frames_to_load=11) is None
    assert "Frame store  none: the run loads 11 frames, fewer than the 12 that a store would decode" in caplog.text
    assert not config.frame_store_dir.exists()
    decoder = NotingDecoder(config)
    assert opened(config, decoder, frames_to_load=12) is not None
    assert len(decoder.names) == 12
    assert opened(config, decoder, frames_to_load=1) is not None
    assert len(decoder.names) == 12


def test_a_short_run_that_asks_for_a_store_has_one(root, tmp_path) -> None:
    assert opened(config_of(root, tmp_path / "stores"), frames_to_load=1) is not None
    assert file_in(tmp_path / "stores").stat().st_size > 12 * 64 * 96 * 3


@pytest.mark.parametrize("below", ["file", "file/stores"])
def test_a_folder_that_cannot_be_is_refused_for_disk_and_passed_over_by_auto(root, tmp_path, caplog, below) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^frame_store_dir: cannot make folder .*/file.* \(.*\); give another --frame_store_dir, or"):
        build(config_of(root, tmp_path / below))
    assert opened(config_of(root, tmp_path / below, frame_store="auto")) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"Frame store  none: frame_store_dir: cannot make folder {tmp_path / below} (")


def test_the_key_holds_what_the_run_asks_for(root, tmp_path) -> None:
    config = config_of(root, tmp_path)
    others = [{"height_px": 96}, {"use_stereo": True, "frame_ids": (0,)}, {"frame_ids": (0, -1)}]
    names = {key_of(config).file_name, *(opened(config_of(root, tmp_path, **other)).file.path.name for other in others)}
    assert len(names) == 4
    linked = tmp_path / "link"
    linked.symlink_to(root)
    same_files = config_of(linked, tmp_path, split=config.split)
    assert key_of(same_files).file_name == key_of(config).file_name
    same_frames = config_of(root, tmp_path, batch_size=2, seed=5, num_workers=0, num_levels=1)
    assert key_of(same_frames).file_name == key_of(config).file_name


def test_sizes_are_said_in_megabytes_and_gigabytes() -> None:
    assert [gigabytes(number) for number in (0, 3_210_000, 999_999_999, 16_400_000_000)] == ["0.0 MB", "3.2 MB", "1000.0 MB", "16.4 GB"]


def test_why_a_store_that_is_there_is_not_used_is_said(config, monkeypatch) -> None:
    build(config)[0].close()
    key, folder = key_of(config), config.frame_store_dir
    os.utime(config.data_path / key.names[0], ns=(1, 1))
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 2**60)
    missing = find_missing(folder, key, fingerprints(key))
    assert missing.frames == 1
    choice = choose(folder, key, missing, Machine(PLENTY, None), 10)
    assert choice.where == "none"
    assert choice.why.startswith(
        f"{key.file_name} has 1 of 12 frames of files that have changed since, {key.names[0]} first (md-data store remove"
    )
