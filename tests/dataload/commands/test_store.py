"""md-data store: what there is, whether it is sound, and that nothing but what was named is taken away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stores import build, config_of, file_in, flip_bit, frame_offset, key_of, mounted, read_only

from dataload.commands.md_data import md_data
from dataload.config import DataConfig
from dataload.store import build as store_build
from dataload.store.file import LOCK_SUFFIX, PARTIAL_SUFFIX, SUFFIX, StoreFile
from dataload.system.lock_files import one_process

__all__ = ["mounted"]


@pytest.fixture
def config(kitti_tree, tmp_path: Path) -> DataConfig:
    config = config_of(kitti_tree(), tmp_path / "stores")
    build(config)[0].close()
    return config


@pytest.fixture
def folder(config) -> Path:
    return config.frame_store_dir


def run(*args: str | Path, folder: Path | None = None) -> Result:
    options = ["--frame_store_dir", str(folder)] if folder else []
    return CliRunner().invoke(md_data, ["store", *map(str, args), *options])


def partial_of(config: DataConfig) -> Path:
    path = config.frame_store_dir / key_of(config).file_name.replace(SUFFIX, PARTIAL_SUFFIX)
    StoreFile.create(path, key_of(config)).close()
    return path


def test_list_shows_what_there_is_of_what_and_what_it_takes(config, folder) -> None:
    partial = partial_of(config)
    result = run("list", folder=folder)
    assert result.exit_code == 0
    whole, unfinished, total = result.output.splitlines()
    assert whole.startswith(file_in(folder).name)
    assert f"is whole; 12 of 12 frames of {config.data_path}, by " in whole
    assert unfinished.startswith(partial.name)
    assert "is unfinished; 0 of 12 frames" in unfinished
    assert total.endswith(f" in {folder}")
    with one_process(folder / key_of(config).file_name.replace(SUFFIX, LOCK_SUFFIX)):
        assert "is being made; 0 of 12" in run("list", folder=folder).output


def test_odd_files_neither_stop_the_list_nor_count(config, folder) -> None:
    name, whole = key_of(config).file_name, file_in(folder).read_bytes()
    (folder / "mocap.frames").write_text("somebody else's")
    (folder / name.replace("kitti", "gone")).symlink_to(folder / "nowhere")
    (folder / name.replace("kitti", "folder")).mkdir()
    (folder / name.replace("kitti", "cut")).write_bytes(whole[:5000])
    result = run("list", folder=folder)
    assert result.exit_code == 0
    assert "mocap" not in result.output
    assert "cannot be read (No such file or directory)" in result.output
    assert "is no file" in result.output
    assert "is cut off: 5000 bytes of " in result.output


def test_a_folder_that_cannot_be_written_is_listed_all_the_same(kitti_tree, mounted, monkeypatch) -> None:
    monkeypatch.setattr(store_build, "SPARE_DISK_BYTES", 0)
    disk = mounted(2**22)
    config = config_of(kitti_tree(), disk)
    build(config)[0].close()
    partial_of(config)
    read_only(disk)
    result = run("list", folder=disk)
    assert result.exit_code == 0
    assert "is whole" in result.output
    assert "is unfinished" in result.output
    assert run("verify", folder=disk).exit_code == 0
    assert run("remove", "--all", folder=disk).exit_code == 1


def test_an_empty_folder_is_said_to_be_so(tmp_path) -> None:
    for command in (["list"], ["verify"], ["remove", "--all"]):
        result = run(*command, folder=tmp_path / "none")
        assert (result.exit_code, result.output) == (0, f"no frame stores in {tmp_path / 'none'}\n")


def test_the_folder_is_the_cache_by_default_and_a_tilde_is_the_home(config, folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("list").output == f"no frame stores in {tmp_path / 'md-engine' / 'frames'}\n"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "is whole" in run("list", "--frame_store_dir=~/stores").output


def test_verify_reads_every_frame_and_looks_at_every_source(config, folder) -> None:
    path = file_in(folder)
    result = run("verify", folder=folder)
    assert (result.exit_code, result.output) == (0, f"{path.name}: all 12 frames are sound\n")
    flip_bit(path, frame_offset(path, 4) + 100, 3)
    names = key_of(config).names
    (config.data_path / names[7]).unlink()
    os.utime(config.data_path / names[2], ns=(1, 1))
    result = run("verify", path.stem, folder=folder)
    assert result.exit_code == 1
    assert f"1 of 12 frames are damaged: {names[4]}" in result.output
    assert f"2 of 12 sources are gone or have changed: {names[2]}, {names[7]}" in result.output


def test_verify_passes_what_is_unfinished_and_fails_what_is_spoilt(config, folder) -> None:
    partial_of(config)
    assert run("verify", folder=folder).exit_code == 0
    path = file_in(folder)
    os.truncate(path, path.stat().st_size - 1)
    result = run("verify", folder=folder)
    assert result.exit_code == 1
    assert f"{path.name}: is cut off" in result.output


@pytest.mark.parametrize("ending", [SUFFIX, PARTIAL_SUFFIX, ""])
def test_remove_takes_what_was_named(config, folder, ending) -> None:
    partial, whole = partial_of(config), file_in(folder)
    result = run("remove", whole.stem + ending, whole.stem + ending, folder=folder)
    assert result.exit_code == 0, result.output
    assert (whole.exists(), partial.exists()) == (ending == PARTIAL_SUFFIX, ending == SUFFIX)
    assert result.output.count("removed") == (2 if ending == "" else 1)


def test_remove_all_leaves_what_is_not_ours(config, folder) -> None:
    partial_of(config)
    (folder / "mocap.frames").write_text("somebody else's")
    assert run("remove", "--all", folder=folder).exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["mocap.frames"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "name the stores to remove (md-data store list shows them), or give --all"),
        (["mocap.frames"], "no frame store mocap.frames in "),
        (["/elsewhere/kitti-96x64-0123456789ab.frames"], "give its name alone, and --frame_store_dir /elsewhere"),
    ],
)
def test_what_cannot_be_meant_is_refused(config, folder, names, said) -> None:
    (folder / "mocap.frames").write_text("somebody else's")
    result = run("remove", *names, folder=folder)
    assert result.exit_code in (1, 2)
    assert said in result.output
    assert len(list(folder.glob("*.frames"))) == 2


def test_an_unset_variable_is_not_the_current_folder(config, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    result = run("remove", "--all", "--frame_store_dir=")
    assert result.exit_code == 2
    assert "an empty path; is a variable of the shell not set?" in result.output
    assert file_in(folder).exists()


def test_a_slip_of_the_pen_is_answered_with_the_nearest_name(config, folder) -> None:
    name = file_in(folder).stem
    result = run("verify", name[:-1] + "x", folder=folder)
    assert result.exit_code == 1
    assert f"did you mean {name}?" in result.output
    assert "all 12 frames are sound" in run("verify", folder / (name + SUFFIX), folder=folder).output


def test_a_store_that_is_being_made_is_not_taken_away(config, folder) -> None:
    partial = partial_of(config)
    with one_process(folder / key_of(config).file_name.replace(SUFFIX, LOCK_SUFFIX)):
        result = run("remove", partial.name, folder=folder)
    assert result.exit_code == 1
    assert "is being made by another process; end that first" in result.output
    assert partial.exists()


def test_help_answers_without_torch_and_numpy() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from dataload.commands.md_data import md_data\n"
        "result = CliRunner().invoke(md_data, ['store', '--help']); assert result.exit_code == 0\n"
        "print(sorted({'torch', 'numpy', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_whose_name_holds_a_colon_as_they_once_did(config, folder) -> None:
    store = file_in(folder)
    old = store.rename(folder / store.name.replace("kitti-", "package.module:Class-"))
    assert run("list", folder=folder).output.startswith(f"{old.name}  ")
    assert run("verify", old.name, folder=folder).output == f"{old.name}: all 12 frames are sound\n"
    assert run("remove", old.name, folder=folder).exit_code == 0
    assert not old.exists()
