"""Files from strangers, given to the commands that read them: one line of what is wrong, less than 2 GiB, less than 10 s."""

from pathlib import Path

import pytest
from hostile import require_refused, run_bounded
from inspected_trees import write_camera, write_frames
from places import shared_folder

HOSTILE = shared_folder() / "cases" / "hostile"
NAMES = [f"{number:04d}.jpg" for number in range(6)]


def _folder(root: Path) -> Path:
    """A small dataset of one sequence, with lists of it."""
    write_frames(root / "drive", NAMES)
    write_camera(root)
    for subset in ("train", "val"):
        (root / "splits" / "folder").mkdir(parents=True, exist_ok=True)
        (root / "splits" / "folder" / f"{subset}_files.txt").write_text("".join(f"drive {Path(name).stem}\n" for name in NAMES[1:-1]))
    return root


def _camera_case(name: str) -> bytes:
    return {
        "aliases": b"a: &a [x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (k, k, b",".join([b"*%c" % (k - 1)] * 9)) for k in b"bcdefghij"),
        "depth": b"cameras: " + b"[" * 1000,
        "big number": b"cameras: {front_left: {image_width: " + b"9" * 400 + b", image_height: 48, camera_matrix: [1,0,3,0,1,4,0,0,1]}}",
        "date": b"cameras: 2020-13-99\n",
        "tag": b'cameras: !!int ""',
    }[name]


@pytest.mark.parametrize("name", ["aliases", "depth", "big number", "date", "tag"])
def test_calibration_in_a_check(name: str, tmp_path: Path) -> None:
    (_folder(tmp_path) / "calibration.yaml").write_bytes(_camera_case(name))
    require_refused(run_bounded(["md-data", "check", "--dataset", "folder", "--data_path", tmp_path], cwd=tmp_path), "calibration.yaml")


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"no {HOSTILE}")
@pytest.mark.parametrize("name", ["bigint2.yaml", "date.yaml", "deep2.yaml", "fuzz_calibration_yaml_3a573e", "lol_stereo.yaml"])
def test_found_calibration_in_a_check(name: str, tmp_path: Path) -> None:
    (_folder(tmp_path) / "calibration.yaml").write_bytes((HOSTILE / name).read_bytes())
    require_refused(run_bounded(["md-data", "check", "--dataset", "folder", "--data_path", tmp_path], cwd=tmp_path), "calibration.yaml")
