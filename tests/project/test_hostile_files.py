"""Files from strangers, given to the commands that read them: one line of what is wrong, less than 2 GiB, less than 10 s.

Those that were found in the wild lie in the reference data; a file of the same kind is made here by formula for each.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hostile import require_bounded, require_refused, run_bounded
from hostile_files import PICTURES, gif_of_comment, jpeg_of, npy_of, npy_of_header, zip_of, zip_of_zeros
from inspected_trees import write_camera, write_depth, write_frames
from odometry_tree import make_tree
from picture_kinds import JPEG
from places import shared_folder
from predicting import save_image, save_model

Content = bytes | Callable[[], bytes]
HOSTILE = shared_folder() / "cases" / "hostile"
NAMES = [f"{number:04d}.jpg" for number in range(6)]
LINES = "".join(f"drive {Path(name).stem}\n" for name in NAMES[1:-1])


def folder(root: Path) -> Path:
    """A small dataset of one sequence with depth, and lists of it."""
    write_frames(root / "drive", NAMES)
    write_depth(root / "drive" / "depth", NAMES, 10)
    write_camera(root)
    lists = root / "splits" / "folder"
    lists.mkdir(parents=True)
    for subset in ("train", "val", "test"):
        (lists / f"{subset}_files.txt").write_text(LINES)
    return root


def put(path: Path, content: Content) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content())


def found(*names: str) -> dict[str, Content]:
    """Files of the reference data; none where it is not there."""
    return {name: (HOSTILE / name).read_bytes for name in names} if HOSTILE.is_dir() else {}


def cases(files: Mapping[str, Content]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("content", files.values(), ids=files.keys())


def check(root: Path) -> list[str | Path]:
    return ["md-data", "check", "--dataset", "folder", "--data_path", root]


ALIASES = b"a: &a [x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (k, k, b",".join([b"*%c" % (k - 1)] * 9)) for k in b"bcdefghij")
CAMERAS: dict[str, Content] = {
    "aliases": ALIASES + b"stereo: *j\n",
    "depth": b"cameras: " + b"[" * 1000,
    "number": b"cameras: {front_left: {image_width: " + b"9" * 400 + b", image_height: 48, camera_matrix: [1,0,3,0,1,4,0,0,1]}}",
    "large number": b"cameras: {front_left: {image_width: 1" + b"0" * 300 + b", image_height: 48, camera_matrix: [1,0,3,0,1,4,0,0,1]}}",
    "date": b"cameras: 2020-13-99\n",
    "tag": b'cameras: !!int ""',
    "lines": b"%YAML:1.0\n" + b"\n" * 100_000,
    "letters": b"cameras: {front_left: {\x1b[31m: 1, camera_matrix: '" + b"x" * 100_000 + b"'}}",
}


@pytest.mark.slow
@cases(
    CAMERAS | found("bigint2.yaml", "date.yaml", "deep2.yaml", "fuzz_calibration_yaml_3a573e", "lol_stereo.yaml"),
)
def test_a_calibration_in_a_check(content: Content, tmp_path: Path) -> None:
    put(folder(tmp_path) / "calibration.yaml", content)
    require_refused(run_bounded(check(tmp_path), cwd=tmp_path), "calibration.yaml")


IMAGES: dict[str, Content] = {
    "bomb": lambda: jpeg_of(50_000, 50_000),
    "grey bomb": PICTURES["bomb16.png"],
    "scans": PICTURES["scans.jpg"],
    "comment": lambda: gif_of_comment(40),
    "tile": PICTURES["tile.tif"],
    "cut": JPEG[:300],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "torch", "dali", "store", "splits"])
@cases({name: IMAGES[name] for name in ("bomb", "scans", "tile")} | found("bomb50k.jpg", "bomb50k_16.png", "fuzz_images_b4532f"))
def test_a_frame_in_each_command_of_training(command: str, content: Content, tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    put(data / "drive" / "0003.jpg", content)
    train = ["md-train", "--dataset", "folder", "--data_path", data, "--log_dir", tmp_path / "runs", "--num_epochs", "1", "--no_cuda"]
    train += ["--batch_size", "2", "--height", "64", "--width", "96", "--weights_init", "scratch", "--num_workers", "2"]
    commands = {
        "check": check(data),
        "torch": [*train, "--loader", "torch", "--frame_store", "none"],
        "dali": [*train, "--loader", "dali", "--frame_store", "none"],
        "store": [*train, "--loader", "torch", "--frame_store", "disk", "--frame_store_dir", tmp_path / "stores"],
        "splits": ["md-data", "splits", "--from", data, "--dataset", "folder", "--write", tmp_path / "lists"],
    }
    outcome = run_bounded(commands[command], cwd=tmp_path)
    require_bounded(outcome)
    assert "0003.jpg" in "\n".join(outcome.lines) or command == "splits", outcome.lines


@pytest.mark.slow
@cases(IMAGES | {name: PICTURES[name] for name in ("notes.png", "pictures.gif", "runs.bmp")} | found("bomb50k.jpg", "bomb50k_16.png"))
def test_an_image_to_predict(content: Content, tmp_path: Path) -> None:
    save_model(tmp_path / "run", use_stereo=True)
    put(tmp_path / "a.jpg", content)
    command = ["md-predict", "--model", tmp_path / "run", "--image", tmp_path / "a.jpg", "--no_cuda"]
    require_refused(run_bounded(command, cwd=tmp_path), "a.jpg")


@pytest.mark.slow
@cases({"notes.jpg": PICTURES["notes.jpg"], "exif.png": PICTURES["exif.png"], "exif.webp": PICTURES["exif.webp"]})
def test_notes_in_an_image_to_predict_cost_nothing(content: Content, tmp_path: Path) -> None:
    save_model(tmp_path / "run", use_stereo=True)
    put(tmp_path / "a.jpg", content)
    outcome = run_bounded(["md-predict", "--model", tmp_path / "run", "--image", tmp_path / "a.jpg", "--no_cuda"], cwd=tmp_path)
    require_bounded(outcome)
    assert outcome.status == 0, outcome.lines
    assert len(list(tmp_path.glob("a_disp*"))) >= 1


DEPTHS: dict[str, tuple[str, Content]] = {
    "bomb": (".png", PICTURES["bomb16.png"]),
    "tile": (".tif", PICTURES["tile.tif"]),
    "claims": (".npy", npy_of((4, 10**9, 10**9))),
    "header": (".npy", npy_of_header(b"(" * 5000)),
}


@pytest.mark.slow
@cases(DEPTHS | {name: (".npy", file) for name, file in found("huge.npy", "pk.npy", "fuzz_npy_acc25b", "fuzz_npy_d81480").items()})
def test_depth_in_a_check(content: tuple[str, Content], tmp_path: Path) -> None:
    (folder(tmp_path) / "drive" / "depth" / "0003.png").unlink()
    ending, depth = content
    put(tmp_path / "drive" / "depth" / f"0003{ending}", depth)
    require_refused(run_bounded(check(tmp_path), cwd=tmp_path), f"0003{ending}")


ARRAYS: dict[str, Content] = {
    "gigabytes": lambda: zip_of_zeros(["values", "shapes"], 6 * 2**30, (6 * 2**28,), "<f4"),
    "claims": npy_of((4, 10**9, 10**9)),
    "objects": zip_of({"values.npy": npy_of((1,), "|O", b"N.")}),
    "start": b"PK\3\4-",
}


@pytest.mark.slow
@cases(ARRAYS | found("fuzz_gt_npz_09ab74", "fuzz_gt_npz_8da928", "fuzz_npy_d81480", "huge.npy", "pk.npy"))
def test_ground_truth_and_predictions_in_an_evaluation(content: Content, tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    np.save(tmp_path / "ours.npy", np.full((4, 64, 96), 0.1, np.float32))
    command = ["md-eval", "--dataset", "folder", "--data_path", data, "--eval_split", "folder", "--no_cuda", "--eval_mono"]
    put(data / "splits" / "folder" / "gt_depths.npz", content)
    outcome = run_bounded([*command, "--ext_disp_to_eval", tmp_path / "ours.npy"], cwd=tmp_path)
    require_refused(outcome, "gt_depths.npz")
    (data / "splits" / "folder" / "gt_depths.npz").unlink()
    put(tmp_path / "theirs.npy", content)
    require_refused(run_bounded([*command, "--ext_disp_to_eval", tmp_path / "theirs.npy"], cwd=tmp_path), "theirs.npy")


POSES: dict[str, Content] = {
    "rows": b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 1_000_000,
    "number": b"1" + b"0" * 5000 + b" 0 0 0 0 1 0 0 0 0 1 0\n",
    "largest": b"1e308 0 0 0 0 1e308 0 0 0 0 1 0\n" * 12,
    "token": b"x" * 5_000_000,
    "binary": b"\xff\xfe\0" * 100,
    "claims": npy_of((11, 10**9, 10**9)),
}


@pytest.mark.slow
@cases(POSES | found("huge.npy", "pk.npy", "fuzz_npy_acc25b"))
def test_poses_in_an_evaluation(content: Content, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_tree(data)
    for name in ("theirs.npy", "theirs.txt"):
        put(tmp_path / name, content)
    command = ["md-eval", "--dataset", "kitti_odom", "--data_path", data, "--eval_split", "odom_4", "--no_cuda", "--ext_poses_to_eval"]
    ending = "npy" if (tmp_path / "theirs.npy").read_bytes().startswith((b"\x93NUMPY", b"PK")) else "txt"
    require_refused(run_bounded([*command, tmp_path / f"theirs.{ending}"], cwd=tmp_path), f"theirs.{ending}")
    put(data / "poses" / "04.txt", content)
    np.save(tmp_path / "ours.npy", np.tile(np.eye(4), (11, 1, 1)))
    require_refused(run_bounded([*command, tmp_path / "ours.npy"], cwd=tmp_path), "04.txt")


SPLITS: dict[str, Content] = {
    "number": b"drive 0001 l\ndrive " + b"9" * 5000 + b" l\n",
    "name": b"x" * 5_000_000 + b" 0001\n",
    "NUL": b"drive 0001\ndri\0ve 0002\n",
    "written NUL": b"dri%00ve 0002\n",
    "escape": b"drive\x1b[31m 0001\n",
    "fields": b"1 " * 1_000_000,
    "lines": b"drive 0001\n" * 2_000_000,
    "blank": b"\n" * 3_000_000,
    "parts": b"a/" * 100_000 + b" 0001\n",
}


@pytest.mark.slow
@cases(SPLITS | found("fuzz_split_lines_9a2ed0", "fuzz_split_refs_demo_a65aa2"))
@pytest.mark.parametrize("dataset", ["folder", "kitti"])
def test_split_lines_in_a_check(dataset: str, content: Content, tmp_path: Path) -> None:
    data = folder(tmp_path)
    put(data / "splits" / "folder" / "train_files.txt", content)
    command = ["md-data", "check", "--dataset", dataset, "--data_path", data, "--split", data / "splits" / "folder"]
    require_refused(run_bounded(command, cwd=tmp_path), "train_files.txt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bomb.png", "bomb16.png", "notes.png", "chunks.png", "limit.png"])
def test_images_to_convert(name: str, tmp_path: Path) -> None:
    images = tmp_path / "data" / "2011_09_26" / "2011_09_26_drive_0001_sync" / "image_02" / "data"
    images.mkdir(parents=True)
    put(images / "0000000000.png", PICTURES[name])
    outcome = run_bounded(["md-data", "jpeg", "--data_path", tmp_path / "data", "--jobs", "1"], cwd=tmp_path)
    require_bounded(outcome)
    assert outcome.status == 1
    assert any("0000000000.png" in line for line in outcome.lines), outcome.lines


@pytest.mark.slow
@pytest.mark.parametrize("place", ["drive/0003.jpg", "drive/depth/0003.png", "calibration.yaml", "splits/folder/train_files.txt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "gone"])
def test_what_is_no_file_in_a_check(place: str, kind: str, tmp_path: Path) -> None:
    path = folder(tmp_path) / place
    path.unlink()
    {
        "pipe": os.mkfifo, "folder": Path.mkdir, "device": lambda path: path.symlink_to("/dev/zero"),
        "gone": lambda path: path.symlink_to("nowhere"),
    }[kind](path)  # fmt: skip
    require_bounded(run_bounded(check(tmp_path), cwd=tmp_path))


def test_a_bomb_to_a_command(tmp_path: Path) -> None:
    """One of these runs in the quick suite."""
    put(folder(tmp_path) / "drive" / "0003.jpg", jpeg_of(50_000, 50_000))
    require_refused(run_bounded(check(tmp_path), cwd=tmp_path), "0003.jpg", "more than 67,108,864 pixels")


@pytest.mark.slow
def test_names_of_other_bytes_go_through_all_commands(tmp_path: Path) -> None:
    """A sequence and frames whose names are no UTF-8, and have a line end, are listed, inspected and predicted."""
    data, odd = tmp_path / "data", os.fsdecode(b"caf\xe9 of\nlines%")
    names = [f"{number} {odd}.jpg" for number in range(6)]
    write_frames(data / odd, names)
    write_camera(data)
    outcome = run_bounded(["md-data", "splits", "--from", data, "--dataset", "folder"], cwd=tmp_path)
    assert outcome.status == 0, outcome.lines
    lines = [line for path in (data / "splits").rglob("*_files.txt") for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines
    assert all(line.startswith("caf%E9%20of%0Alines%25 ") for line in lines)
    outcome = run_bounded([*check(data), "--json", tmp_path / "report.json"], cwd=tmp_path)
    require_bounded(outcome)
    assert "missing" not in "\n".join(line for line in outcome.lines if "problem" in line), outcome.lines
    (tmp_path / "report.json").read_text(encoding="utf-8")
    save_model(tmp_path / "run", use_stereo=True)
    image = tmp_path / f"{odd}.jpg"
    save_image(image)
    command = ["md-predict", "--model", tmp_path / "run", "--image", image, "--no_cuda"]
    outcome = run_bounded(command, cwd=tmp_path)
    assert outcome.status == 0, outcome.lines
    put(image, b"no image")
    line = require_refused(run_bounded(command, cwd=tmp_path), "caf\\udce9 of\\nlines%.jpg")
    assert line.startswith("Error: ")
