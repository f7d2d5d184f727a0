"""The options of loading: what, from where and at which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from dataload.option import check_options, option
from splits.errors import InputError

# The encoder halves its input five times; the decoder reflects the smallest features at their border, which takes two pixels.
SIZE_MULTIPLE_PX = 32
MIN_SIZE_PX = 64
USUAL_LONGER_PX = 640
LOADERS = ("auto", "dali", "torch")
FRAME_STORES = ("none", "disk", "gpu", "auto")
STOP, SKIP = "stop", "skip"
DEFAULT_DATA_PATH = Path("kitti_data")
DEFAULT_SPLIT = "eigen_zhou"
# Options that take a name, or the path of a folder.
NAMES_OR_FOLDERS = ("split", "eval_split")
# Headings of md-train's help.
DATA, OPTIMISATION = "Data", "Optimisation"

SPLIT_HELP = "A split, published or in <data_path>/splits, or a folder with {train,val}_files.txt"
DEPTH_SCALE_HELP = "Units of a depth PNG per metre, for evo and folder datasets"
INTRINSICS_HELP = "Camera of evo and folder datasets, in pixels of the images; add WIDTH HEIGHT if they are for another size"
FRAME_STORE_HELP = "Where decoded frames are kept for all epochs and runs; auto chooses by the free space and logs its choice."
BAD_FRAMES_HELP = (
    "At an image that cannot be read: stop, or skip it: another sample takes the place of its sample. At most 1 % are skipped."
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Loading options; sizes in pixels, ``frame_ids`` are signed offsets from the target, the target (0) first.

    ``frame_store`` and ``frame_store_dir`` say where frames are kept once they are decoded (see ``dataload.store.choice``); what is
    loaded does not depend on it. ``num_levels`` and ``source_levels`` are the pyramid levels made of the target and of the sources.
    ``depth_scale`` (units of a depth PNG per metre) and ``intrinsics`` (fx, fy, cx, cy and perhaps the width and height they are
    for, pixels) are for datasets that do not know them.
    """

    data_path: Path = option(
        MISSING, "Folder of the dataset", heading=DATA, default_help=f"{DEFAULT_DATA_PATH}; the demo brings its own", resumable=True
    )
    dataset: str = option("kitti", "Layout of its files: a name, or a class of your own.", heading=DATA)
    split: str = option(DEFAULT_SPLIT, SPLIT_HELP, heading=DATA, metavar="NAME|FOLDER", default_help=f"{DEFAULT_SPLIT}; evo, folder")
    image_ext: str = option(".jpg", "Read .png images instead of .jpg.", heading=DATA, name="png", switch=(".jpg", ".png"))
    depth_scale: float | None = option(
        None, DEPTH_SCALE_HELP, heading=DATA, metavar="VALUE", default_help="calibration.yaml's, else 256", above=0
    )
    intrinsics: tuple[float, ...] | None = option(
        None, INTRINSICS_HELP, heading=DATA, metavar="FX FY CX CY", default_help="calibration.yaml"
    )
    height_px: int = option(192, "Input height, a multiple of 32.", heading=DATA, name="height", metavar="PX")
    width_px: int = option(640, "Input width, a multiple of 32.", heading=DATA, name="width", metavar="PX")
    frame_ids: tuple[int, ...] = option((0, -1, 1), "Frame offsets: the target (0), then its sources.", heading=DATA, metavar="0 ID...")
    use_stereo: bool = option(False, "Add the other camera as a source.", heading=DATA)
    batch_size: int = option(12, "Samples per step.", heading=DATA, least=1)
    num_workers: int = option(12, "Loader threads; at most one per core is used.", heading=DATA, least=0, resumable=True)
    loader: str = option("auto", "auto picks the fastest for this machine.", heading=DATA, choices=LOADERS, resumable=True)
    frame_store: str = option("auto", FRAME_STORE_HELP, heading=DATA, choices=FRAME_STORES, resumable=True)
    frame_store_dir: Path | None = option(
        None, "Where stores are kept; md-data store lists them", heading=DATA, default_help="the cache folder", resumable=True
    )
    bad_frames: str = option(STOP, BAD_FRAMES_HELP, heading=DATA, choices=(STOP, SKIP), resumable=True)
    seed: int = option(
        0, "Seed of weights, order and augmentation: the same seed gives the same run.", heading=OPTIMISATION, least=0, most=2**63 - 1
    )
    num_levels: int = 4
    source_levels: int = 1

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            check_multiple(name, getattr(self, name))
        check_frame_ids(self.frame_ids)
        check_options(self)

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.height_px, self.width_px

    @property
    def temporal_ids(self) -> tuple[int, ...]:
        """The offsets of the temporal sources."""
        return self.frame_ids[1:]

    @property
    def num_sources(self) -> int:
        """Temporal sources plus the other camera."""
        return len(self.temporal_ids) + int(self.use_stereo)


def usual_size(height_px: int, width_px: int, longer_px: int = USUAL_LONGER_PX) -> str:
    """The options of a training size for images of that shape: the longer side ``longer_px``, or what they have, and near to their shape.

    It is no larger than the images, but for those that are smaller than the least size there is.
    """
    longer, shorter = max(height_px, width_px), min(height_px, width_px)
    long_px = min(longer_px, _multiple_within(longer))
    short_px = min(round(long_px * shorter / longer / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX, _multiple_within(shorter))
    long_px, short_px = max(long_px, MIN_SIZE_PX), max(short_px, MIN_SIZE_PX)
    height, width = (short_px, long_px) if width_px >= height_px else (long_px, short_px)
    return f"--height {height} --width {width}"


def _multiple_within(side_px: int) -> int:
    return side_px // SIZE_MULTIPLE_PX * SIZE_MULTIPLE_PX


def check_frame_ids(frame_ids: Sequence[int]) -> None:
    """Raise InputError unless the offsets are distinct and start with the target's, 0."""
    shown = " ".join(map(str, frame_ids))
    if not frame_ids or frame_ids[0] != 0:
        raise InputError(f"frame_ids={shown} must start with 0, the target; for example 0 -1 1")
    if len(set(frame_ids)) != len(frame_ids):
        raise InputError(f"frame_ids={shown} must be distinct; it names a frame twice: give each offset once")


def size_given(height: int | None, width: int | None) -> tuple[int, int] | None:
    """The size (height, width) that --height and --width give together; ``InputError`` where only one is given."""
    if height is None or width is None:
        if (height, width) != (None, None):
            raise InputError("--height and --width go together; give both, or neither")
        return None
    return height, width


def check_multiple(name: str, size_px: int) -> None:
    """Raise InputError unless ``size_px`` is a multiple of 32, and at least 64: the smallest features are reflected at their border."""
    if size_px >= MIN_SIZE_PX and size_px % SIZE_MULTIPLE_PX == 0:
        return
    below = size_px // SIZE_MULTIPLE_PX * SIZE_MULTIPLE_PX
    nearest = f"{below} or {below + SIZE_MULTIPLE_PX}" if below >= MIN_SIZE_PX else str(MIN_SIZE_PX)
    least = f" and at least {MIN_SIZE_PX}" if size_px < MIN_SIZE_PX else ""
    raise InputError(
        f"{name}={size_px} must be a multiple of {SIZE_MULTIPLE_PX}{least} (the encoder halves it 5 times); nearest: {nearest}"
    )
