"""The README's moving picture: a drive through a rendered street that a model has not seen, and the depth predicted from each frame.

The committed one is of ``md-train --dataset demo --use_stereo --weights_init scratch --initial_depth 11 --learning_rate 5e-4 --height 128
--width 416 --batch_size 8 --num_epochs 16 --scheduler_step_size 12``, then ``python -m benchmarks.street_picture --model ~/tmp/mdp``.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
from PIL import Image

from dataload.demo import world as demo_world
from dataload.system.files import whole_file
from engine.pictures import TINY, colour, side_by_side
from engine.resample import resize
from export import DepthModel
from export.prediction.video import SmoothRange

# Another seed than the demo world's, so that no street is one of its own.
STREETS = demo_world.WorldConfig(height_px=192, width_px=640, drives=4, frames=48, seed=2026)
SHOWN_PX = (120, 400)
FRAME_MS = 90
QUALITY = 55


@click.command()
@click.option("--model", type=click.Path(exists=True, path_type=Path), required=True, help="A run on the demo.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/street.webp"), show_default=True)
def main(model: Path, out: Path) -> None:
    """Render streets, predict one drive, and write the frames beside their depth as an animated WebP."""
    with TemporaryDirectory() as name:
        world = demo_world.ensure(Path(name) / "world", config=STREETS)
        frames = sorted((world / demo_world.drive_folder(1) / "image_02" / "data").glob("*.jpg"))
        depths = DepthModel.load(model).predict(list(frames))
        colours = SmoothRange()
        pictures = []
        for depth in depths:
            low, high = colours.follow(depth.inv_depth)
            seen = colour((resize(depth.inv_depth, SHOWN_PX) - low) / max(high - low, TINY))
            shown = Image.fromarray(depth.image).resize(SHOWN_PX[::-1], Image.Resampling.LANCZOS)
            pictures.append(Image.fromarray(side_by_side([np.asarray(shown), seen])))
    with whole_file(out) as temporary:
        pictures[0].save(temporary, "WEBP", save_all=True, append_images=pictures[1:], duration=FRAME_MS, loop=0, quality=QUALITY, method=6)
    click.echo(f"{len(pictures)} frames in {out}, {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
