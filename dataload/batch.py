"""The contract between loading and training: what a batch holds, in which shapes, dtypes and units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jaxtyping import Float, Int, UInt8
    from torch import Tensor


class Batch(NamedTuple):
    """One training batch; images are uint8 RGB in 0..255, channels_last in memory (views of NHWC).

    B samples of height H and width W; S sources: the T temporal ones in the order of ``frame_ids[1:]``, then the other camera
    if ``use_stereo``. ``level`` s has size (H >> s, W >> s). Everything geometric is already flipped where the image is.

    Attributes:
        target: per level, frame 0 as recorded; what the losses compare with. Levels 0..num_levels-1.
        sources: per level, the sources as recorded, which the warp samples. Levels 0..source_levels-1.
        target_input: frame 0 as the networks see it (colour jittered where the sample's draw says so).
        source_inputs: the temporal sources as the pose network sees them; T may be 0.
        K: pinhole intrinsics in pixels of level 0, pixel centres at whole numbers.
        T_stereo: T_source_target of the other camera, metres divided by the dataset's metric factor; identity without stereo.
        indices: position of each sample in its split list.
    """

    target: tuple[UInt8[Tensor, "B 3 h w"], ...]
    sources: tuple[UInt8[Tensor, "B S 3 h w"], ...]
    target_input: UInt8[Tensor, "B 3 H W"]
    source_inputs: UInt8[Tensor, "B T 3 H W"]
    K: Float[Tensor, "B 3 3"]
    T_stereo: Float[Tensor, "B 4 4"]
    indices: Int[Tensor, " B"]

    def tensors(self) -> list[Tensor]:
        """Every tensor, field by field and level by level."""
        return [*self.target, *self.sources, *self[2:]]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Batch:
        """A batch of as many levels, made of tensors in the order of ``tensors()``."""
        levels, both = len(self.target), len(self.target) + len(self.sources)
        return Batch(tuple(tensors[:levels]), tuple(tensors[levels:both]), *tensors[both:])

    def samples(self, part: slice) -> Batch:
        """These samples as a batch; views."""
        return self.with_tensors([tensor[part] for tensor in self.tensors()])

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch in ``count`` equal parts; views."""
        if count == 1:
            yield self
            return
        size, rest = divmod(len(self.K), count)
        assert rest == 0, f"{len(self.K)} samples in {count} parts"
        for start in range(0, len(self.K), size):
            yield self.samples(slice(start, start + size))
