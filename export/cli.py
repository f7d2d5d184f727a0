"""``md-predict``: depth of an image or a folder of images."""

from __future__ import annotations

from pathlib import Path

import click

from engine.config import AMP_MODES
from engine.options import GroupedCommand, folder_path, option_group
from splits.errors import InputError

source = option_group("Input")
output = option_group("Output")
machine = option_group("Machine")


@click.command(cls=GroupedCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 140})
@source("--image", "--image_path", "image", type=folder_path(), required=True, metavar="FILE|FOLDER", help="An image, or a folder of them.")
@source("--model", "--model_name", "model", type=folder_path(), required=True, metavar="FOLDER", help="A run folder or weights folder.")
@source("--ext", default=None, help="Take only this kind of image from the folder  [default: jpg, jpeg and png]")
@output("--out", type=folder_path(file_okay=False), default=None, metavar="DIR", help="Where to write  [default: beside each image]")
@output("--pred_metric_depth", is_flag=True, help="Write <stem>_depth.npy, metres, instead of <stem>_disp.npy; for stereo models.")
@machine("--amp", type=click.Choice(AMP_MODES), default="auto", help="Precision of the network; auto: fp16 on a GPU, fp32 on a CPU.")
@machine("--no_cuda", is_flag=True, help="Predict on the CPU.")
@click.version_option(package_name="md-engine")
def md_predict(image: Path, model: Path, ext: str | None, out: Path | None, pred_metric_depth: bool, amp: str, no_cuda: bool) -> None:
    """Predict depth: <stem>_disp.npy (inverse depth at the network's size) and the picture <stem>_disp.jpeg of each image.

    \b
    md-predict --image photo.jpg --model ~/tmp/mono_model
    md-predict --image photos/ --model ~/tmp/stereo_model/models/weights_19 --out depth/ --pred_metric_depth
    """
    from tqdm import tqdm

    from dataload.datasets import dataset_class
    from export.predict import find_images, predict_images

    files = find_images(image, ext)

    from export.torch_predictor import torch_predictor

    predictor = torch_predictor(model, no_cuda=no_cuda, amp=amp)
    if pred_metric_depth and not predictor.use_stereo:
        click.echo("Warning: this model was not trained on stereo pairs; its depth has no fixed scale, so these are no metres", err=True)
    metric_factor = dataset_class("kitti").metric_factor if pred_metric_depth else None
    predictions = tqdm(predict_images(predictor, files, out, metric_factor=metric_factor), total=len(files), unit="image")
    unreadable = [reason for reason in predictions if reason is not None]
    click.echo(f"{len(files) - len(unreadable)} of {len(files)} images predicted into {out or files[0].parent}")
    if unreadable:
        raise InputError("; ".join(unreadable))
