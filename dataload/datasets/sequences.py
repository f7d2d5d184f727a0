"""Datasets of sequences: folders of frames in an order, whose neighbours are found on disk; each has its own cameras and depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dataload.datasets.base import NOMINAL_BASELINE, Dataset, some, without_faults
from dataload.datasets.frame_times import natural_key
from dataload.datasets.kitti_depth import PNG_PER_M
from dataload.datasets.timeline import MAX_DEPTH, Timeline, as_name, as_token, folders_below, image_names
from dataload.frames.calibration import FILE_NAME, Calibration, Intrinsics, read_calibration
from dataload.frames.camera_formats import LEFT, RIGHT
from dataload.frames.depth_file import DEPTH_SUFFIXES, clean_metres, read_depth_values
from dataload.frames.frame_ref import NOT_ON_DISK, SIDES, FrameRef, fields_of, named_line, shorten
from dataload.frames.picture import picture_size_px
from dataload.system.console import console
from splits.errors import InputError

# Values up to here in a depth PNG said to be 1/256 m are less than a metre: whole metres, most likely.
LEAST_PLAUSIBLE_MAX = 255


class SequenceDataset(Dataset):
    """Sequences below one folder: the class to subclass for your own layout.

    A subclass says where in a sequence the images of the left and right camera lie (``image_folder``); where depth lies (``depth_path``),
    if there is some; and where intrinsics come from (``intrinsics``), unless ``calibration.yaml`` has them.

    Split lines read ``<sequence> <frame's name> [l or r]``; blanks in names stand as %20 there. The frame at an offset is that of the
    sequence's order on disk; targets without such neighbours are left out of training.

    Args:
        data_path: the folder that holds the sequences.
        image_ext: the ending of images.
        options: ``depth_scale``, units of a depth PNG per metre, by default what ``calibration.yaml`` says, else 256; and ``intrinsics``:
            fx, fy, cx, cy in pixels of the images as they lie on disk, or of images of the width and height that follow, by default what
            the split's lines say, else ``<sequence>/calibration.yaml``, else ``<data_path>/calibration.yaml``.

    Raises:
        InputError: intrinsics that are none.
    """

    default_split: ClassVar[str | None] = "own"
    depth_is_optional: ClassVar[bool] = True
    scores_all_depth: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"depth_scale", "intrinsics"})
    line_form: ClassVar[str] = "<sequence> <frame> [l or r]"
    target_sides: ClassVar[str] = "lr"
    """The cameras whose images may be targets; lines of a dataset with one such camera do not name it."""

    def __init__(self, data_path: Path, image_ext: str = ".jpg", **options: Any) -> None:
        super().__init__(data_path, image_ext, **options)
        self.depth_scale: float | None = options.get("depth_scale")
        self.given_intrinsics: tuple[float, ...] | None = options.get("intrinsics")
        if self.given_intrinsics is not None and len(self.given_intrinsics) not in (4, 6):
            raise InputError("intrinsics: give FX FY CX CY in pixels of the images, or FX FY CX CY WIDTH HEIGHT of images of that size")
        # Each folder is listed and each file of calibration read once.
        self.timeline = lru_cache(maxsize=None)(self._timeline)
        self.calibration = lru_cache(maxsize=None)(self._calibration)
        self._native_size = lru_cache(maxsize=None)(self._read_native_size)

    # What a layout is made of.

    def frame_name(self, folder: str, stem: str) -> str:
        """What split lines call the frame whose file has that stem.

        Args:
            folder: the sequence, as in the split line.
            stem: the name of a file without its ending.
        """
        return stem

    def file_stem(self, folder: str, name: str) -> str:
        """The reverse of ``frame_name``.

        Args:
            folder: the sequence, as in the split line.
            name: what split lines call the frame.
        """
        return name

    def depth_path(self, ref: FrameRef) -> Path | None:
        """Where the frame's depth may lie, a 16-bit PNG of metres times ``depth_scale``, 0 = no measurement; None for no depth at all.

        Instead of the PNG, a file of the same name may be .npy or TIFF; floats are metres where no scale is given.
        """
        return None

    # Frames.

    def sequence_folder(self, folder: str) -> Path:
        """A sequence's folder from its name in a split line."""
        return self.data_path / as_name(folder)

    def sequences(self) -> list[str]:
        """The sequences that are there, as split lines name them, in order; ``InputError`` where there is none."""
        found = [as_token(place) for place in folders_below(self.data_path) if self._has_images(as_token(place))]
        if not found:
            raise InputError(f"{self.data_path} holds no sequence of dataset {type(self).__name__}: {self.layout()}")
        return sorted(found, key=natural_key)

    def layout(self) -> str:
        """Where images are looked for, for messages."""
        return f"images are looked for in {self.relative(self.image_folder('SEQUENCE', 'l'))}"

    def all_refs(self) -> tuple[FrameRef, ...]:
        """Every frame of every sequence, from each camera of ``target_sides`` that has it."""
        return tuple(
            FrameRef(folder, rank, side if len(self.target_sides) > 1 else None, as_token(name))
            for folder in self.sequences()
            for side in self.target_sides
            for rank, name in enumerate(self.timeline(folder).names)
            if name in self.timeline(folder).files[side]
        )

    def split_line(self, ref: FrameRef) -> str:
        """The line that a split made of the disk holds for a frame."""
        return ref.line

    def side(self, ref: FrameRef) -> str:
        """The camera of a reference; the left one where its line names none."""
        return ref.side or "l"

    def image_name(self, folder: str, side: str, frame_index: int) -> str:
        """File name of the frame in that place of its sequence; ``InputError`` where the sequence has no such place."""
        timeline = self.timeline(folder)
        if not 0 <= frame_index < len(timeline.names):
            raise InputError(f"sequence {folder} has {len(timeline.names)} frames, and none in place {frame_index}; use fewer frame_ids")
        name = timeline.names[frame_index]
        # One that this camera lacks is missing under the name that it would have.
        return timeline.files[side].get(name, self.file_stem(folder, name) + self.image_ext)

    def image_path(self, ref: FrameRef, frame_id: int = 0, *, stereo: bool = False) -> Path:
        """The image ``frame_id`` frames after ``ref``; of one that is not on disk, where it should be."""
        if ref.frame_index == NOT_ON_DISK and frame_id == 0 and not stereo:
            return self.image_folder(ref.folder, self.side(ref)) / (self.file_stem(ref.folder, frame_of(ref)) + self.image_ext)
        return super().image_path(ref, frame_id, stereo=stereo)

    def refs(self, lines: Iterable[str], *, source: str) -> tuple[FrameRef, ...]:
        """The frames of split lines, each with its place in its sequence; those that are not on disk have the place ``NOT_ON_DISK``."""
        refs = []
        for number, line in enumerate(lines, start=1):
            with named_line(source, number, line, self.line_form):
                tokens = fields_of(line)
                if tokens:
                    ref = self.parse(tokens)
                    refs.append(ref._replace(frame_index=self.timeline(ref.folder).rank(frame_of(ref), self.side(ref))))
        return tuple(refs)

    def parse(self, tokens: Sequence[str]) -> FrameRef:
        """The reference of a line's fields, its place still open; ``ValueError`` says what is wrong with them."""
        if len(tokens) not in (2, 3):
            raise ValueError(f"{len(tokens)} field{'s' if len(tokens) > 1 else ''} where 2 or 3 are expected")
        if len(tokens) == 3 and tokens[2] not in SIDES:
            raise ValueError(f"side {shorten(tokens[2])!r} is none of l, r, 2, 3")
        return FrameRef(tokens[0], NOT_ON_DISK, SIDES[tokens[2]] if len(tokens) == 3 else None, tokens[1])

    def with_sources(self, refs: Sequence[FrameRef], *, source: str, frame_ids: Sequence[int], use_stereo: bool) -> tuple[FrameRef, ...]:
        """The targets that have their neighbours, without a gap between, and their other camera; how many are left out is logged.

        Raises:
            InputError: none is left, or a sequence's order or intrinsics are not known.
        """
        if any(frame_ids):
            self._require_order({ref.folder for ref in refs if ref.frame_index != NOT_ON_DISK})
        faults = [self.target_fault(ref, frame_ids=frame_ids, use_stereo=use_stereo) for ref in refs]
        kept = without_faults(refs, faults, source=source)
        for ref in {(ref.folder, self.side(ref), ref.intrinsics is None): ref for ref in kept}.values():
            if ref.frame_index != NOT_ON_DISK:
                self.intrinsics(ref)  # not when its first batch is made
        return kept

    def order_fault(self, folder: str) -> str:
        """Why the order of a sequence's frames is not known, and the remedy; empty where it is."""
        fault = self.timeline(folder).fault
        if not fault:
            return ""
        place = self.relative(self.image_folder(folder, "l"))
        return f"the order of the frames in {place} is not known: {fault}; rename them to numbers of one length, 000001 and so on, in order"

    def _require_order(self, folders: Iterable[str]) -> None:
        """``InputError`` where a sequence's order is not known; a reading that is not the plain one is logged."""
        readings: dict[str, list[str]] = {}
        for folder in sorted(folders):
            fault = self.order_fault(folder)
            if fault:
                raise InputError(fault)
            readings.setdefault(self.timeline(folder).reading, []).append(folder)
        for reading, members in readings.items():
            if reading:
                console.info("Order       %s: names are read as %s", some(members), reading)

    def target_fault(self, ref: FrameRef, *, frame_ids: Sequence[int], use_stereo: bool) -> str:
        """Why a target cannot be trained on; empty where it can, or is not on disk at all."""
        if ref.frame_index == NOT_ON_DISK:
            return ""
        return self.timeline(ref.folder).target_fault(ref.frame_index, self.side(ref), frame_ids=frame_ids, use_stereo=use_stereo)

    def check_sources(self, frame_ids: Sequence[int], *, use_stereo: bool) -> None:
        """``InputError`` where stereo pairs are asked for whose distance is not known."""
        if use_stereo and self._reference_baseline_m is None:
            raise InputError(
                "use_stereo: the distance of the cameras is not known; "
                f"write 'stereo: {{baseline_m: METRES}}' into {self.data_path / FILE_NAME}"
            )

    # Cameras.

    def intrinsics(self, ref: FrameRef) -> Intrinsics:
        """The camera of a frame; ``InputError`` names the places where it was looked for."""
        numbers = self.given_intrinsics or ref.intrinsics
        if numbers is not None:
            fx, fy, cx, cy, *size = numbers
            height, width = (int(size[1]), int(size[0])) if size else self.native_size_px(ref)
            return Intrinsics(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy, width_px=width, height_px=height)
        calibration = self.calibration(ref.folder)
        if calibration is None:
            raise InputError(
                f"the intrinsics of sequence {ref.folder} are not known: neither its split lines have them, nor is there "
                f"{self.sequence_folder(ref.folder) / FILE_NAME} or {self.data_path / FILE_NAME}; "
                "write one of them, or give --intrinsics FX FY CX CY in pixels of the images" + self._other_camera_files(ref.folder)
            )
        return calibration.cameras.get(RIGHT if self.side(ref) == "r" else LEFT) or calibration.cameras[LEFT]

    def native_size_px(self, ref: FrameRef) -> tuple[int, int]:
        """(height, width) of the images of the frame's camera, all of one size in a sequence; ``InputError`` where there is none."""
        return self._native_size(ref.folder, self.side(ref))

    def K(self, ref: FrameRef, height_px: int, width_px: int) -> NDArray[np.float32]:
        """Intrinsics (3, 3) float32 in pixels of the frame resized to that size, pixel centres at whole numbers."""
        return self.intrinsics(ref).K(height_px, width_px)

    @property
    def metric_factor(self) -> float:
        """The first known baseline in metres over the nominal one; 1 where no sequence has a second camera."""
        return (self._reference_baseline_m or NOMINAL_BASELINE) / NOMINAL_BASELINE

    def T_stereo(self, ref: FrameRef) -> NDArray[np.float32]:
        """T_source_target (4, 4) of the other camera: this sequence's baseline in metres over ``metric_factor``."""
        calibration = self.calibration(ref.folder)
        baseline_m = calibration.baseline_m if calibration is not None else None
        T = super().T_stereo(ref)
        if baseline_m is not None:
            T[0, 3] = np.copysign(baseline_m / self.metric_factor, T[0, 3])
        return T

    # Depth.

    def depth_places(self, ref: FrameRef) -> list[Path]:
        """Where the frame's depth may lie."""
        path = self.depth_path(ref)
        if path is None or path.suffix != DEPTH_SUFFIXES[0]:
            return [] if path is None else [path]
        return [path.with_suffix(suffix) for suffix in DEPTH_SUFFIXES]

    def depth_remedy(self, refs: Sequence[FrameRef]) -> str:
        """Where depth is looked for."""
        path, scale = self.depth_path(refs[0]), self._depth_scale(refs[0].folder)[0]
        if path is None:
            return super().depth_remedy(refs)
        return (
            f"depth is read from 16-bit PNG files of metres times {scale:g}, as {self.relative(path)}, or from .npy or TIFF files of that "
            "name, whose floats are metres"
        )

    def depth_m(self, ref: FrameRef) -> NDArray[np.float32] | None:
        """The frame's depth (h, w) float32 in metres at its own size, 0 = missing; None where there is no file.

        Args:
            ref: the frame, as its split line names it.

        Raises:
            InputError: damaged, not one number per pixel, or whole metres that are to be read as 1/256 m.
        """
        path = self.depth_source(ref)
        if path is None:
            return None
        levels = read_depth_values(path)
        scale, known = self._depth_scale(ref.folder)
        if np.issubdtype(levels.dtype, np.floating):
            return clean_metres(levels / scale if self._says_depth_scale(ref.folder) else levels)
        most = int(levels.max(initial=0))
        if not known and scale == PNG_PER_M and 0 < most <= LEAST_PLAUSIBLE_MAX:
            raise InputError(
                f"{path}: read as 1/{scale:g} m, no depth is above {most / scale:.2f} m; if its values are metres, give --depth_scale 1 "
                f"(else write 'depth: {{scale: {scale:g}}}' into {FILE_NAME})"
            )
        return clean_metres(levels / np.float32(scale))

    def assumes_depth_scale(self, ref: FrameRef) -> bool:
        """Whether the frame's depth is integers whose unit is not given."""
        path = self.depth_source(ref)
        if path is None or self._says_depth_scale(ref.folder):
            return False
        return bool(np.issubdtype(read_depth_values(path).dtype, np.integer))

    def _says_depth_scale(self, folder: str) -> bool:
        return self.depth_scale is not None or self._depth_scale(folder)[1]

    def _depth_scale(self, folder: str) -> tuple[float, bool]:
        """Units of a depth PNG per metre, and whether ``calibration.yaml`` gives them; 256 where neither it nor an option does.

        ``InputError`` where no option does and that file cannot be read.
        """
        if self.depth_scale is not None:
            return self.depth_scale, False
        try:
            calibration = self.calibration(folder)
        except InputError as error:  # which may say it: another unit would only make other numbers
            raise InputError(f"{error}; that file may hold the unit of depth, too, which --depth_scale gives as well") from error
        if calibration is not None and calibration.depth_scale is not None:
            return calibration.depth_scale, True
        return PNG_PER_M, False

    # What is read from the disk.

    def _timeline(self, folder: str) -> Timeline:
        return Timeline.read({side: self.image_folder(folder, side) for side in "lr"}, partial(self.frame_name, folder))

    def _calibration(self, folder: str) -> Calibration | None:
        """The calibration of the sequence, else of the whole dataset; None where there is none."""
        for path in (self.sequence_folder(folder) / FILE_NAME, self.data_path / FILE_NAME):
            if path.is_file():
                return read_calibration(path, partial(self._native_size, folder, "l"))
        return None

    def _other_camera_files(self, folder: str) -> str:
        """The YAML files that lie in the sequence or above it, for the message that ``calibration.yaml`` is missing."""
        own = self.sequence_folder(folder)
        places = [own, *(above for above in own.parents if above.is_relative_to(self.data_path))]
        found = [self.relative(path) for place in places for path in sorted(place.glob("*.y*ml")) if path.is_file()]
        return f"; {some(found)} is there: if it holds this camera, copy it to {self.relative(own / FILE_NAME)}" if found else ""

    def _read_native_size(self, folder: str, side: str) -> tuple[int, int]:
        """(height, width) of a camera's first image, as it is seen upright."""
        names = self.timeline(folder).files[side]
        if not names:
            raise InputError(f"{self.image_folder(folder, side)} holds no image, whose size the intrinsics in the split's lines are for")
        return picture_size_px(self.image_folder(folder, side) / next(iter(names.values())))

    @cached_property
    def _reference_baseline_m(self) -> float | None:
        """The dataset's own baseline, else that of the first sequence that has one."""
        places = (place for depth in range(MAX_DEPTH) for place in sorted(self.data_path.glob("*/" * depth + FILE_NAME)))
        baselines = (self._baseline_m(place) for place in places)
        return next((baseline_m for baseline_m in baselines if baseline_m is not None), None)

    def _baseline_m(self, path: Path) -> float | None:
        """The distance of the cameras that a file of the dataset says."""
        folder = as_token(path.parent.relative_to(self.data_path).as_posix()) if path.parent != self.data_path else self.sequences()[0]
        return read_calibration(path, partial(self._native_size, folder, "l")).baseline_m

    def _has_images(self, folder: str) -> bool:
        return any(True for _ in image_names(self.image_folder(folder, "l")))


def frame_of(ref: FrameRef) -> str:
    """The frame's name on disk."""
    assert ref.name is not None, "a reference of another dataset"
    return as_name(ref.name)
