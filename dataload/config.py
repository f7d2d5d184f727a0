"""What is loaded, from where and at which size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from splits.errors import InputError

# The encoder halves its input five times; the decoder reflects the smallest features at their border, which takes two pixels.
SIZE_MULTIPLE_PX = 32
MIN_SIZE_PX = 64
USUAL_WIDTH_PX = 640
LOADERS = ("auto", "dali", "torch")
FRAME_STORES = ("none", "disk", "gpu", "auto")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Loading options; sizes in pixels, ``frame_ids`` are signed offsets from the target, the target (0) first.

    ``frame_store`` and ``frame_store_dir`` say where frames are kept once they are decoded (see ``dataload.store_choice``); what is
    loaded does not depend on it. ``num_levels`` and ``source_levels`` are the pyramid levels made of the target and of the sources.
    ``depth_scale`` (value in a depth PNG a metre) and ``intrinsics`` (fx, fy, cx, cy and perhaps the width and height they are for, pixels)
    are for datasets that do not know them.
    """

    data_path: Path
    dataset: str = "kitti"
    split: str = "eigen_zhou"
    height_px: int = 192
    width_px: int = 640
    frame_ids: tuple[int, ...] = (0, -1, 1)
    use_stereo: bool = False
    image_ext: str = ".jpg"
    batch_size: int = 12
    num_levels: int = 4
    source_levels: int = 1
    seed: int = 0
    num_workers: int = 12
    loader: str = "auto"
    frame_store: str = "auto"
    frame_store_dir: Path | None = None
    depth_scale: float | None = None
    intrinsics: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("height_px", "width_px"):
            check_multiple(name, getattr(self, name))
        if not self.frame_ids or self.frame_ids[0] != 0:
            raise InputError(f"frame_ids={' '.join(map(str, self.frame_ids))} must start with 0, the target; for example 0 -1 1")
        if len(set(self.frame_ids)) != len(self.frame_ids):
            raise InputError(f"frame_ids={' '.join(map(str, self.frame_ids))} names a frame twice; give each offset once")
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size} must be at least 1")
        if self.num_workers < 0:
            raise InputError(f"num_workers={self.num_workers} must be 0 or more")
        if self.loader not in LOADERS:
            raise InputError(f"loader={self.loader!r} is unknown; choose from {', '.join(LOADERS)}")
        if self.depth_scale is not None and not self.depth_scale > 0:
            raise InputError(f"depth_scale={self.depth_scale:g} must be above 0: metres are the PNG's values over it")
        if self.frame_store not in FRAME_STORES:
            raise InputError(f"frame_store={self.frame_store!r} is unknown; choose from {', '.join(FRAME_STORES)}")

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


def usual_size(height_px: int, width_px: int) -> str:
    """The options of a usual training size for images of that shape: 640 wide, as high as comes nearest to their shape."""
    height = max(1, round(USUAL_WIDTH_PX * height_px / width_px / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
    return f"--height {height} --width {USUAL_WIDTH_PX}"


def check_multiple(name: str, size_px: int) -> None:
    """Raise InputError unless ``size_px`` is a multiple of 32, and at least 64: the smallest features are reflected at their border."""
    if size_px >= MIN_SIZE_PX and size_px % SIZE_MULTIPLE_PX == 0:
        return
    below = size_px // SIZE_MULTIPLE_PX * SIZE_MULTIPLE_PX
    nearest = f"{below} or {below + SIZE_MULTIPLE_PX}" if below >= MIN_SIZE_PX else str(MIN_SIZE_PX)
    raise InputError(f"{name}={size_px} must be a multiple of {SIZE_MULTIPLE_PX} (the encoder halves it 5 times); nearest: {nearest}")
