"""md-data from-video: upright frames at their own times, resumed, damaged videos; to a dataset that training reads."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from videos import BIT_PX, MATRICES, picture, save_video, turn

from dataload.commands.from_video import from_video
from dataload.datasets.folder import Folder
from dataload.footage.video_frames import FPS, FrameOptions
from dataload.footage.video_reader import Damage, decode_frames, open_video
from dataload.frames.calibration import LEFT, read_calibration

av = pytest.importorskip("av")


def run(*args: object) -> Result:
    return CliRunner().invoke(from_video, [str(arg) for arg in args])


def numbers_in(folder: Path) -> dict[int, int]:
    """Of each frame on disk, by its name, which of the video's it is."""
    found = {}
    for path in sorted(folder.glob("*.[jp][pn]g")):
        bits = np.asarray(Image.open(path))[BIT_PX // 2, BIT_PX // 2 : 8 * BIT_PX : BIT_PX, 0] > 128
        found[int(path.stem)] = int(bits @ (1 << np.arange(8)))
    return found


def test_a_video_becomes_a_dataset_that_is_split(tmp_path: Path) -> None:
    video, out = save_video(tmp_path / "my drive.mp4", count=100), tmp_path / "data"
    result = run(video, "--out", out, "--intrinsics", 150, 150, 95.5, 47.5)
    assert result.exit_code == 0, result.output
    assert numbers_in(out / "my drive") == {number: 2 * number for number in range(50)}  # 20 per second, of which 10 are taken
    assert f"my drive: 50 frames of 192x96 in {out / 'my drive'}" in result.output
    assert f"next: md-train --dataset folder --data_path {out} --height 96 --width 192\n" in result.output
    camera = read_calibration(out / "my drive" / "calibration.yaml").cameras[LEFT]
    assert (camera.fx_px, camera.cx_px, camera.cy_px, camera.width_px, camera.height_px) == (150, 95.5, 47.5, 192, 96)
    dataset = Folder(out)
    lists = {subset: dataset.read(str(out / "splits" / "folder"), subset) for subset in ("train", "val", "test")}
    assert [len(refs) for refs in lists.values()] == [32, 5, 5]
    assert all(dataset.image_path(ref, k).is_file() for refs in lists.values() for ref in refs for k in (-1, 0, 1))
    assert dataset.K(lists["train"][0], 96, 192)[0, 2] == 95.5
    with Image.open(out / "splits" / "contact_sheet.jpg") as sheet:
        assert sheet.width > 1000
    assert sorted(path.name for path in out.iterdir()) == ["my drive", "splits"]


def test_the_default_rate_is_the_same_in_both_places() -> None:
    assert {option.name: option.default for option in from_video.params}["fps"] == FPS == FrameOptions().fps


@pytest.mark.parametrize("clockwise", MATRICES)
def test_frames_stand_upright(clockwise: int, tmp_path: Path) -> None:
    video = save_video(tmp_path / "a.mp4", count=3)
    turn(video, clockwise)
    assert run(video, "--out", tmp_path / "out", "--no_split", "--fps", 20).exit_code == 0
    upright = np.rot90(picture(1), -clockwise // 90)
    frame = np.asarray(Image.open(tmp_path / "out" / "a" / "000001.jpg"))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 8


def test_frames_are_the_first_of_each_period_by_their_own_times(tmp_path: Path) -> None:
    # Uneven, in fiftieths of a second; between 0.52 and 1.2 there is none.
    times = [0, 3, 4, 6, 9, 10, 16, 17, 24, 26, 60, 61, 66, 70]
    for suffix in ("mp4", "mkv"):
        video = save_video(tmp_path / f"{suffix}.{suffix}", count=len(times), rate=50, times=times)
        assert run(video, "--out", tmp_path / "out", "--no_split").exit_code == 0
        expected = {}
        for number, tick in enumerate(times):
            expected.setdefault(tick // 5, number)
        assert numbers_in(tmp_path / "out" / suffix) == expected
    # What is missing is a gap to the dataset.
    gaps = Folder(tmp_path / "out").timeline("mp4").gaps
    assert gaps[-1] == 1


def test_a_rate_above_the_videos_own_takes_every_frame_once(tmp_path: Path) -> None:
    for suffix, rate in (("mkv", 30), ("mp4", 24)):  # Matroska rounds times to milliseconds
        video = save_video(tmp_path / f"a{rate}.{suffix}", count=30, rate=rate)
        for fps in (rate, 60):
            out = tmp_path / f"out{fps}"
            assert run(video, "--out", out, "--no_split", "--fps", fps).exit_code == 0
            assert list(numbers_in(out / f"a{rate}").values()) == list(range(30))


def test_a_part_is_taken_without_decoding_what_lies_before(tmp_path: Path) -> None:
    video = save_video(tmp_path / "a.mp4", count=100)
    assert run(video, "--out", tmp_path, "--no_split", "--start", 2, "--end", 3.5, "--png").exit_code == 0
    assert numbers_in(tmp_path / "a") == {number: 40 + 2 * number for number in range(15)}
    assert Image.open(tmp_path / "a" / "000000.png").format == "PNG"
    with open_video("a", str(video)) as container:
        times = [decoded.time_s for decoded in decode_frames(container, Damage(), from_s=2)]
    assert 1 < times[0] <= 2
    assert times[-1] == pytest.approx(4.95)
    # Nothing lies there.
    result = run(video, "--out", tmp_path, "--no_split", "--start", 50, "--sequence", "late")
    assert result.exit_code == 1
    assert f"Error: {video} holds no frame from second 50 that can be read (it lasts 5.0 s)\n" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.mp4", "splits"]


def test_several_videos_join_a_dataset_and_made_ones_are_kept(tmp_path: Path) -> None:
    videos = [save_video(tmp_path / f"{name}.mp4", count=count) for name, count in (("a", 30), ("b", 24), ("c", 24), ("d", 60))]
    out = tmp_path / "out"
    assert run(*videos[:2], "--out", out).exit_code == 0
    before = (out / "a" / "000003.jpg").stat().st_mtime_ns
    result = run(*videos, "--out", out)
    assert result.exit_code == 1
    assert "a: 15 frames of 192x96 in" in result.output
    assert result.output.count("(made before)") == 2
    assert "holds other lists already" in result.output
    assert "next:" not in result.output
    result = run(*videos, "--out", out, "--replace_split")
    assert result.exit_code == 0, result.output
    assert "train      41 of 2 sequences: a, d\n" in result.output
    assert (out / "a" / "000003.jpg").stat().st_mtime_ns == before
    assert run(*videos, "--out", out).exit_code == 0  # the same lists again


def test_a_sequence_made_otherwise_is_not_taken_for_the_same(tmp_path: Path) -> None:
    video = save_video(tmp_path / "a.mp4", count=12)
    assert run(video, "--out", tmp_path, "--no_split").exit_code == 0
    result = run(video, "--out", tmp_path, "--no_split", "--fps", 5)
    assert result.exit_code == 1
    assert (
        f"Error: {tmp_path / 'a'} exists already, made with other options (fps 10.0); remove it to make it from a.mp4 again"
        in result.output
    )
    # A camera may be added later.
    assert run(video, "--out", tmp_path, "--no_split", "--intrinsics", "150 150 95 47 384 192").exit_code == 0
    assert read_calibration(tmp_path / "a" / "calibration.yaml").cameras[LEFT].width_px == 384
    (tmp_path / "b").mkdir()
    result = run(video, "--out", tmp_path, "--sequence", "b")
    assert f"Error: {tmp_path / 'b'} exists already, and is not from md-data from-video; choose another --out" in result.output


def test_what_a_cut_off_video_holds_is_kept_and_said(tmp_path: Path) -> None:
    whole = save_video(tmp_path / "whole.mkv", count=200)
    index_first = save_video(tmp_path / "whole.mp4", count=200, options={"movflags": "faststart"})
    cut = []
    for path in (whole, index_first):
        cut.append(tmp_path / f"cut_{path.suffix[1:]}{path.suffix}")
        cut[-1].write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    out = tmp_path / "out"
    result = run(*cut, "--out", out, "--no_split")
    assert result.exit_code == 1
    for path in cut:
        count = len(list((out / path.stem).glob("*.jpg")))
        assert 20 < count < 80
        last_s = (count - 1) / 10
        said = next(line for line in result.output.splitlines() if line.startswith(f"Error: {path}: "))
        assert "reading ended early (at " in said
        assert said.endswith(" of 10.0 s); what could be read is kept")
        assert abs(float(said.split("(at ")[1].split()[0]) - last_s) < 0.2
        assert json.loads((out / path.stem / "video.json").read_text())["fault"]
    again = run(*cut, "--out", out, "--no_split")
    assert again.exit_code == 1
    assert again.output.count("what could be read is kept") == 2


def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path: Path) -> None:
    video = save_video(tmp_path / "a.mkv", count=80)
    with av.open(str(video)) as container:
        packet = [bytes(packet) for packet in container.demux() if packet.size][40]
    video.write_bytes(video.read_bytes().replace(packet, bytes([0x7F]) * len(packet)))
    result = run(video, "--out", tmp_path, "--no_split")
    assert result.exit_code == 1
    assert f"Error: {video}: 1 damaged packets are left out; what could be read is kept" in result.output
    found = numbers_in(tmp_path / "a")
    assert 33 < len(found) <= 40
    assert all(abs(number - 2 * name) <= 1 for name, number in found.items() if not 18 <= name <= 24)


def test_what_is_no_video_is_said_and_the_others_are_made(tmp_path: Path) -> None:
    good = save_video(tmp_path / "good.mp4", count=12)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    bad = [tmp_path / name for name in ("text.mp4", "empty.mp4", "sound.mp4")]
    result = run(*bad, good, "--out", tmp_path / "out", "--no_split")
    assert result.exit_code == 1
    assert [line for line in result.output.splitlines() if line.startswith("Error: ")] == [
        f"Error: {bad[0]} cannot be read as a video (Invalid data found when processing input)",
        f"Error: {bad[1]} is empty (0 bytes); copy it again",
        f"Error: {bad[2]} holds no pictures, only sound or text",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good", "splits"]


def test_wrong_usage_is_answered_with_a_remedy(tmp_path: Path) -> None:
    video, other = save_video(tmp_path / "a.mp4", count=2), tmp_path / "b" / "a.mkv"
    other.parent.mkdir()
    save_video(other, count=2)
    image = tmp_path / "images" / "a.tif"
    image.parent.mkdir()
    image.touch()
    out = ("--out", tmp_path / "out")
    for args, said in (
        ((tmp_path / "drive.mkv", *out), f"{tmp_path / 'drive.mkv'} does not exist; check the path"),
        ((video.with_name(f"{video.stem}{video.suffix}v"), *out), f"does not exist; did you mean {video}?"),
        ((tmp_path, *out), f"{tmp_path} is a folder; name the videos in it"),
        ((image.parent, *out), f"{image.parent} is a folder of images; folders of images need no conversion: md-data splits --from"),
        ((image, *out), f"{image} is an image; folders of images need no conversion: md-data splits --from the folder above"),
        ((video, other, *out), f"{video} and {other} would both be sequence a; convert them apart, one with --sequence"),
        ((video, other, *out, "--sequence", "x"), "--sequence x names one sequence, and there are 2 videos; leave it out, or convert them"),
        ((video, *out, "--sequence", "splits"), "a sequence cannot be called 'splits'; give it another name with --sequence"),
        ((video, *out, "--sequence", "a/b"), "a sequence cannot be called 'a/b'"),
        ((video, *out, "--fps", 0), "--fps 0 must be above 0 frames per second"),
        ((video, *out, "--start", 5, "--end", 4), "--end 4 must be later than --start 5"),
        ((video, *out, "--intrinsics", 1, 2, 3), "--intrinsics: give FX FY CX CY in pixels of the frames"),
        ((video, *out, "--intrinsics", 0, 2, 3, 4), "intrinsics: fx_px=0 must be above 0"),
        ((video, *out, "--val", 0.6, "--test", 0.6), "--val 0.6 and --test 0.6 leave nothing for training"),
        ((video, *out, "--keep_statik"), "no such option --keep_statik; did you mean --keep_static?"),
        ((video,), "Missing option '--out'"),
    ):
        result = run(*args)
        assert result.exit_code == 2, args
        assert said in result.output, args
    assert not (tmp_path / "out").exists()


def test_videos_may_stand_behind_the_intrinsics(tmp_path: Path) -> None:
    video = save_video(tmp_path / "1.mp4", count=2)
    result = run("--out", tmp_path, "--no_split", "--intrinsics", 150, 150, -3, 47, video)
    assert result.exit_code == 0, result.output
    assert read_calibration(tmp_path / "1" / "calibration.yaml").cameras[LEFT].cx_px == -3


def test_without_pyav_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = save_video(tmp_path / "a.mp4", count=1)
    monkeypatch.setitem(sys.modules, "av", None)
    result = run(video, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.output.startswith("Error: videos and webcams need PyAV (")
    assert result.output.endswith("): pip install av\n")
    assert not (tmp_path / "out").exists()


def test_a_video_too_short_for_a_split_is_kept(tmp_path: Path) -> None:
    result = run(save_video(tmp_path / "a.mp4", count=4), "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "none of 2 frames can be trained on: 2 at an end of their sequence" in result.output
    assert len(list((tmp_path / "out" / "a").glob("*.jpg"))) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_command_leaves_no_half_sequence_and_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    first, second = save_video(tmp_path / "a.mp4", count=20), save_video(tmp_path / "b.mp4", count=500)
    out = tmp_path / "out"
    script = "from dataload.commands.from_video import from_video; from_video()"
    args = [str(arg) for arg in (first, second, "--out", out, "--no_split", "--png", "--fps", 20)]
    process = subprocess.Popen([sys.executable, "-c", script, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 30
    while len(list(out.glob(".b.*.tmp/*"))) <= 5 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    kept = {path.name for path in out.iterdir()}
    if number == signal.SIGINT:
        assert process.returncode == 130, said
        assert "what is done is kept; repeat the command to resume\nInterrupted\n" in said
        assert kept == {"a"}
    else:
        assert {re.sub(r"\d+-[0-9a-f]{8}", "PROCESS", name) for name in kept} == {"a", ".b.PROCESS.tmp", ".b.lock"}
        assert Folder(out).sequences() == ["a"]
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert "a: 20 frames of 192x96" in result.output
    assert result.output.count("(made before)") == 1
    assert len(list((out / "b").glob("*.png"))) == 500
    assert {path.name for path in out.iterdir()} == {"a", "b", "splits"}


def test_another_video_of_the_same_name_is_refused_and_a_moved_one_is_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "day1" / "drive.mkv", tmp_path / "day2" / "drive.mkv"
    for path, start in ((first, 0), (second, 100)):
        path.parent.mkdir()
        save_video(path, count=20, picture=lambda number, start=start: picture(start + number))
    out = tmp_path / "out"
    assert run(first, "--out", out, "--no_split").exit_code == 0
    result = run(second, "--out", out, "--no_split")
    assert result.exit_code == 1
    assert f"Error: {out / 'drive'} was made of another video, {first}, not of {second} as it is now; " in result.output
    assert numbers_in(out / "drive") == {number: 2 * number for number in range(10)}
    moved = first.rename(tmp_path / "moved.mkv")
    assert "(made before)" in run(moved, "--out", out, "--no_split", "--sequence", "drive").output
    assert "second: 10 frames" in run(second, "--out", out, "--no_split", "--sequence", "second").output


def test_a_video_that_was_cut_off_and_is_whole_now_is_made_anew_and_keeps_its_camera(tmp_path: Path) -> None:
    video, out = save_video(tmp_path / "a.mkv", count=200), tmp_path / "out"
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    assert run(video, "--out", out, "--no_split", "--intrinsics", 150, 150, 95.5, 47.5).exit_code == 1
    assert len(numbers_in(out / "a")) < 80
    video.write_bytes(whole)
    result = run(video, "--out", out, "--no_split")
    assert result.exit_code == 0, result.output
    assert f"a: 100 frames of 192x96 in {out / 'a'}\n" in result.output
    assert numbers_in(out / "a").keys() == set(range(100))
    assert read_calibration(out / "a" / "calibration.yaml").cameras[LEFT].fx_px == 150
    assert sorted(path.name for path in out.iterdir()) == ["a", "splits"]


def test_its_help_imports_neither_torch_nor_numpy() -> None:
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom dataload.commands.from_video import from_video\n"
        "result = CliRunner().invoke(from_video, ['--help'])\nassert '--intrinsics' in result.output, result.output\n"
        "assert not {'torch', 'numpy', 'av', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
