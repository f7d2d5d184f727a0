"""The published self-supervised objective: from what the networks predict for a batch to the loss."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dataload.batch import Batch
from engine import geometry
from engine.loss import terms
from engine.loss.constants import TIE_BREAK_NOISE
from engine.loss.launching import runs_triton
from engine.loss.noise import sample_seeds
from engine.networks.pose import Motion
from engine.options import LossConfig, ModelConfig

# Where the fused losses run; on "meta" they are only counted.
FUSED_DEVICES = ("cuda", "meta")
# Looked up here: torch's compiler cannot trace the search for a module, and would leave the whole step uncompiled.
HAS_TRITON = find_spec("triton") is not None
# Warped pixels worked on together on a CPU: some ten images of this size, in fp32 with three channels, fit a cache of 32 MB.
CHUNK_PIXELS = 250_000


class LossTerms(NamedTuple):
    """The loss to minimise, and its terms per scale in the order of ``scales`` (for logs: without gradient); scalars."""

    loss: Tensor
    per_scale: tuple[Tensor, ...]


class Predictions(NamedTuple):
    """What the networks predict for one batch, theirs or others: ``Predictions({0: disp})`` for stereo pairs and one scale.

    Attributes:
        disps: by scale s, disp (B, 1, H / 2^s, W / 2^s) in (0, 1), fp32; every scale of ``ModelConfig.scales``.
        masks: by scale, (B, S, h, w); empty without a predictive mask.
        motions: per temporal source, axis-angle and translation, (B, 3) each, of T_source_target; but of an earlier frame of
            T_target_source, as networks that see pairs in temporal order give it: the objective inverts it. With
            ``pose_model_input="all"`` nothing is inverted. Empty without temporal sources.
    """

    disps: Mapping[int, Tensor]
    masks: Mapping[int, Tensor] = MappingProxyType({})
    motions: Sequence[Motion] = ()

    def samples(self, part: slice) -> "Predictions":
        """Those of these samples; views."""
        disps, masks = ({scale: of_all[part] for scale, of_all in kind.items()} for kind in (self.disps, self.masks))
        return Predictions(disps, masks, [(axisangle[part], translation[part]) for axisangle, translation in self.motions])


class _Level(NamedTuple):
    """What the losses of one pyramid level share."""

    K: Tensor
    target: terms.Target
    sources: Tensor
    identity: Tensor | None


class ScaleResult(NamedTuple):
    """One scale's loss, its warped sources (B, S, 3, H, W) and the automask (B, H, W), None when off."""

    loss: Tensor
    warped: Tensor
    used: Tensor | None


class Objective:
    """The published self-supervised objective: how well the predictions make the sources look like the target.

    Args:
        frame_ids: offsets of the frames in the batches, the target's 0 first.
        use_stereo: whether the target's other camera is the last source.
        model: scales, range of the depth conversion and what the pose network's answers mean; as published by default.
        loss: the switches of the loss; as published by default.
        noise: standard deviation of the tie-break of the automask.
    """

    def __init__(
        self,
        *,
        frame_ids: Sequence[int],
        use_stereo: bool,
        model: ModelConfig = ModelConfig(),
        loss: LossConfig = LossConfig(),
        noise: float = TIE_BREAK_NOISE,
    ) -> None:
        self.temporal_ids = tuple(frame_ids)[1:]
        self.use_stereo = use_stereo
        self.scales = model.scales
        self.depth_range = model.min_depth, model.max_depth
        self.switches = loss
        self.translation_in_inv_depth = model.pose_model_type == "posecnn"
        self.invert_backward = model.pose_model_input == "pairs"
        self.noise = noise

    def __call__(self, predictions: Predictions, batch: Batch, noise_seed: Tensor | None = None) -> LossTerms:
        """The losses of one batch, differentiable with respect to ``predictions``.

        ``noise_seed``, an int64 scalar on the device, seeds the tie-break's noise together with ``batch.indices``; 0 when left out.
        """
        with torch.autocast(batch.K.device.type, enabled=False):
            if self.fuses(batch.K.device):
                per_scale = self._fused_losses(predictions, batch, noise_seed)
                return LossTerms(per_scale.mean(), per_scale.detach().unbind())
            if batch.K.device.type == "cpu" and not torch.compiler.is_compiling():
                transforms = self.transforms_by_scale(predictions, batch)
                maps = self.maps_of(predictions)
                loss, per_scale = _ByChunk.apply(self, batch, noise_seed, torch.is_grad_enabled(), *transforms, *maps)
                return LossTerms(loss, per_scale.unbind())
            per_scale = torch.stack([result.loss for result in self.results(predictions, batch, noise_seed).values()])
            return LossTerms(per_scale.mean(), per_scale.detach().unbind())

    def fuses(self, device: torch.device) -> bool:
        """Whether the Triton kernels compute the losses: on a GPU that runs them, with any switches but the predictive mask."""
        return device.type in FUSED_DEVICES and not self.switches.predictive_mask and runs_triton(device) and HAS_TRITON

    def _fused_losses(self, predictions: Predictions, batch: Batch, noise_seed: Tensor | None) -> Tensor:
        """The loss of each scale, (N,), by ``photometric_triton``."""
        # Imported here: machines without a GPU need no Triton.
        from engine.loss import photometric_triton

        seeds = sample_seeds(noise_seed, batch.indices)
        options = {"ssim": self.switches.ssim, "average": self.switches.avg_reprojection}
        low, high = self.depth_range
        transforms = dict(zip(self.scales, self.transforms_by_scale(predictions, batch), strict=True))
        photometric = []
        for scales in [(scale,) for scale in self.scales] if self.switches.v1_multiscale else [self.scales]:
            level = scales[0] if self.switches.v1_multiscale else 0
            target, sources = photometric_triton.pack(batch.target[level]), photometric_triton.pack(batch.sources[level])
            K = geometry.K_at_level(batch.K.float(), level)
            motions = geometry.pixel_motions(K, torch.stack([transforms[scale] for scale in scales]))
            disps = [predictions.disps[scale] for scale in scales]
            identity = (
                photometric_triton.identity_loss(target, sources, seeds, noise=self.noise, **options) if self.switches.automask else None
            )
            photometric.append(
                photometric_triton.photometric(disps, motions, target, sources, identity, min_depth=low, max_depth=high, **options)
            )
        images, largest = [batch.target[scale] for scale in self.scales], min(self.scales)
        disps = [predictions.disps[scale] for scale in self.scales]
        smooth = photometric_triton.smoothness(disps, images, weight=self.switches.disparity_smoothness / 2**largest)
        return torch.cat(photometric) + smooth

    def results(self, predictions: Predictions, batch: Batch, noise_seed: Tensor | None = None) -> dict[int, ScaleResult]:
        """The result of each scale, in the order of ``scales``.

        Args:
            predictions: of the networks, for the batch.
            batch: images (uint8) and cameras.
            noise_seed: of the tie-break's noise, an int64 scalar on the device; 0 when left out.
        """
        with torch.autocast(batch.K.device.type, enabled=False):
            levels, transforms = self.levels(batch, noise_seed), self.transforms_by_scale(predictions, batch)
            return {
                scale: self.scale_result(scale, predictions, T, levels, batch) for scale, T in zip(self.scales, transforms, strict=True)
            }

    def levels(self, batch: Batch, noise_seed: Tensor | None) -> dict[int, _Level]:
        """What does not depend on the predictions, by pyramid level.

        Args:
            batch: images (uint8) and cameras.
            noise_seed: of the automask's tie-break, an int64 scalar on the device; None is 0.
        """
        return {number: self._level(batch, number, noise_seed) for number in (self.scales if self.switches.v1_multiscale else (0,))}

    @torch.no_grad()
    def _level(self, batch: Batch, number: int, noise_seed: Tensor | None) -> _Level:
        sources = to_unit(batch.sources[number].contiguous())
        target = terms.prepare_target(to_unit(batch.target[number].contiguous())[:, None], use_ssim=self.switches.ssim)
        identity = None
        if self.switches.automask:
            unmoved = terms.reduce_sources(terms.photometric(sources, target), average=self.switches.avg_reprojection)
            identity = terms.tie_break(unmoved, sample_seeds(noise_seed, batch.indices), self.noise)
        return _Level(geometry.K_at_level(batch.K.float(), number), target, sources, identity)

    def scale_result(self, scale: int, predictions: Predictions, T: Tensor, levels: dict[int, _Level], batch: Batch) -> ScaleResult:
        """Loss, warped sources and automask of one scale, from its disps and masks and T_source_target (B, S, 4, 4).

        Args:
            scale: 0 for the full size, each further one half of the one before.
            predictions: of the networks, for the batch.
            T: T_source_target (B, S, 4, 4).
            levels: what ``levels`` gives of the batch.
            batch: images (uint8) and cameras.
        """
        level = levels[scale if self.switches.v1_multiscale else 0]
        size_px = level.sources.shape[-2:]
        disp = predictions.disps[scale]
        _, depth = geometry.disp_to_depth(resize_to(disp, size_px), *self.depth_range)
        grids = geometry.sampling_grids(depth, level.K, T)
        warped = geometry.warp(level.sources.flatten(0, 1), grids.flatten(0, 1)).unflatten(0, level.sources.shape[:2])
        reprojection = terms.photometric(warped, level.target)
        extra = []
        if self.switches.predictive_mask:
            mask = resize_to(predictions.masks[scale], size_px)
            reprojection = reprojection * mask
            extra.append(terms.mask_loss(mask))
        reprojection = terms.reduce_sources(reprojection, average=self.switches.avg_reprojection)
        used = None
        if level.identity is not None:
            reprojection, used = terms.automask(reprojection, level.identity)
        smooth = terms.smoothness(disp, to_unit(batch.target[scale].contiguous()))
        return ScaleResult(sum(extra, reprojection.mean() + self.switches.disparity_smoothness / 2**scale * smooth), warped, used)

    def transforms_by_scale(self, predictions: Predictions, batch: Batch) -> list[Tensor]:
        """T_source_target (B, S, 4, 4) in the order of ``scales``: one tensor for all where they do not depend on the depth.

        Args:
            predictions: of the networks, for the batch.
            batch: images (uint8) and cameras.
        """
        if not self.translation_in_inv_depth:
            return [self.transforms(predictions.motions, None, batch)] * len(self.scales)
        result = []
        for scale in self.scales:
            size_px = batch.sources[scale if self.switches.v1_multiscale else 0].shape[-2:]
            inv_depth, _ = geometry.disp_to_depth(resize_to(predictions.disps[scale], size_px), *self.depth_range)
            result.append(self.transforms(predictions.motions, inv_depth, batch))
        return result

    def transforms(self, motions: Sequence[Motion], inv_depth: Tensor | None, batch: Batch) -> Tensor:
        """T_source_target (B, S, 4, 4), the other camera last; ``inv_depth`` (B, 1, H, W) is read where translations are in its unit.

        Args:
            motions: of the pose network, for each neighbour in time.
            inv_depth: (B, 1, H, W), in 1 over the network's unit.
            batch: brings the other camera's transform.
        """
        transforms = []
        if motions:
            axisangles, translations = zip(*motions, strict=True)
            if self.translation_in_inv_depth:
                assert inv_depth is not None
                # This network has no encoder that sees the scene's scale; its translations are in units of the mean inverse depth.
                unit = inv_depth.mean(dim=(2, 3))
                translations = tuple(translation * unit for translation in translations)
            inverted = [self.invert_backward and offset < 0 for offset in self.temporal_ids]
            transforms.append(geometry.transforms_from_axisangles(axisangles, translations, inverted))
        if self.use_stereo:
            transforms.append(batch.T_stereo.float()[:, None])
        return torch.cat(transforms, dim=1)

    def maps_of(self, predictions: Predictions) -> list[Tensor]:
        """The disps and masks, in a fixed order."""
        return [kind[scale] for kind in (predictions.disps, predictions.masks) if kind for scale in self.scales]

    def with_maps(self, maps: Sequence[Tensor]) -> Predictions:
        """The inverse of ``maps_of``, without motions."""
        rest = iter(maps)
        disps = {scale: next(rest) for scale in self.scales}
        masks = {scale: next(rest) for scale in self.scales} if self.switches.predictive_mask else {}
        return Predictions(disps, masks, [])


class _ByChunk(torch.autograd.Function):
    """The objective for a few samples and one scale at a time, with its gradients taken at once.

    On a CPU the losses are bound by memory traffic: a batch's intermediate images go through main memory many times, a chunk's stay
    in the cache. The gradients are kept instead of the intermediates, so memory grows with neither batch nor scales.
    """

    @staticmethod
    def forward(
        ctx: Any, objective: Objective, batch: Batch, noise_seed: Tensor | None, with_gradient: bool, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The mean loss (differentiable) and the losses per scale (not) over all samples, from the transforms per scale and all maps."""
        num_samples, num_scales = len(batch.K), len(objective.scales)
        per_scale = torch.zeros(num_scales)
        gradients = [torch.empty_like(tensor) for tensor in tensors]
        for part in _chunks(batch):
            chunk = batch.samples(part)
            share = len(chunk.K) / num_samples
            leaves = [tensor[part].detach().requires_grad_(with_gradient) for tensor in tensors]
            levels = objective.levels(chunk, noise_seed)
            predictions = objective.with_maps(leaves[num_scales:])
            for position, (scale, T) in enumerate(zip(objective.scales, leaves, strict=False)):
                with torch.set_grad_enabled(with_gradient):
                    loss = objective.scale_result(scale, predictions, T, levels, chunk).loss
                    if with_gradient:
                        (loss * (share / num_scales)).backward()
                per_scale[position] += loss.detach() * share
            if with_gradient:
                for gradient, leaf in zip(gradients, leaves, strict=True):
                    assert leaf.grad is not None
                    gradient[part] = leaf.grad
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(per_scale)
        return per_scale.mean(), per_scale

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The kept gradients of the mean loss."""
        return (None, None, None, None, *(upstream[0] * gradient for gradient in ctx.saved_tensors))


def _chunks(batch: Batch) -> list[slice]:
    """Slices of samples whose sources hold about ``CHUNK_PIXELS`` pixels each."""
    _, num_sources, _, height_px, width_px = batch.sources[0].shape
    size = max(1, CHUNK_PIXELS // (num_sources * height_px * width_px))
    return [slice(start, start + size) for start in range(0, len(batch.K), size)]


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as fp32 in [0, 1], where they lie."""
    return images / 255.0


def resize_to(x: Tensor, size_px: Sequence[int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) fp32 to (B, C, *size_px), pixel areas aligned; untouched when it has that size."""
    return x if tuple(x.shape[-2:]) == tuple(size_px) else F.interpolate(x, tuple(size_px), mode="bilinear", align_corners=False)
