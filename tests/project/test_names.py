"""Names that mean something to shells, options, patterns, formats, terminals or tables are names and nothing else, to every command."""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from bags import PERIOD_NS, START_NS, camera_info, compressed, jpeg, picture, write_bag
from click.testing import CliRunner, Result
from inspected_trees import write_camera, write_depth, write_frames
from PIL import Image
from predicting import save_image, save_model

from dataload.commands.md_data import md_data
from engine.commands.md_eval import md_eval
from engine.commands.md_train import md_train
from export.commands.md_export import md_export
from export.commands.md_predict import md_predict

# Each begins with what it is about; a shell that ran one would make the file "touched".
NAMES = (
    "$(touch touched)", "`touch touched`", "; touch touched;", "| touch touched", "&& touch touched", "> touched", "-rf", "--help",
    "'a' \"b\"", "a  b", "a\nb", "%s %d %(x)s", "{} {0.__class__} {{", "[ab]", "*", "?", "~", "#a", "a\\b", "=1+1", "\x1b[31m\x07",
    "<svg>&amp;", "concat:a",
)  # fmt: skip
# One name of all of them that a folder can have at once.
ALL = "-" + "".join(NAMES).replace("/", "")[:200]
FRAMES = [f"{number:04d}.jpg" for number in range(6)]
SMALL = ("--height", "64", "--width", "96", "--no_cuda")


def run(command: click.Command, *arguments: object) -> Result:
    """Run a command, and assert that it did what it was asked, printed nothing that a terminal obeys, and ran no name."""
    result = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    require_printable(result.output)
    assert not list(Path.cwd().rglob("touched"))
    return result


def require_printable(text: str) -> None:
    # The bar goes back to its line's beginning.
    assert all(line.isprintable() for line in text.replace("\r", "\n").split("\n")), ascii(text)


def strictly(path: Path) -> Any:
    """What a file of JSON holds; NaN and infinity, which JSON has not, are refused."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} in {path}"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder of an awkward name."""
    folder = tmp_path / ALL
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def dataset(root: Path) -> Path:
    """A sequence of each name, with depth."""
    for name in NAMES:
        write_frames(root / name, FRAMES)
        write_depth(root / name / "depth", FRAMES, 10)
    write_camera(root, scale=256)
    return root


@pytest.mark.slow
def test_of_sequences_lists_and_runs(place: Path) -> None:
    data, split, runs = dataset(Path(ALL)), Path("splits" + ALL), Path("-rf")
    chosen = ("--dataset", "folder", "--data_path", data)
    said = run(md_data, "splits", "--from", data, "--dataset", "folder", "--out", split, "--val", "0.2", "--test", "0.2").output
    lines = {line for path in split.glob("*_files.txt") for line in path.read_text().splitlines()}
    assert len({line.split()[0] for line in lines}) == len(NAMES), said
    run(md_data, "check", *chosen, "--split", split, "--sheet", "sheet.jpg", "--json", "check.json")
    assert strictly(Path("check.json"))["verdict"] == "ready"
    run(md_data, "gt", *chosen, "--split", split)
    trained = (
        "--split",
        split,
        "--log_dir",
        runs,
        "--model_name",
        "%s*",
        "--batch_size",
        "8",
        "--num_epochs",
        "1",
        "--weights_init",
        "scratch",
    )
    stored = ("--frame_store", "disk", "--frame_store_dir", "stores *")
    run(md_train, *chosen, *trained, *stored, *SMALL, "--num_workers", "1")
    run(md_train, *chosen, *trained, *stored, *SMALL, "--num_workers", "1", "--dry_run", "--resume")
    for line in (runs / "%s*" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the log"))
    run(md_data, "store", "list", "--frame_store_dir", "stores *")
    run(md_data, "store", "verify", "--frame_store_dir", "stores *")
    weights = runs / "%s*" / "models" / "weights_0"
    kept = ("--json", "scores.json", "--csv", "=scores.csv", "--report", "report<svg>")
    run(md_eval, *chosen, "--eval_split", split, "--eval_mono", "--no_cuda", "--load_weights_folder", weights, *kept)
    assert strictly(Path("scores.json"))["models"][0]["num_images"] > 0
    with open("=scores.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert {row[1] for row in rows[1:]} <= lines | {f"'{line}" for line in lines}
    assert "<svg" not in (Path("report<svg>") / "index.html").read_text()
    run(md_export, "--load_weights_folder", weights, "--out", "$(touch touched)*.onnx", "--height", "64", "--width", "96")
    run(md_export, "--load_weights_folder", weights, "--target", "hub", "--out", "hub\x1b[1m", "--scores", "scores.json", "--with_pose")
    run(md_data, "store", "remove", "--all", "--frame_store_dir", "stores *")


def test_of_images_and_models(place: Path) -> None:
    save_model(Path(ALL), use_stereo=True)
    images = [save_image(Path(f"{name}.jpg"), seed=number) for number, name in enumerate(NAMES)]
    run(
        md_predict,
        "--model",
        ALL,
        "--no_cuda",
        "--out",
        "out*",
        "--format",
        "npy",
        *[part for image in images for part in ("--image", image)][:2],
    )
    run(md_predict, "--model", ALL, "--no_cuda", "--out", "out*", "--image", ".")
    run(md_export, "--load_weights_folder", ALL, "--out", f"{ALL[:40]}.onnx")
    run(md_predict, "--model", f"{ALL[:40]}.onnx", "--no_cuda", "--out", "by onnx", "--image", ".")
    for folder in ("out*", "by onnx"):
        assert {f"{image.stem}_disp.npy" for image in images} <= {path.name for path in Path(folder).iterdir()}
    one = np.load(Path("out*", f"{NAMES[0]}_disp.npy"))
    assert np.allclose(one, np.load(Path("by onnx", f"{NAMES[0]}_disp.npy")), rtol=0.02)


def test_of_videos(place: Path) -> None:
    videos = pytest.importorskip("videos")
    # The name of a sequence cannot hold a backslash, which lists part folders by; the command says so.
    named = [videos.save_video(Path(f"./{name}.mp4").absolute(), count=12) for name in NAMES if "\\" not in name]
    out = Path("tcp:1", ALL)
    said = run(md_data, "from-video", "--out", out, "--fps", "10", *named).output
    assert len([path for path in out.iterdir() if path.name != "splits" and list(path.glob("*.jpg"))]) == len(named)
    assert str(out) in pasted(said)
    save_model(Path("run"), use_stereo=True)
    run(md_predict, "--model", "run", "--no_cuda", "--out", "tcp:1", "--image", named[0], *named[1:3])
    assert len(list(Path("tcp:1").glob("*.mp4"))) == 3


def test_of_recordings(place: Path) -> None:
    messages = []
    for number in range(4):
        stamp = START_NS + number * PERIOD_NS
        messages.append(compressed("/front/left/image_rect_color/compressed", jpeg(picture((96, 192), number)), stamp))
        messages.append(camera_info("/front/left/camera_info", np.array([[100, 0, 96], [0, 100, 48], [0, 0, 1.0]]), (96, 192), stamp))
    names = [name for name in NAMES if "\\" not in name and name != "a\nb"]  # which would become the same sequence as "a  b"
    for fmt, suffix in (("bag", ".bag"), ("db3", "")):
        # Written elsewhere, as the library that does it takes "?" and "#" for the end of a name.
        named = [write_bag(place.parent, "plain", fmt, messages).rename(place / f"{name}{suffix}") for name in names]
        run(md_data, "from-bag", *named, "--list")
        said = run(md_data, "from-bag", *named, "--out", f"{ALL}{fmt}").output
        assert f"{ALL}{fmt}" in pasted(said)


def pasted(said: str) -> list[str]:
    """The words that a shell makes of the command that the last line suggests."""
    (line,) = [line for line in said.splitlines() if line.startswith("next: ")]
    command = f"printf '%s\\0' {line.removeprefix('next: ')}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert not list(Path.cwd().rglob("touched"))
    return done.stdout.split("\0")


def test_of_kittis_folders(place: Path) -> None:
    images = Path(ALL, "2011_09_26", "2011_09_26_drive_0001_sync", "image_02", "data")
    images.mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(images / "0000000000.png")
    run(md_data, "jpeg", "--data_path", ALL, "--jobs", "1")
    assert (images / "0000000000.jpg").is_file()
    run(md_data, "splits", "--write", "lists*")
    assert (Path("lists*") / "eigen_zhou" / "train_files.txt").is_file()
