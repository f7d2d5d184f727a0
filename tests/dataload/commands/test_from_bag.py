"""md-data from-bag as a newcomer meets it: bad input in one line, interrupted and continued, a full disk, the whole way to a split."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import bags
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from places import PROJECT

from dataload.bags.convert import MARKER
from dataload.commands.from_bag import from_bag
from dataload.demo.world import BASELINE_M, WorldConfig, ensure
from dataload.frames.calibration import read_calibration
from engine.commands.md_train import md_train

SIZE = (32, 48)
K = np.array([[40.0, 0, 24], [0, 40, 16], [0, 0, 1]])
LEFT = "/front/left/image_rect_color"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(from_bag, [str(arg) for arg in args])


def messages(frames: int = 4, size: tuple[int, int] = SIZE) -> list[bags.Msg]:
    images = [bags.image(LEFT, bags.picture(size, i), "rgb8", bags.START_NS + i * bags.PERIOD_NS) for i in range(frames)]
    return [bags.camera_info("/front/left/camera_info", K, size), *images]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return bags.write_bag(tmp_path, "drive", "bag", messages())


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from dataload.commands.from_bag import from_bag; from_bag(['--help'], standalone_mode=False); "
        "print(sorted({'torch', 'numpy', 'PIL', 'cv2', 'rosbags', 'yaml'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert result.stdout.splitlines()[-1] == "[]"


def test_list_shows_topics_and_roles_and_writes_nothing(tmp_path: Path, bag: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(bag, "--list")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0] == f"{bag}: 5 messages in 0.3 s"
    assert lines[1].split() == ["/front/left/camera_info", "sensor_msgs/msg/CameraInfo", "1", "0.0", "Hz", "left", "camera_info"]
    assert lines[2].split() == [LEFT, "sensor_msgs/msg/Image", "4", "10.0", "Hz", "left", "image"]
    assert sorted(tmp_path.rglob("*")) == before


def test_list_of_what_cannot_be_opened_is_status_1(tmp_path: Path, bag: Path) -> None:
    (tmp_path / "broken.bag").write_bytes(b"nonsense")
    result = run(tmp_path / "broken.bag", bag, "--list")
    assert result.exit_code == 1
    assert "broken.bag is not a ROS 1 recording" in result.output
    assert f"{bag}: 5 messages" in result.output


def test_a_recording_that_is_cut_off_is_status_1_and_usable_and_said_once(tmp_path: Path, bag: Path) -> None:
    bag.write_bytes(bag.read_bytes()[: bag.stat().st_size * 2 // 3])
    result = run(bag, "--out", tmp_path / "out", "--no_split")
    assert result.exit_code == 1
    assert "drive: 2 frames" in result.output
    assert "the recording cannot be read whole: it is cut off; what can be read is converted, to 2020-09-13 12:26:40 UTC" in result.output
    assert f"Error: {bag} could not be read whole; sequence drive holds what could" in result.output
    assert run(bag, "--out", tmp_path / "out", "--no_split").exit_code == 0


def test_list_tells_what_is_missing(tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path, "drive", "mcap", messages()[:1])
    result = run(path, "--list")
    assert result.exit_code == 0
    assert "nothing would be converted: no images (sensor_msgs Image or CompressedImage) among its 1 topics" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--image_topic", "/front/left/image_rect_colour"], f"is not in the recording; did you mean {LEFT}? it has sensor_msgs Image"),
        (["--image_topic", "/front/left/camera_info"], "is sensor_msgs/msg/CameraInfo, not sensor_msgs Image or CompressedImage"),
        (["--camera_info_topic", "/nowhere"], "it has sensor_msgs CameraInfo: /front/left/camera_info (1)"),
        (["--points_topic", "/points"], "it has sensor_msgs PointCloud2: none"),
        (["--right_image_topic", LEFT, "--right_camera_info_topic", "/front/left/camera_info"], "the pair is not calibrated"),
    ],
)
def test_a_topic_that_is_of_no_use_is_named_with_those_that_are(args: list[str], message: str, bag: Path, tmp_path: Path) -> None:
    result = run(bag, "--out", tmp_path / "out", "--no_split", *args)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "drive").exists()


def test_wrong_usage_is_told_in_a_line(bag: Path, tmp_path: Path) -> None:
    assert "--out is missing" in run(bag).output
    assert f"no recording at {tmp_path / 'drvie.bag'}; did you mean {bag}?" in run(tmp_path / "drvie.bag", "--out", tmp_path / "out").output
    assert f"no recording at {tmp_path / 'xyz'}; check the path" in run(tmp_path / "xyz", "--out", tmp_path / "out").output
    assert "'1 x' must be float values separated by blanks" in run(bag, "--out", tmp_path / "out", "--points_extrinsics", "1 x").output
    (tmp_path / "notes.txt").write_text("x")
    assert "notes.txt is no recording; known are .bag, .db3, .mcap" in run(tmp_path / "notes.txt", "--out", tmp_path / "out").output
    (tmp_path / "empty").mkdir()
    assert "empty holds no recording" in run(tmp_path / "empty", "--out", tmp_path / "out").output
    assert "must be a folder's name without blanks" in run(bag, "--out", tmp_path / "out", "--sequence", "a b").output


def test_two_recordings_of_one_name_are_an_error_that_names_both(bag: Path, tmp_path: Path) -> None:
    other = bags.write_bag(tmp_path / "again", "drive", "mcap", messages())
    result = run(bag, other, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert f"{bag} and {other} would both become sequence drive" in result.output
    assert run(other, "--out", tmp_path / "out", "--sequence", "second", "--no_split").exit_code == 0
    assert (tmp_path / "out" / "second" / "calibration.yaml").is_file()


def test_one_that_fails_does_not_stop_the_others(bag: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.bag").write_bytes(b"nonsense")
    result = run(tmp_path / "broken.bag", bag, "--out", tmp_path / "out", "--no_split")
    assert result.exit_code == 1
    assert "drive: 4 frames of 48x32" in result.output
    assert result.output.rstrip().endswith("broken.bag is not a ROS 1 recording")


def test_a_sequence_that_is_there_is_not_made_again_nor_mixed(bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(bag, "--out", out, "--no_split").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (out / "drive").rglob("*")}
    result = run(bag, "--out", out, "--no_split")
    assert result.exit_code == 0
    assert "(converted before)" in result.output
    assert {path: path.stat().st_mtime_ns for path in (out / "drive").rglob("*")} == before
    result = run(bag, "--out", out, "--no_split", "--hz", "5")
    assert result.exit_code == 1
    assert "was converted with other options (the defaults, now --hz 5.0); name another --out or remove it" in result.output
    (out / "other").mkdir()
    (out / "other" / "file").write_text("x")
    assert "holds something else" in run(bag, "--out", out, "--sequence", "other", "--no_split").output


def test_a_frame_that_is_damaged_is_left_out_with_what_belongs_to_it(tmp_path: Path) -> None:
    made = messages(5)
    depth = np.full(SIZE, 2000, np.uint16)
    made += [bags.image("/front/depth/depth_registered", depth, "16UC1", bags.START_NS + i * bags.PERIOD_NS) for i in range(5)]
    damaged = made[3].fields
    damaged["data"] = damaged["data"][:100]
    result = run(bags.write_bag(tmp_path, "drive", "mcap", made), "--out", tmp_path / "out", "--no_split")
    assert result.exit_code == 0
    assert "left out: 1 left frames: damaged" in result.output
    assert len(list((tmp_path / "out" / "drive" / "front_rgb_left").iterdir())) == 4
    assert len(list((tmp_path / "out" / "drive" / "front_depth_left").iterdir())) == 4


def other_messages(frames: int = 6) -> list[bags.Msg]:
    """Another drive: other pictures, at other times."""
    made = messages(frames)
    for number in range(frames):
        made[number + 1] = bags.image(LEFT, bags.picture(SIZE, 50 + number), "rgb8", bags.START_NS + (1000 + number) * bags.PERIOD_NS)
    return made


@pytest.mark.parametrize("fmt", ["bag", "db3", "mcap"])
def test_another_recording_of_the_same_name_is_refused_and_takes_a_name_of_its_own(fmt: str, tmp_path: Path) -> None:
    first = bags.write_bag(tmp_path / "day1", "trip", fmt, messages())
    second = bags.write_bag(tmp_path / "day2", "trip", fmt, other_messages())
    out = tmp_path / "out"
    assert run(first, "--out", out, "--no_split").exit_code == 0
    before = {path: path.read_bytes() for path in (out / "trip").rglob("*") if path.is_file()}
    result = run(second, "--out", out, "--no_split")
    assert result.exit_code == 1
    assert f"Error: {out / 'trip'} was made of another recording, {first}, not of {second} as it is now; " in result.output
    assert "convert this one alone with --sequence NAME" in result.output
    assert {path: path.read_bytes() for path in (out / "trip").rglob("*") if path.is_file()} == before
    assert "second: 6 frames" in run(second, "--out", out, "--no_split", "--sequence", "second").output


def test_a_recording_that_was_moved_is_the_same(tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "out"
    assert run(bag, "--out", out, "--no_split").exit_code == 0
    moved = tmp_path / "archive" / "renamed.bag"
    moved.parent.mkdir()
    bag.rename(moved)
    result = run(moved, "--out", out, "--no_split", "--sequence", "drive")
    assert (result.exit_code, "(converted before)" in result.output) == (0, True)


@pytest.mark.parametrize("fmt", ["bag", "mcap"])
def test_a_recording_that_was_cut_off_and_is_whole_now_is_converted_anew(fmt: str, tmp_path: Path) -> None:
    path, out = bags.write_bag(tmp_path, "drive", fmt, messages(12)), tmp_path / "out"
    path = next(path.glob("*.mcap")) if path.is_dir() else path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert run(path, "--out", out, "--no_split").exit_code == 1
    found = len(list((out / "drive" / "front_rgb_left").iterdir()))
    assert 0 < found < 12
    path.write_bytes(whole)
    result = run(path, "--out", out, "--no_split")
    assert result.exit_code == 0, result.output
    assert "converted again: the recording has grown since the last conversion" in result.output
    assert "drive: 12 frames" in result.output
    fresh = tmp_path / "fresh"
    assert run(path, "--out", fresh, "--no_split").exit_code == 0
    contents = [{p.relative_to(f): p.read_bytes() for p in (f / "drive").rglob("*") if p.is_file()} for f in (out, fresh)]
    assert contents[0] == contents[1]
    path.write_bytes(whole[: len(whole) // 2])  # cut again: what is there is more
    assert "was made of another recording" in run(path, "--out", out, "--no_split").output


@pytest.mark.parametrize("grown", [True, False])
def test_an_interrupted_conversion_never_goes_on_with_another_recording(grown: bool, tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "out"
    whole = bag.read_bytes()
    if grown:
        bag.write_bytes(whole[: len(whole) * 2 // 3])
    run(bag, "--out", out, "--no_split")
    calibration = read_calibration(out / "drive" / "calibration.yaml")
    (out / "drive" / "calibration.yaml").unlink()
    facts = {"options": {}, "recording": calibration.source["recording"]}
    (out / "drive" / MARKER).write_text(json.dumps(facts))  # as an earlier version left it, which wrote under the final name
    kept = {path.name for path in (out / "drive" / "front_rgb_left").iterdir()}
    work = out / ".drive.converting"
    if grown:
        bag.write_bytes(whole)
        assert "drive: 4 frames" in run(bag, "--out", out, "--no_split").output
        return
    other = bags.write_bag(tmp_path / "day2", "drive", "bag", other_messages())
    result = run(other, "--out", out, "--no_split")
    assert result.exit_code == 1
    assert f"was made of another recording, {bag}, not of {other} as it is now" in result.output
    assert not (out / "drive").exists()
    assert {path.name for path in (work / "front_rgb_left").iterdir()} == kept
    assert run(bag, "--out", out, "--no_split").exit_code == 0
    assert not work.exists()
    (out / "drive" / "calibration.yaml").unlink()
    (out / "drive" / MARKER).write_text("{}")
    assert f"{MARKER} is not the marker of an interrupted conversion" in run(bag, "--out", out, "--no_split").output


def test_a_sequence_that_another_process_writes_is_refused(tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "out"
    big = bags.write_bag(tmp_path / "big", "drive", "mcap", messages(120, (240, 320)))
    process = start(big, "--out", out, "--png", "--no_split")
    while not list((out / ".drive.converting" / "front_rgb_left").glob("*.png")):
        assert process.poll() is None
        time.sleep(0.005)
    result = run(bag, "--out", out, "--no_split")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert result.exit_code == 1
    assert f"Error: {bag}: {out / 'drive'} is being written by " in result.output
    assert "; wait until it has ended, or give another --out" in result.output
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.jpg", "drive"]


def start(*args: str | Path, limit: int = 0) -> subprocess.Popen[str]:
    """The command in a process of its own, which may write files of ``limit`` bytes at most."""
    program = "from dataload.commands.from_bag import from_bag; from_bag(prog_name='md-data from-bag')"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None,
    )


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_conversion_goes_on_where_it_was(with_signal: signal.Signals, tmp_path: Path) -> None:
    path = bags.write_bag(tmp_path, "drive", "mcap", messages(120, (240, 320)))
    out, whole = tmp_path / "out", tmp_path / "whole"
    args = ("--hz", "0", "--png", "--no_split")
    process = start(path, "--out", out, *args)
    images = out / ".drive.converting" / "front_rgb_left"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(images.glob("[!.]*.png")) if images.is_dir() else ()) < 10:
        time.sleep(0.005)
    os.kill(process.pid, with_signal)
    _, said = process.communicate(timeout=30)
    if with_signal == signal.SIGINT:
        assert process.returncode == 130
        assert "what is done is kept; repeat the command to resume" in said
        assert "Traceback" not in said
    done = {image: image.stat().st_mtime_ns for image in images.glob("[!.]*.png")}
    assert 10 <= len(done) < 120
    assert not (out / "drive").exists()
    for image in done:
        Image.open(image).load()
    assert "--hz 0.0 --png True, now --hz 0.0" in run(path, "--out", out, "--hz", "0", "--no_split").output
    assert run(path, "--out", out, *args).exit_code == 0
    made = out / "drive" / "front_rgb_left"
    assert all((made / image.name).stat().st_mtime_ns == then for image, then in done.items())
    assert sorted(path.name for path in out.iterdir()) == ["contact_sheet.jpg", "drive"]
    if with_signal == signal.SIGINT:
        assert run(path, "--out", whole, *args).exit_code == 0
        found, expected = ({p.relative_to(f): p.read_bytes() for p in (f / "drive").rglob("*") if p.is_file()} for f in (out, whole))
        assert found == expected


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    made = messages(3, (120, 160))
    made[-1].fields["data"] = np.random.default_rng(0).integers(0, 256, made[-1].fields["data"].size).astype(np.uint8)  # does not compress
    path = bags.write_bag(tmp_path, "drive", "bag", made)
    process = start(path, "--out", tmp_path / "out", "--png", "--no_split", limit=50_000)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"drive_{bags.START_NS + 2 * bags.PERIOD_NS}.png: File too large" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "drive").exists()
    left = list((tmp_path / "out" / ".drive.converting" / "front_rgb_left").iterdir())
    assert len(left) == 2
    for image in left:
        Image.open(image).load()
    assert run(path, "--out", tmp_path / "out", "--png", "--no_split").exit_code == 0
    assert len(list((tmp_path / "out" / "drive" / "front_rgb_left").iterdir())) == 3


def test_the_demo_world_recorded_and_converted_is_a_dataset_with_a_split(tmp_path: Path) -> None:
    world = ensure(tmp_path / "world", config=WorldConfig(height_px=48, width_px=96, drives=4, frames=4), progress=False, processes=1)
    bags.write_demo_bags(world, tmp_path / "in", "mcap")
    out = tmp_path / "made of recordings"
    result = run(tmp_path / "in", "--out", out, "--keep_static", "--val", "0.25", "--test", "0.25")
    assert result.exit_code == 0, result.output
    names = [f"2000_01_01_drive_{number:04d}_sync" for number in range(1, 5)]
    for name in names:
        assert f"{name}: 4 frames of 96x48, 10.0 per second" in result.output
    assert (out / "contact_sheet.jpg").is_file()
    lists = {subset: (out / "splits" / "evo" / f"{subset}_files.txt").read_text().splitlines() for subset in ("train", "val", "test")}
    assert {line.split()[0] for lines in lists.values() for line in lines} == set(names)
    assert all(len(line.split()) == 7 for line in lists["train"])
    command = f"md-train --dataset evo --split evo --data_path '{out}' --height 64 --width 96 --use_stereo"
    assert f"next: {command}\n" in result.output
    trained = CliRunner().invoke(md_train, [*shlex.split(command)[1:], "--dry_run"])
    assert trained.exit_code == 0, trained.output
    calibration = read_calibration(out / names[0] / "calibration.yaml")
    assert calibration.baseline_m == pytest.approx(BASELINE_M)
    source = world / "2000_01_01" / names[0] / "image_02" / "data" / "0000000000.jpg"
    assert (out / names[0] / "front_rgb_left" / f"{names[0]}_{bags.START_NS}.jpg").read_bytes() == source.read_bytes()
    exact = np.asarray(Image.open(world / "2000_01_01" / names[0] / "depth_exact" / "image_02" / "0000000000.png")).astype(float)
    found = np.asarray(Image.open(out / names[0] / "front_depth_left" / f"{names[0]}_{bags.START_NS}.png")).astype(float)
    near = (exact > 0) & (exact < 65 * 256)
    assert np.abs(found - exact)[near].max() <= 1
