"""Every option and argument that takes a path, of every command: ``~`` is the home folder, and no path is empty."""

import os
import stat
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dataload.commands.command import NameOrFolder, _GivenPath
from dataload.system.files import cache_folder
from dataload.system.home import expand_home, name_user, temporary_cache
from splits.errors import InputError
from splits.version import DISTRIBUTION

PROGRAMS = ("md-train", "md-eval", "md-export", "md-predict", "md-data")
# Text that is no path: names, addresses, remarks, endings.
NO_PATHS = {
    "names", "drives", "more_drives", "base_url", "sequence", "image_topic", "camera_info_topic", "right_image_topic",
    "right_camera_info_topic", "depth_topic", "points_topic", "licence", "ext", "model_name",
}  # fmt: skip
# What cannot be taken for a path: numbers, switches, choices, names of a dataset, the word that may follow a switch.
KINDS = ("integer", "float", "boolean", "choice", "values", "dataset", "integer range", "float range", "word")


def commands() -> Iterator[tuple[str, click.Command]]:
    for program in PROGRAMS:
        (entry,) = distribution(DISTRIBUTION).entry_points.select(group="console_scripts", name=program)
        yield from _walk(program, entry.load())


def _walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            yield from _walk(f"{name} {inner}", found)
    else:
        yield name, command


PARAMS = [pytest.param(param, id=f"{name} {param.opts[0]}") for name, command in commands() for param in command.params]


@pytest.mark.parametrize("param", PARAMS)
def test_each_path_has_its_home(param: click.Parameter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if param.type.name in KINDS or param.name in NO_PATHS:
        return
    assert isinstance(param.type, (_GivenPath, NameOrFolder)), "an option that takes a path is of type folder_path() or NameOrFolder()"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    context = click.Context(click.Command("any"))

    def converted(text: str) -> object:
        several = param.multiple or param.nargs == -1
        value = param.type_cast_value(context, [text] if several else text)
        return value[0] if several else value

    assert str(converted("~/x")) == f"{tmp_path}/x"
    assert str(converted("a/~b")) == "a/~b"
    assert str(converted("./~/x")) in (f"{tmp_path}/~/x", "./~/x")
    with pytest.raises(click.BadParameter, match="an empty path"):
        converted("")
    with pytest.raises(click.BadParameter, match="there is no user 'nobody-here'"):
        converted("~nobody-here/x")


def test_at_least_as_many_paths_are_found_as_there_were() -> None:
    found = [param.values[0] for param in PARAMS if isinstance(param.values[0].type, (_GivenPath, NameOrFolder))]
    assert len(found) >= 40


def test_a_name_that_starts_like_a_home_folder_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~older-drives").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~") == str(tmp_path)
    assert expand_home("~older-drives/x.bag") == f"{tmp_path}/~older-drives/x.bag"


def test_without_a_home_the_whole_path_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    with pytest.raises(InputError, match=r"^~/x: the home folder is unknown \(HOME is not set\); write the whole path$"):
        expand_home("~/x")
    assert expand_home("x") == "x"


def test_lists_go_where_the_home_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dataload.commands.md_data import md_data

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(md_data, ["splits", "--write=~/lists"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "lists" / "eigen_zhou" / "train_files.txt").is_file()
    assert not (tmp_path / "~").exists()


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No HOME, a user without an entry in the system's list; returns the temporary folder."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    temporary_cache.cache_clear()
    return tmp_path


def test_without_a_home_the_cache_is_this_users_part_of_the_temporary_folder(homeless: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = cache_folder()
    assert cache_folder() == folder == homeless / f"md-engine-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [record.message for record in caplog.records] == [
        f"The home folder is unknown (HOME is not set): the cache is kept in {folder}; set XDG_CACHE_HOME to name another place"
    ]


def test_a_place_that_others_may_write_to_is_not_taken(homeless: Path) -> None:
    (homeless / f"md-engine-{os.getuid()}").symlink_to(homeless)
    folder = cache_folder()
    assert folder.parent == homeless
    assert folder.name != f"md-engine-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_home_nothing_asks_for_the_users_name(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # LOGNAME is what the commands set first, by name_user; it is taken away again at the end.
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCH_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    name_user()
    assert os.environ["LOGNAME"] == str(os.getuid())
    from engine.networks.pretrained import cached_file
    from engine.training.compiling import keep_compiled

    keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"].startswith(str(homeless))
    assert cached_file(18).is_relative_to(homeless / f"md-engine-{os.getuid()}")
    assert not (homeless / "~").exists()


def test_a_home_that_cannot_be_written_serves_as_none(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(homeless / "home"))
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    assert cache_folder() == homeless / f"md-engine-{os.getuid()}"
    (homeless / "home" / ".cache" / "md-engine").mkdir(parents=True)
    assert cache_folder() == homeless / "home" / ".cache" / "md-engine", "what lies there can still be read"
