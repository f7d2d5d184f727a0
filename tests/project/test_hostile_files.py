"""Files from strangers, given to the commands that read them: one line of what is wrong, less than 2 GiB, less than 10 s.

Those that were found in the wild lie in the reference data; a file of the same kind is made here by formula for each.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import hostile_readers
import numpy as np
import pytest
from hostile import PARSER_OF_FOUND, read_apart, require_bounded, require_refused, run_bounded
from hostile_files import PICTURES, jpeg_of, npy_of, npy_of_header, zip_of, zip_of_zeros
from inspected_trees import write_camera, write_depth, write_frames
from odometry_tree import make_tree
from places import shared_folder
from predicting import save_image, save_model

from dataload.frames.depth_file import read_depth_values
from dataload.frames.picture import read_picture
from engine.training.config import TrainConfig, saved_options

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


def check(root: Path) -> list[str | Path]:
    return ["md-data", "check", "--dataset", "folder", "--data_path", root]


ALIASES = b"a: &a [x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (k, k, b",".join([b"*%c" % (k - 1)] * 9)) for k in b"bcdefghij")
CAMERAS: dict[str, Content] = {
    "aliases": ALIASES + b"stereo: *j\n",
    "depth": b"cameras: " + b"[" * 1000,
    "number": b"cameras: {front_left: {image_width: " + b"9" * 400 + b", image_height: 48, camera_matrix: [1,0,3,0,1,4,0,0,1]}}",
    "large": b"cameras: {front_left: {image_width: '1" + b"0" * 300 + b"', image_height: 48, camera_matrix: [1,0,3,0,1,4,0,0,1]}}",
    "date": b"cameras: 2020-13-99\n",
    "tag": b'cameras: !!int ""',
    "lines": b"%YAML:1.0\n" + b"\n" * 100_000,
    "letters": b"cameras: {front_left: {\x1b[31m: 1, camera_matrix: '" + b"x" * 100_000 + b"'}}",
    "fields": b"".join(b"k%d: 1\n" % number for number in range(12_000)),
    "python": b"cameras: !!python/object/apply:os.system ['id']",
}
DEPTHS: dict[str, Content] = {"claims": npy_of((4, 10**9, 10**9)), "header": npy_of_header(b"(" * 5000)}
TRUTHS: dict[str, Content] = {
    "gigabytes": lambda: zip_of_zeros(["values", "shapes"], 2**31, (2**29,), "<f4"),
    "objects": zip_of({"values.npy": npy_of((1,), "|O", b"N.")}),
    "start": b"PK\3\4-",
}
POSES: dict[str, Content] = {
    "rows": b"1 0 0 0 0 1 0 0 0 0 1 0\n" * 1_000_000,
    "number": b"1" + b"0" * 5000 + b" 0 0 0 0 1 0 0 0 0 1 0\n",
    "largest": b"1e308 0 0 0 0 1e308 0 0 0 0 1 0\n" * 12,
    "token": b"x" * 5_000_000,
    "binary": b"\xff\xfe\0" * 100,
}
SPLITS: dict[str, Content] = {
    "number": b"drive 0001 l\ndrive " + b"9" * 5000 + b" l\n",
    "name": b"x" * 5_000_000 + b" 0001\n",
    "NUL": b"drive 0001\ndri\0ve 0002\n",
    "written NUL": b"dri%00ve 0002\n",
    "escape": b"drive\x1b[31m 0001\n",
    "fields": b"1 " * 1_000_000,
    "lines": b"drive 0001\n" * 2_000_000,
    "parts": b"a/" * 100_000 + b" 0001\n",
}
SCANS: dict[str, Content] = {"cut": b"\0" * 17, "empty": b""}
DATES: dict[str, Content] = {
    "huge": b"S_rect_02: 1e20 1e20\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02:" + b" 1e300" * 12 + b"\nR: 1 0 0 0 1 0 0 0 1\nT: 0 0 1e308\n",
    "wide": b"S_rect_02: 60000 60000\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_02:" + b" 1" * 12 + b"\nR: 1 0 0 0 1 0 0 0 1\nT: 0 0 1\n",
    "long": b"S_rect_02: " + b"1 " * 1_000_000,
    "token": b"S_rect_02: " + b"9" * 60_000,
}
ARRAYS = ("huge.npy", "pk.npy", "fuzz_npy_acc25b", "fuzz_npy_d81480")
READERS: dict[str, tuple[Callable[[Path], object], str, Mapping[str, Content]]] = {
    "cameras": (
        hostile_readers.read_camera, ".yaml",
        CAMERAS | found("bigint2.yaml", "date.yaml", "deep2.yaml", "fuzz_calibration_yaml_3a573e", "lol_stereo.yaml"),
    ),
    "pictures": (read_picture, ".jpg", found("bomb50k.jpg", "bomb50k_16.png", "fuzz_images_b4532f")),
    "depth": (read_depth_values, ".npy", DEPTHS | found(*ARRAYS)),
    "truth": (hostile_readers.read_truth, ".npz", TRUTHS | found("fuzz_gt_npz_09ab74", "fuzz_gt_npz_8da928", *ARRAYS)),
    "predictions": (hostile_readers.read_disps, ".npy", DEPTHS | TRUTHS | found(*ARRAYS)),
    "poses": (hostile_readers.read_poses, ".txt", POSES),
    "motions": (hostile_readers.read_poses, ".npy", DEPTHS | found(*ARRAYS)),
    "splits": (hostile_readers.read_split, ".txt", SPLITS | found("fuzz_split_lines_9a2ed0", "fuzz_split_refs_demo_a65aa2")),
    "scans": (hostile_readers.read_laser, ".bin", SCANS),
    "dates": (hostile_readers.read_kitti_camera, ".txt", DATES),
}  # fmt: skip
"""By what is read: the reader, the ending of its files, and the files, all of which are refused."""


@pytest.mark.parametrize("kind", READERS)
def test_each_file_is_refused_by_its_reader(kind: str, tmp_path: Path) -> None:
    reader, ending, files = READERS[kind]
    if not files:
        pytest.skip(f"no {HOSTILE}")
    (tmp_path / "files").mkdir()
    for name, content in files.items():
        put(tmp_path / "files" / f"{name}{ending}", content)
    os.mkfifo(tmp_path / "files" / f"pipe{ending}")
    (tmp_path / "files" / f"folder{ending}").mkdir()
    (tmp_path / "files" / f"device{ending}").symlink_to("/dev/zero")
    said = read_apart(reader, tmp_path / "files")
    assert len(said) == len(files) + 3
    accepted = {name: text for name, text in said.items() if name not in text or text.startswith("read ")}
    assert not accepted


def test_points_that_no_laser_measures_fall_nowhere(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number, value in enumerate((np.nan, np.inf, -np.inf, 3e38, 1e30)):
        scan = np.tile(np.array([5, 1, 1, 0.5], np.float32), (100, 1))
        scan[::3, :3] = value
        scan.tofile(tmp_path / "files" / f"{number}.bin")
    said = read_apart(hostile_readers.read_laser, tmp_path / "files")
    assert set(said.values()) == {"read (375, 1242)"}, "and nothing is printed beside"


def train(data: Path, root: Path, *options: str | Path) -> list[str | Path]:
    command = ["md-train", "--dataset", "folder", "--data_path", data, "--log_dir", root / "runs", "--num_epochs", "1", "--no_cuda"]
    return [*command, "--batch_size", "2", "--height", "64", "--width", "96", "--weights_init", "scratch", "--num_workers", "2", *options]


def test_a_bomb_to_a_command(tmp_path: Path) -> None:
    put(folder(tmp_path) / "drive" / "0003.jpg", jpeg_of(50_000, 50_000))
    require_refused(run_bounded(check(tmp_path), cwd=tmp_path), "0003.jpg", "more than 50,331,648 pixels")


@pytest.mark.slow
@pytest.mark.parametrize("options", [("torch", "none"), ("dali", "none"), ("torch", "disk"), ("dali", "disk")])
@pytest.mark.parametrize("name", ["bomb.jpg", "scans.jpg"])
def test_a_bomb_in_training(options: tuple[str, str], name: str, tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    put(data / "drive" / "0003.jpg", PICTURES[name])
    loader, store = options
    command = train(data, tmp_path, "--loader", loader, "--frame_store", store, "--frame_store_dir", tmp_path / "stores")
    require_refused(run_bounded(command, cwd=tmp_path), "0003.jpg")


@pytest.mark.slow
def test_the_largest_picture_that_is_read_in_training(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    put(data / "drive" / "0003.jpg", PICTURES["limit.jpg"])
    require_bounded(run_bounded(train(data, tmp_path, "--loader", "torch", "--frame_store", "none", "--dry_run"), cwd=tmp_path))
    # Decoded for the sizes, for what stands still, and for the contact sheet.
    require_bounded(run_bounded(check(data), cwd=tmp_path), readings=3)


@pytest.mark.slow
def test_images_to_predict(tmp_path: Path) -> None:
    save_model(tmp_path / "run", use_stereo=True)
    command = ["md-predict", "--model", tmp_path / "run", "--no_cuda", "--image"]
    for name in ("bomb.jpg", "notes.png"):
        put(tmp_path / name, PICTURES[name])
        require_refused(run_bounded([*command, tmp_path / name], cwd=tmp_path), name)
    # EXIF that points to gigabytes costs nothing where nothing of it is needed.
    put(tmp_path / "notes.jpg", PICTURES["notes.jpg"])
    outcome = run_bounded([*command, tmp_path / "notes.jpg"], cwd=tmp_path)
    require_bounded(outcome)
    assert outcome.status == 0, outcome.lines


@pytest.mark.slow
def test_cameras_and_lists_in_a_check(tmp_path: Path) -> None:
    data = folder(tmp_path)
    camera = (data / "calibration.yaml").read_bytes()
    put(data / "calibration.yaml", CAMERAS["aliases"])
    require_refused(run_bounded(check(data), cwd=tmp_path), "calibration.yaml", "more than 10000 values")
    put(data / "calibration.yaml", camera)
    for name in ("NUL", "number", "name"):
        put(data / "splits" / "folder" / "train_files.txt", SPLITS[name])
        require_refused(run_bounded(check(data), cwd=tmp_path), "train_files.txt")


@pytest.mark.slow
def test_truth_and_predictions_in_an_evaluation(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    np.save(tmp_path / "ours.npy", np.full((4, 64, 96), 0.1, np.float32))
    command = ["md-eval", "--dataset", "folder", "--data_path", data, "--eval_split", "folder", "--no_cuda", "--eval_mono"]
    put(data / "splits" / "folder" / "gt_depths.npz", TRUTHS["gigabytes"])
    require_refused(run_bounded([*command, "--ext_disp_to_eval", tmp_path / "ours.npy"], cwd=tmp_path), "gt_depths.npz")
    (data / "splits" / "folder" / "gt_depths.npz").unlink()
    for name, content in (("theirs.npz", TRUTHS["gigabytes"]), ("theirs.npy", DEPTHS["claims"])):
        put(tmp_path / name, content)
        require_refused(run_bounded([*command, "--ext_disp_to_eval", tmp_path / name], cwd=tmp_path), name)


@pytest.mark.slow
def test_poses_in_an_evaluation(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    make_tree(data)
    command = ["md-eval", "--dataset", "kitti_odom", "--data_path", data, "--eval_split", "odom_4", "--no_cuda", "--ext_poses_to_eval"]
    for name in ("rows", "largest", "token"):
        put(tmp_path / "theirs.txt", POSES[name])
        require_refused(run_bounded([*command, tmp_path / "theirs.txt"], cwd=tmp_path), "theirs.txt")
    put(data / "poses" / "04.txt", POSES["largest"])
    np.save(tmp_path / "ours.npy", np.tile(np.eye(4), (11, 1, 1)))
    require_refused(run_bounded([*command, tmp_path / "ours.npy"], cwd=tmp_path), "04.txt")


@pytest.mark.slow
def test_images_to_convert(tmp_path: Path) -> None:
    images = tmp_path / "data" / "2011_09_26" / "2011_09_26_drive_0001_sync" / "image_02" / "data"
    images.mkdir(parents=True)
    names = ("bomb.png", "bomb16.png", "notes.png", "chunks.png", "limit.png")
    for name in names:
        put(images / name, PICTURES[name])
    outcome = run_bounded(["md-data", "jpeg", "--data_path", tmp_path / "data", "--jobs", "1"], cwd=tmp_path)
    require_bounded(outcome)
    assert outcome.status == 1
    assert all(any(name in line for line in outcome.lines) for name in names), outcome.lines


@pytest.mark.slow
@pytest.mark.parametrize("place", ["drive/0003.jpg", "drive/depth/0003.png", "calibration.yaml", "splits/folder/train_files.txt"])
def test_a_pipe_in_a_files_place_in_a_check(place: str, tmp_path: Path) -> None:
    path = folder(tmp_path) / place
    path.unlink()
    os.mkfifo(path)
    require_bounded(run_bounded(check(tmp_path), cwd=tmp_path))


@pytest.mark.slow
def test_names_of_other_bytes_go_through_all_commands(tmp_path: Path) -> None:
    """A sequence and frames whose names are no UTF-8, and have a line end, are listed, inspected and predicted."""
    data, odd = tmp_path / "data", os.fsdecode(b"caf\xe9 of\nlines%")
    names = [f"{number} {odd}.jpg" for number in range(6)]
    write_frames(data / odd, names)
    write_camera(data)
    outcome = run_bounded(["md-data", "splits", "--from", data, "--dataset", "folder", "--val", "0", "--test", "0"], cwd=tmp_path)
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


EVAL: tuple[str, ...] = ("md-eval", "--dataset", "folder", "--data_path", "data", "--eval_split", "folder", "--no_cuda", "--eval_mono")
PREDICT: tuple[str, ...] = ("md-predict", "--no_cuda", "--image", "data/drive/0003.jpg", "--model")
WEIGHTS, OURS = "run/models/weights_0", ("--ext_disp_to_eval", "ours.npy")
CHECK: tuple[str, ...] = ("md-data", "check", "--dataset", "folder", "--data_path", "data")
GT: tuple[str, ...] = ("md-data", "gt", "--dataset", "folder", "--data_path", "data", "--split", "folder")
RESUME: tuple[str, ...] = ("md-train", "--resume", "--log_dir", ".", "--model_name", "run")
BAG: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    name: [(f"drive{ending}", ("md-data", "from-bag", f"drive{ending}", *how)) for how in (("--list",), ("--out", "out"))]
    for name, ending in (("bag", ".bag"), ("bag_lz4", ".bag"), ("mcap", ".mcap"))
}
DISPS = [("theirs.npy", (*EVAL, "--ext_disp_to_eval", "theirs.npy"))]
DEPTH = "data/drive/depth/0003"
COMMANDS = BAG | {
    "calibration_yaml": [("data/calibration.yaml", command) for command in (CHECK, GT, (*EVAL, *OURS))],
    "picture_jpg": [
        ("data/drive/0003.jpg", command) for command in (CHECK, (*PREDICT, WEIGHTS), (*EVAL, "--load_weights_folder", WEIGHTS))
    ],
    "depth_png": [(f"{DEPTH}.png", command) for command in (CHECK, GT, (*EVAL, *OURS))],
    "depth_npy": [(f"{DEPTH}.npy", GT), *DISPS],
    "disps_npy": DISPS,
    "ground_truth": [("data/splits/folder/gt_depths.npz", (*EVAL, *OURS))],
    "split_lines": [("data/splits/folder/test_files.txt", command) for command in (CHECK, GT, (*EVAL, *OURS))],
    "frame_store": [("stores/folder-64x96-0123456789ab.frames", ("md-data", "store", "verify", "--frame_store_dir", "stores"))],
    "opt_json_resume": [("run/models/opt.json", command) for command in (RESUME, (*PREDICT, WEIGHTS))],
    "onnx": [("model.onnx", (*PREDICT, "model.onnx"))],
    "onnx_foreign": [("model.onnx", (*PREDICT, "model.onnx"))],
    "encoder_pth": [("run/models/weights_0/encoder.pth", (*PREDICT, WEIGHTS))],
    "encoder_legacy": [("run/models/weights_0/encoder.pth", (*PREDICT, WEIGHTS))],
    "adam_pth": [("run/models/weights_0/adam.pth", (*PREDICT, "run/models/weights_0/adam.pth"))],
    "state_pt": [("run/models/weights_0/state.pt", RESUME)],
}
"""By parser, in whose place a file lies for which command."""
FOUND = sorted(path.name for path in HOSTILE.glob("*"))


def test_every_parser_of_what_was_found_has_its_commands() -> None:
    assert set(COMMANDS) == set(PARSER_OF_FOUND.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_through_the_commands(name: str, tmp_path: Path) -> None:
    parser = next(parser for start, parser in PARSER_OF_FOUND.items() if name.startswith(start))
    for number, (place, command) in enumerate(COMMANDS[parser]):
        root = tmp_path / str(number)
        folder(root / "data")
        save_model(root / "run", use_stereo=True)
        np.save(root / "ours.npy", np.full((4, 64, 96), 0.1, np.float32))
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        options = TrainConfig.from_options(dataset="folder", data_path=root / "data", split="folder", height=64, width=96, no_cuda=True)
        (root / "run" / "models" / "opt.json").write_text(json.dumps(saved_options(options)))
        if place.startswith(DEPTH):
            (root / f"{DEPTH}.png").unlink()
        (root / WEIGHTS / "SHA256SUMS").unlink(missing_ok=True)
        (root / place).write_bytes((HOSTILE / name).read_bytes())
        outcome = run_bounded(command, cwd=root)
        require_bounded(outcome)
        assert not any("No such " in line or "Missing " in line for line in outcome.lines), outcome.lines
        assert not any("nothing to resume: no file" in line for line in outcome.lines), outcome.lines
