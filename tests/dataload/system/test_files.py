"""Files that appear whole or not at all, and outputs that cannot be written."""

import sys
from pathlib import Path

import pytest

from dataload.system.files import cache_folder, require_writable_file, require_writable_folder, whole_file
from splits.errors import InputError


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a_disp.npy"
    path.write_text("old")

    def break_off() -> None:
        with whole_file(path) as temporary:
            assert temporary.suffix == path.suffix
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        break_off()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a_disp.npy", "old")]
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a_disp.npy", "new")]


@pytest.mark.parametrize("fault", [OSError(28, "No space left"), OSError("No space left")])
def test_a_full_disk_is_named(tmp_path: Path, fault: OSError) -> None:
    path = tmp_path / "gt_depths.npz"
    with pytest.raises(OSError, match="No space left") as caught, whole_file(path):
        raise fault
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (fault.errno, "No space left", str(path))
    with pytest.raises(FileNotFoundError) as missing, whole_file(path):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")


def test_what_cannot_be_written_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    require_writable_file(file, "json")
    require_writable_file(tmp_path / "new", "json")
    require_writable_folder(tmp_path / "a" / "b", "give another")
    assert (tmp_path / "a" / "b").is_dir()
    with pytest.raises(InputError, match=rf"^cannot make folder {file}/a \(Not a directory\); give another$"):
        require_writable_folder(file / "a", "give another")
    with pytest.raises(InputError, match=rf"^json: no folder {tmp_path}/none to write a\.json to; make it first$"):
        require_writable_file(tmp_path / "none" / "a.json", "json")
    # Whoever runs the tests may write everywhere.
    monkeypatch.setattr("os.access", lambda _path, _mode: False)
    with pytest.raises(InputError, match=rf"^folder {tmp_path} is not writable; give another$"):
        require_writable_folder(tmp_path, "give another")
    with pytest.raises(InputError, match=rf"^json: {file} is not writable; name another file$"):
        require_writable_file(file, "json")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere systems have folders of their own")
@pytest.mark.parametrize("given", ["", "/elsewhere"])
def test_the_cache_folder_needs_no_package(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    with_package = cache_folder()
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    assert cache_folder() == with_package
