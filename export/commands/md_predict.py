"""``md-predict``: depth of images, folders, videos and a webcam."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataload.commands.command import folder_path, say, usage_errors
from dataload.commands.options import GroupedCommand, Unlisted, Values, option_group
from dataload.system.console import shown_console
from dataload.system.interrupts import exit_status
from engine.choices import AMP_MODES, COLORMAPS
from engine.released import RELEASED, RELEASED_NAMES
from export.choices import ASSUMED_OUTPUTS, DEFAULT_FORMATS, FORMATS, PROVIDER_NAMES, ModelOptions, OutputConfig, is_onnx
from splits.errors import InputError, printable
from splits.version import DISTRIBUTION

if TYPE_CHECKING:
    from export.prediction.inputs import Inputs
    from export.prediction.predict import Predictor

SOURCE = "IMAGE|FOLDER|'PATTERN'|VIDEO|WEBCAM"
SOURCE_HELP = "An image, a folder of them, a quoted pattern such as 'photos/**/*.jpg', a video, or a webcam's number."
MODEL_HELP = (
    "An ONNX file, a run folder, a weights folder, a folder of md-export --target hub, one of their files, a zip, hf:USER/REPO[@REVISION], "
    f"or a released model: {RELEASED_NAMES}."
)
SIZE_HELP = "Input size of weights that do not record it, or of an ONNX file that leaves it open."
FORMAT_HELP = "npy: arrays; png16: metres * 256; jpeg, png: pictures; ply: point cloud, needs --intrinsics."

source = option_group("Input")
output = option_group("Output")
foreign = option_group("ONNX file that md-export did not write")
machine = option_group("Machine")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@source("--image", "--image_path", "image", type=folder_path(), required=True, metavar=SOURCE, help=SOURCE_HELP)
@source(
    "--model", "--model_name", "model", type=folder_path(RELEASED), required=True, metavar="NAME|FOLDER|FILE|hf:USER/REPO", help=MODEL_HELP
)
@source(
    "--ext", default=None, help="Take only this kind of image from a folder or pattern  [default: jpg, png, bmp, webp, tif, ppm and pgm]"
)
@source(
    "--intrinsics", type=float, nargs=4, default=None, metavar="FX FY CX CY", help="Camera for the point cloud, in pixels of the image."
)
# Further files, where the shell has expanded a pattern.
@click.argument("more", cls=Unlisted, nargs=-1, type=folder_path(), metavar="")
@output("--out", type=folder_path(), default=None, metavar="DIR", help="Where to write  [default: beside each image]")
@output("--format", "formats", type=Values(str, FORMATS), many=True, default=" ".join(DEFAULT_FORMATS), metavar="NAME...", help=FORMAT_HELP)
@output("--colormap", type=click.Choice(COLORMAPS), default=COLORMAPS[0], help="Colours of pictures and videos.")
@output("--pred_metric_depth", is_flag=True, help="Write <stem>_depth.npy, metres, instead of <stem>_disp.npy; for stereo models.")
@foreign("--onnx_output", type=click.Choice(ASSUMED_OUTPUTS), default=None, help="What the file outputs; disp is a sigmoid's output.")
@foreign("--min_depth", type=float, default=None, metavar="UNITS", help="Smallest depth that disp stands for.")
@foreign("--max_depth", type=float, default=None, metavar="UNITS", help="Largest depth that disp stands for.")
@source("--height", type=int, default=None, metavar="PX", help=SIZE_HELP)
@source("--width", type=int, default=None, metavar="PX", help=SIZE_HELP)
@machine("--provider", type=click.Choice(PROVIDER_NAMES), default="auto", help="What an ONNX file runs on; auto: a GPU if there is one.")
@machine("--amp", type=click.Choice(AMP_MODES), default="auto", help="Precision of a checkpoint; auto: fp16 on a GPU, fp32 on a CPU.")
@machine("--no_cuda", is_flag=True, help="Predict on the CPU.")
@click.version_option(package_name=DISTRIBUTION)
@click.pass_context
def md_predict(ctx: click.Context, /, image: Path, more: tuple[Path, ...], model: Path, ext: str | None, **options: Any) -> None:
    """Predict depth: <stem>_disp.npy (inverse depth at the network's size) and the picture <stem>_disp.jpeg of each image.

    For a video: <stem>_depth.mp4, each frame beside its prediction. For webcam N: webcam<N>_depth.mp4, until Ctrl-C.

    \b
    md-predict --image photo.jpg --model mono+stereo_640x192
    md-predict --image photos/ --model ~/tmp/stereo_model --out depth/ --pred_metric_depth
    md-predict --image photo.jpg --model stereo_640x192 --format png16 ply --intrinsics 721.5 721.5 609.6 172.9
    md-predict --image drive.mp4 --model ~/tmp/mono_model --colormap turbo
    md-predict --image photos/ --model model.onnx --provider cuda
    """
    ctx.with_resource(shown_console())
    with usage_errors():
        config = output_config(options)
        named = model_options(model, options, config)
    from export.prediction.inputs import check_outputs, find_inputs, hold_outputs
    from export.prediction.predictors import open_predictor

    inputs = find_inputs([image, *more], ext)
    streams = inputs.videos or inputs.webcam is not None
    if streams:
        with usage_errors():
            check_stream_options(config)
        from dataload.footage.video_reader import require_av

        require_av()
    check_outputs([*inputs.images, *inputs.videos] or [Path("webcam")], config.folder)
    with hold_outputs(inputs, config):
        predictor = open_predictor(named)
        ctx.exit(_predict_streams(predictor, inputs, config) if streams else _predict_images(predictor, inputs.images, config))


def output_config(options: dict[str, Any]) -> OutputConfig:
    """The outputs that the options as parsed ask for.

    Raises:
        InputError: values that do not fit together.
    """
    return OutputConfig(
        formats=tuple(dict.fromkeys(options["formats"])), folder=options["out"], colormap=options["colormap"],
        metric=options["pred_metric_depth"], intrinsics=options["intrinsics"],
    )  # fmt: skip


def model_options(model: Path, options: dict[str, Any], output: OutputConfig) -> ModelOptions:
    """The model that the options as parsed name, and how it is to be run.

    Raises:
        InputError: an option is for the other kind of model, or metres are asked for of a file that does not say what its unit is.
    """
    named = ModelOptions(
        model=model, no_cuda=options["no_cuda"], amp=options["amp"], provider=options["provider"], height_px=options["height"],
        width_px=options["width"], onnx_output=options["onnx_output"], min_depth=options["min_depth"], max_depth=options["max_depth"],
    )  # fmt: skip
    if is_onnx(model) and named.assumed is not None and (asked := output.needs_metres()):
        raise InputError(f"{asked} needs metres, but the unit of this file is unknown; leave it out")
    return named


def check_stream_options(config: OutputConfig) -> None:
    """Raise InputError where ``config`` asks for what only images have."""
    if config.metric or config.formats != DEFAULT_FORMATS:
        raise InputError("--format and --pred_metric_depth are for images; a video or webcam becomes an mp4, so leave them out")


def _predict_images(predictor: Predictor, files: list[Path], config: OutputConfig) -> int:
    """Predict and write, then name what failed; returns the exit status."""
    from export.prediction.predict import check_unit, predict_images

    with usage_errors():
        check_unit(predictor, config)
    if "ply" in config.formats and predictor.unit_m is None:
        say("The point clouds are in the network's own unit: a model trained without stereo does not know the scale", err=True)
    done = predict_images(predictor, files, config)
    with click.progressbar(done, length=len(files), label="Predicting", show_pos=True, file=sys.stderr) as bar:
        failed = [failure for failure in bar if failure]
    places = {config.folder or path.parent for path in files}
    place = f"{places.pop()}" if len(places) == 1 else f"{len(places)} folders"
    say(f"{len(files) - len(failed)} of {len(files)} images predicted into {place}")
    for failure in failed:
        say(f"Error: {failure}", err=True)
    return 1 if failed else 0


def _predict_streams(predictor: Predictor, inputs: Inputs, config: OutputConfig) -> int:
    """Predict one video after the other, or the webcam until Ctrl-C; returns the exit status."""
    from engine.interrupt import graceful_stop
    from export.prediction.video import predict_source, video_source, webcam_source

    webcam = inputs.webcam is not None
    sources = [video_source(path, config) for path in inputs.videos]
    if inputs.webcam is not None:
        sources = [webcam_source(inputs.webcam, config)]
        say("Recording; Ctrl-C ends it", err=True)
    failed = []
    with graceful_stop() as stop:
        for source in sources:
            try:
                result = predict_source(predictor, source, config.colormap, stop, frame_bar)
            except InputError as error:
                failed.append(str(error))
                continue
            say(f"{result.frames} frames of {source.name} in {source.out}")
            failed += [result.failure] if result.failure else []
            if stop.requested:
                break
    for failure in failed:
        say(f"Error: {failure}", err=True)
    if stop.requested and not (webcam and stop.number == signal.SIGINT):  # Ctrl-C is how a recording ends
        return exit_status(stop.number)
    return 1 if failed else 0


@contextmanager
def frame_bar(num_frames: int, name: str) -> Iterator[Callable[[int], None]]:
    """A progress bar over frames (0: unknown); yields a function that advances it."""
    with click.progressbar(count(), length=num_frames or None, label=printable(name), show_pos=True, file=sys.stderr) as bar:
        yield bar.update
