"""Videos made to harm: lists of other files, pictures larger than are read, what is no file."""

from pathlib import Path

import pytest
from hostile import require_refused, run_bounded

from splits.errors import InputError
from splits.limits import VIDEO_FRAME_BYTES

pytest.importorskip("av")
from videos import save_video

from dataload.footage.video_reader import open_video


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile 'other.mp4'\n", "#EXTM3U\n#EXTINF:5,\nfile:other.mp4\n#EXT-X-ENDLIST\n"])
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8"])
def test_a_list_of_other_files_reads_none_of_them(text: str, name: str, tmp_path: Path) -> None:
    save_video(tmp_path / "other.mp4", count=3)
    (tmp_path / name).write_text(text)
    line = require_refused(run_bounded(["md-data", "from-video", name, "--out", "out", "--no_split"], cwd=tmp_path), name)
    assert "cannot be read as a video" in line
    assert not list(tmp_path.rglob("*.jpg"))


def test_pictures_larger_than_are_read_are_refused_by_what_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.mp4", count=3)
    open_video("a.mp4", str(path)).close()
    monkeypatch.setenv(VIDEO_FRAME_BYTES.variable, "10000")
    with pytest.raises(InputError, match=r"a\.mp4.*MD_MAX_VIDEO_FRAME_BYTES"):
        open_video("a.mp4", str(path))
