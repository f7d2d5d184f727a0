"""Videos and webcams: decoded, predicted in batches, written side by side; whole and playable however they end."""

import os
import signal
import sys
import threading
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import videos
from click.testing import CliRunner
from predicting import names, run, save_image, save_model
from videos import MATRICES, read_video, turn

from engine.interrupt import Stop
from export.choices import OutputConfig
from export.commands.md_predict import frame_bar, md_predict
from export.prediction import video
from export.prediction.predict import BATCH_SIZE, Predictor
from export.prediction.video import SmoothRange, Source, predict_source, webcam_source

av = pytest.importorskip("av")

SIZE_PX = (54, 96)  # of the frames; even, and no multiple of 16
GAP_PX = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("stereo"), use_stereo=True)


def picture(number: int, size_px: tuple[int, int] = SIZE_PX) -> np.ndarray:
    """A bright block, top left, on a ground that brightens from frame to frame."""
    image = np.full((*size_px, 3), 20 + 4 * number, np.uint8)
    image[: size_px[0] // 3, : size_px[1] // 3] = (250, 40, 40)
    return image


save_video = partial(videos.save_video, count=5, rate=10, picture=picture, encoder={"crf": "5", "g": "4"})


def test_a_video_becomes_frames_beside_their_predictions(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click._termui_impl.isatty", lambda _stream: True)  # a bar is drawn on terminals alone
    count = 2 * BATCH_SIZE + 3
    source = save_video(tmp_path / "drive.mp4", count=count, rate=25)
    result = run("--image", source, "--model", model)
    assert result.exit_code == 0, result.output
    assert f"{count} frames of {source} in {tmp_path / 'drive_depth.mp4'}" in result.output
    assert f"{count}/{count}" in result.output  # the progress bar
    assert names(tmp_path) == ["drive.mp4", "drive_depth.mp4"]
    rate, codec, frames, times = read_video(tmp_path / "drive_depth.mp4")
    assert (rate, codec, len(frames)) == (25, "h264", count)
    np.testing.assert_allclose(times, np.arange(count) / 25, atol=1e-4)
    for number, frame in enumerate(frames):
        assert frame.shape == (SIZE_PX[0], 2 * SIZE_PX[1] + GAP_PX, 3)
        left, right = frame[:, : SIZE_PX[1]].astype(int), frame[:, SIZE_PX[1] + GAP_PX :]
        assert np.abs(left - picture(number)).mean() < 6, number
        assert right.std() > 10


def test_a_video_beside_images_of_the_same_model_shows_the_same_colours(model: Path, tmp_path: Path) -> None:
    source = save_video(tmp_path / "drive.mp4", count=1)
    assert run("--image", source, "--model", model, "--colormap", "viridis", "--out", tmp_path / "out").exit_code == 0
    _, _, (frame,), _ = read_video(tmp_path / "out" / "drive_depth.mp4")
    from PIL import Image

    _, _, (original,), _ = read_video(source)
    Image.fromarray(original).save(tmp_path / "frame.png")
    assert run("--image", tmp_path / "frame.png", "--model", model, "--colormap", "viridis", "--format", "png").exit_code == 0
    expected = np.asarray(Image.open(tmp_path / "frame_disp.png")).astype(int)
    assert np.abs(frame[:, SIZE_PX[1] + GAP_PX :] - expected).mean() < 8


def test_a_video_too_wide_for_the_encoder_is_refused_in_a_line(model: Path, tmp_path: Path) -> None:
    source = save_video(tmp_path / "wide.mp4", count=2, picture=partial(picture, size_px=(54, 8400)))
    result = run("--image", source, "--model", model)
    assert result.exit_code == 1
    assert f"Error: no video of {2 * 8400 + GAP_PX}x54 pixels, frame and prediction side by side, can be written" in result.output
    assert "Traceback" not in result.output
    assert names(tmp_path) == ["wide.mp4"]


@pytest.mark.parametrize("clockwise", MATRICES)
def test_rotation_is_applied(model: Path, tmp_path: Path, clockwise: int) -> None:
    source = save_video(tmp_path / "a.mp4", count=2)
    turn(source, clockwise)
    assert run("--image", source, "--model", model).exit_code == 0
    _, _, frames, _ = read_video(tmp_path / "a_depth.mp4")
    upright = np.rot90(picture(0), -clockwise // 90)
    height, width = upright.shape[:2]
    assert frames[0].shape == (height, 2 * width + GAP_PX, 3)
    assert np.abs(frames[0][:, :width].astype(int) - upright).mean() < 6


def test_odd_sizes_uneven_times_and_other_containers(model: Path, tmp_path: Path) -> None:
    times = [0, 1, 2, 5, 6]
    source = save_video(tmp_path / "a.mkv", times=times)
    assert run("--image", source, "--model", model).exit_code == 0
    np.testing.assert_allclose(read_video(tmp_path / "a_depth.mp4")[3], np.array(times) / 10, atol=2e-3)
    with av.open(str(tmp_path / "odd.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 61, 33, "bgr0"
        for number in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, (33, 61)), format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    result = run("--image", tmp_path / "odd.avi", "--model", model)
    assert result.exit_code == 0, result.output
    rate, _, frames, _ = read_video(tmp_path / "odd_depth.mp4")
    assert (rate, len(frames), frames[0].shape) == (5, 3, (32, 2 * 61 + GAP_PX, 3))


def test_without_libx264_it_is_mpeg4(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "ENCODERS", {"no_such_encoder": {}, "mpeg4": video.ENCODERS["mpeg4"]})
    assert run("--image", save_video(tmp_path / "a.mp4", rate=30), "--model", model).exit_code == 0
    rate, codec, frames, _ = read_video(tmp_path / "a_depth.mp4")
    assert (rate, codec, len(frames)) == (30, "mpeg4", 5)
    assert np.abs(frames[4][:, : SIZE_PX[1]].astype(int) - picture(4)).mean() < 12


def test_several_videos_and_those_that_are_none(model: Path, tmp_path: Path) -> None:
    whole = save_video(tmp_path / "a.mp4", count=12)
    (tmp_path / "b_text.mp4").write_text("no video")
    (tmp_path / "c_cut.mp4").write_bytes(whole.read_bytes().split(b"moov")[0])  # the index, at the end, is lost
    (tmp_path / "d_empty.mp4").touch()
    with av.open(str(tmp_path / "e_sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    save_video(tmp_path / "f.mp4")
    result = run("--image", tmp_path / "*.mp4", "--model", model, "--out", tmp_path / "out")
    assert result.exit_code == 1
    errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert errors == [
        f"Error: {tmp_path / 'b_text.mp4'} cannot be read as a video (Invalid data found when processing input)",
        f"Error: {tmp_path / 'c_cut.mp4'} cannot be read as a video (Invalid data found when processing input)",
        f"Error: {tmp_path / 'd_empty.mp4'} is empty (0 bytes); copy it again",
        f"Error: {tmp_path / 'e_sound.mp4'} holds no pictures, only sound or text",
    ]
    assert names(tmp_path / "out") == ["a_depth.mp4", "f_depth.mp4"]


def test_damage_in_the_middle_costs_only_what_is_damaged(model: Path, tmp_path: Path) -> None:
    count = 40
    source = save_video(tmp_path / "a.mkv", count=count)
    with av.open(str(source)) as container:
        packet = [bytes(packet) for packet in container.demux() if packet.size][20]
    source.write_bytes(source.read_bytes().replace(packet, bytes([0x7F]) * len(packet)))
    result = run("--image", source, "--model", model)
    assert result.exit_code == 1, result.output
    assert f"Error: {source}: 1 damaged packets are left out" in result.output
    frames = read_video(tmp_path / "a_depth.mp4")[2]
    assert f"{len(frames)} frames of {source}" in result.output
    assert count - 6 <= len(frames) < count


@pytest.mark.parametrize("args", [["--format", "npy"], ["--format", "ply", "--intrinsics", "1", "1", "0", "0"], ["--pred_metric_depth"]])
def test_formats_of_images_are_refused(tmp_path: Path, args: list[str]) -> None:
    result = run("--image", save_video(tmp_path / "a.mp4", count=1), "--model", "none", *args)
    assert result.exit_code == 2
    assert "--format and --pred_metric_depth are for images; a video or webcam becomes an mp4, so leave them out" in result.output


def test_without_pyav_it_says_what_to_install(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, image = save_video(tmp_path / "a.mp4", count=1), save_image(tmp_path / "b.jpg")
    monkeypatch.setitem(sys.modules, "av", None)
    result = run("--image", source, "--model", model)
    assert result.exit_code == 1
    assert result.output.startswith("Error: videos and webcams need PyAV (")
    assert result.output.endswith("): pip install av\n")
    assert run("--image", image, "--model", model).exit_code == 0


def test_ctrl_c_finishes_the_file(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = video._panels, []

    def panels(*args: object) -> np.ndarray:
        calls.append(args)
        if len(calls) == BATCH_SIZE + 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(video, "_panels", panels)
    source = save_video(tmp_path / "a.mp4", count=5 * BATCH_SIZE)
    save_video(tmp_path / "b.mp4", count=1)
    result = run("--image", source, tmp_path / "b.mp4", "--model", model)
    assert result.exit_code == 130, result.output
    assert f"{2 * BATCH_SIZE} frames of {source}" in result.output
    assert len(read_video(tmp_path / "a_depth.mp4")[2]) == 2 * BATCH_SIZE
    assert names(tmp_path) == ["a.mp4", "a_depth.mp4", "b.mp4"]


def test_a_webcam_is_recorded_until_ctrl_c(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(index: int, config: OutputConfig) -> Source:
        real = webcam_source(index, config)
        return real._replace(file="testsrc=size=160x120:rate=10", format="lavfi")

    monkeypatch.setattr(video, "webcam_source", endless)
    monkeypatch.chdir(tmp_path)
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    real_open = video.open_source

    def open_source(source: Source) -> object:
        timer.start()
        return real_open(source)

    monkeypatch.setattr(video, "open_source", open_source)
    result = run("--image", "3", "--model", model)
    timer.join()
    assert result.exit_code == 0, result.output
    assert "Recording; Ctrl-C ends it" in result.output
    assert names(tmp_path) == ["webcam3_depth.mp4"]
    rate, _, frames, times = read_video(tmp_path / "webcam3_depth.mp4")
    assert rate == 10
    assert len(frames) % BATCH_SIZE == 0
    assert f"{len(frames)} frames of webcam 3 in webcam3_depth.mp4" in result.output
    assert times[-1] == pytest.approx((len(frames) - 1) / 10, abs=1e-3)


def test_a_webcam_that_is_not_there(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(md_predict, ["--image", "97", "--model", str(model), "--no_cuda"])
    assert result.exit_code == 1
    assert (
        "Error: webcam 97 cannot be opened (/dev/video97: No such file or directory); check that it is plugged in and free" in result.output
    )
    assert names(tmp_path) == []


def test_webcams_of_other_systems() -> None:
    assert webcam_source(2, OutputConfig(), "darwin")[2:4] == ("2:none", "avfoundation")
    assert webcam_source(2, OutputConfig(folder=Path("x")), "linux") == (
        "webcam 2",
        Path("x/webcam2_depth.mp4"),
        "/dev/video2",
        "v4l2",
        None,
    )


def test_colours_follow_slowly() -> None:
    follower = SmoothRange()
    low, high = follower.follow(np.linspace(0.2, 0.4, 101, dtype=np.float32)[None])
    assert (low, high) == pytest.approx((0.2, 0.39))
    low, high = follower.follow(np.linspace(0.2, 0.8, 101, dtype=np.float32)[None])
    assert (low, high) == pytest.approx((0.2, 0.9 * 0.39 + 0.1 * 0.77))
    for _ in range(200):
        low, high = follower.follow(np.linspace(0.0, 0.8, 101, dtype=np.float32)[None])
    assert (low, high) == pytest.approx((0, 0.76), abs=1e-6)


def test_frames_that_change_their_size_take_the_first(tmp_path: Path) -> None:
    with video.Movie(tmp_path / "a.mp4", Fraction(10)) as movie:
        for size_px in ((40, 60), (20, 30), (41, 60), (80, 120)):
            movie.add(picture(0, size_px), None)
    rate, _, frames, _ = read_video(tmp_path / "a.mp4")
    assert rate == 10
    assert [frame.shape for frame in frames] == [(40, 60, 3)] * 4


def test_nothing_of_a_failed_prediction_stays(tmp_path: Path) -> None:
    def broken(_images: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    source = Source("a", tmp_path / "a_depth.mp4", "testsrc=size=160x120:rate=10", "lavfi")
    with pytest.raises(RuntimeError, match="out of memory"):
        predict_source(Predictor(broken, (32, 64), None), source, "magma", Stop(), frame_bar)
    assert names(tmp_path) == []
