"""One training step from a batch to its losses: the unit that is compiled."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataload.batch import Batch
from engine import geometry, losses
from engine.networks import Networks
from engine.networks.encoder import stack_images
from engine.networks.pose import Motion
from splits.errors import InputError


class LossTerms(NamedTuple):
    """The loss to minimise and its terms a scale, in the order of ``scales``; scalars on the device."""

    loss: Tensor
    per_scale: tuple[Tensor, ...]


class StepPictures(NamedTuple):
    """What a step saw, for looking at; by scale. Values in [0, 1].

    Attributes:
        disps: (B, 1, h, w) each.
        warped: sources warped into the target by the finest scale's depth, (B, S, 3, H, W).
        automask: (B, H, W) each, 1 where a pixel is used; None when off.
        predictive_mask: (B, S, h, w) each; None when off.
    """

    disps: dict[int, Tensor]
    warped: Tensor
    automask: dict[int, Tensor] | None
    predictive_mask: dict[int, Tensor] | None


class Predictions(NamedTuple):
    """What the networks say of one batch.

    Attributes:
        disps: by scale, (B, 1, h, w).
        masks: by scale, (B, S, h, w); empty without a predictive mask.
        motions: axis-angle and translation, (B, 3) each, a temporal source, as predicted: not yet inverted.
    """

    disps: dict[int, Tensor]
    masks: dict[int, Tensor]
    motions: list[Motion]


class _Level(NamedTuple):
    """What the losses of one pyramid level share."""

    K: Tensor
    target: losses.Target
    sources: Tensor
    identity: Tensor | None


class ScaleResult(NamedTuple):
    """One scale's loss, its warped sources (B, S, 3, H, W) and the automask (B, H, W), None when off."""

    loss: Tensor
    warped: Tensor
    used: Tensor | None


class Objective:
    """The published self-supervised objective: how well the predictions make the sources look like the target.

    Args: as for ``TrainStep``.
    """

    def __init__(
        self,
        *,
        frame_ids: Sequence[int],
        use_stereo: bool,
        scales: Sequence[int] = (0, 1, 2, 3),
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        disparity_smoothness: float = 1e-3,
        ssim: bool = True,
        automask: bool = True,
        avg_reprojection: bool = False,
        v1_multiscale: bool = False,
        predictive_mask: bool = False,
        pose_model_type: str = "separate_resnet",
        pose_model_input: str = "pairs",
        noise: float = losses.TIE_BREAK_NOISE,
    ) -> None:
        if predictive_mask and automask:
            raise InputError("predictive_mask replaces automasking and cannot be combined with it; add --disable_automasking")
        self.temporal_ids = tuple(frame_ids)[1:]
        self.use_stereo = use_stereo
        self.scales = tuple(scales)
        self.min_depth, self.max_depth = min_depth, max_depth
        self.disparity_smoothness = disparity_smoothness
        self.ssim, self.automask, self.avg_reprojection = ssim, automask, avg_reprojection
        self.v1_multiscale, self.predictive_mask = v1_multiscale, predictive_mask
        self.translation_in_inv_depth = pose_model_type == "posecnn"
        self.invert_backward = pose_model_input == "pairs"
        self.noise = noise

    def __call__(self, predictions: Predictions, batch: Batch) -> dict[int, ScaleResult]:
        """The result of each scale, in the order of ``scales``, with ``batch``'s recorded images."""
        with torch.autocast(batch.K.device.type, enabled=False):
            levels = {number: self._level(batch, number) for number in (self.scales if self.v1_multiscale else (0,))}
            return {scale: self._scale(scale, predictions, levels[scale if self.v1_multiscale else 0], batch) for scale in self.scales}

    @torch.no_grad()
    def _level(self, batch: Batch, number: int) -> _Level:
        sources = to_unit(batch.sources[number].contiguous())
        target = losses.prepare_target(to_unit(batch.target[number].contiguous())[:, None], use_ssim=self.ssim)
        identity = None
        if self.automask:
            unmoved = losses.photometric(sources, target)
            identity = losses.tie_break(losses.reduce_sources(unmoved, average=self.avg_reprojection), self.noise)
        return _Level(geometry.K_at_level(batch.K.float(), number), target, sources, identity)

    def _scale(self, scale: int, predictions: Predictions, level: _Level, batch: Batch) -> ScaleResult:
        size_px = level.sources.shape[-2:]
        disp = predictions.disps[scale]
        inv_depth, depth = geometry.disp_to_depth(resize_to(disp, size_px), self.min_depth, self.max_depth)
        grids = geometry.sampling_grids(depth, level.K, self._transforms(predictions.motions, inv_depth, batch))
        warped = geometry.warp(level.sources.flatten(0, 1), grids.flatten(0, 1)).unflatten(0, level.sources.shape[:2])
        reprojection = losses.photometric(warped, level.target)
        extra = []
        if self.predictive_mask:
            mask = resize_to(predictions.masks[scale], size_px)
            reprojection = reprojection * mask
            extra.append(losses.mask_loss(mask))
        reprojection = losses.reduce_sources(reprojection, average=self.avg_reprojection)
        used = None
        if level.identity is not None:
            reprojection, used = losses.automask(reprojection, level.identity)
        smooth = losses.smoothness(disp, to_unit(batch.target[scale].contiguous()))
        return ScaleResult(sum(extra, reprojection.mean() + self.disparity_smoothness / 2**scale * smooth), warped, used)

    def _transforms(self, motions: list[Motion], inv_depth: Tensor, batch: Batch) -> Tensor:
        """T_source_target (B, S, 4, 4), the other camera last."""
        transforms = []
        for offset, (axisangle, translation) in zip(self.temporal_ids, motions, strict=True):
            if self.translation_in_inv_depth:
                # This network has no encoder to judge the scene's scale by; its translations are in units of the mean inverse depth.
                translation = translation * inv_depth.mean(dim=(2, 3))
            transforms.append(geometry.transform_from_axisangle(axisangle, translation, invert=self.invert_backward and offset < 0))
        if self.use_stereo:
            transforms.append(batch.T_stereo.float())
        return torch.stack(transforms, dim=1)


class TrainStep(nn.Module):
    """Networks and objective: from a batch to its losses. Only the networks run under autocast.

    Args:
        networks: as made by ``build_networks`` with the same options.
        frame_ids, use_stereo: the sources, as in the batches: ``frame_ids[1:]``, then the other camera.
        scales: scales of the depth decoder that enter the loss.
        min_depth, max_depth: range of the depth conversion, in the network's unit.
        disparity_smoothness: weight of the smoothness term, halved at each coarser scale.
        v1_multiscale: compare each scale at its own resolution instead of at full resolution.
        batch_pose_pairs: one pose forward for all pairs: faster, but BatchNorm then sees all pairs at once.
        autocast_dtype: precision of the networks; None is fp32.
        noise: standard deviation of the tie-break of the automask.

    Raises:
        InputError: ``predictive_mask`` together with ``automask``.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        frame_ids: Sequence[int],
        use_stereo: bool,
        pose_model_type: str = "separate_resnet",
        pose_model_input: str = "pairs",
        batch_pose_pairs: bool = False,
        autocast_dtype: torch.dtype | None = None,
        **objective: Any,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.temporal_ids = tuple(frame_ids)[1:]
        self.pose_model_type = pose_model_type
        self.pairs = pose_model_input == "pairs"
        self.batch_pose_pairs = batch_pose_pairs
        self.autocast_dtype = autocast_dtype
        self.objective = Objective(
            frame_ids=frame_ids, use_stereo=use_stereo, pose_model_type=pose_model_type, pose_model_input=pose_model_input, **objective
        )

    def forward(self, batch: Batch) -> LossTerms:
        """The losses of one batch, differentiable with respect to the networks' parameters."""
        results = self.objective(self.predict(batch), batch)
        per_scale = tuple(result.loss for result in results.values())
        return LossTerms(torch.stack(per_scale).mean(), per_scale)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> StepPictures:
        """What a step on ``batch`` sees, with the networks in eval mode for the while."""
        was_training = self.training
        self.eval()
        try:
            predictions = self.predict(batch)
        finally:
            self.train(was_training)
        results = self.objective(predictions, batch)
        used = {scale: result.used for scale, result in results.items() if result.used is not None}
        return StepPictures(predictions.disps, results[min(results)].warped, used or None, predictions.masks or None)

    def _autocast(self, device_type: str) -> AbstractContextManager[None]:
        return torch.autocast(device_type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def predict(self, batch: Batch) -> Predictions:
        """The networks' answers, disps and motions in fp32."""
        target = to_unit(batch.target_input)
        sources = list(to_unit(batch.source_inputs).unbind(dim=1)) if self.temporal_ids else []
        with self._autocast(target.device.type):
            if self.pose_model_type == "shared" and sources:
                stacked = self.networks.encoder(torch.cat([target, *sources]))
                by_frame = list(zip(*(feature.chunk(1 + len(sources)) for feature in stacked), strict=True))
                features, frames = list(by_frame[0]), [feature[-1] for feature in by_frame]
            else:
                features, frames = self.networks.encoder(target), [target, *sources]
            disps = self.networks.depth(features)
            masks = self.networks.predictive_mask(features) if self.objective.predictive_mask else {}
            motions = self._motions(frames) if sources else []
        return Predictions(disps, masks, motions)

    def _motions(self, frames: list[Tensor]) -> list[Motion]:
        """Axis-angle and translation, (B, 3) each, a temporal source; ``frames`` are images, or features of a shared encoder."""
        if not self.pairs:
            axisangle, translation = self._pose(frames)
            return [(axisangle[:, i], translation[:, i]) for i in range(len(self.temporal_ids))]
        target, *sources = frames
        # Always in temporal order, so that the network sees forward motion only.
        pairs = [(source, target) if offset < 0 else (target, source) for offset, source in zip(self.temporal_ids, sources, strict=True)]
        if self.batch_pose_pairs:
            axisangle, translation = self._pose([torch.cat(side) for side in zip(*pairs, strict=True)])
            return list(zip(axisangle[:, 0].chunk(len(pairs)), translation[:, 0].chunk(len(pairs)), strict=True))
        motions = [self._pose(pair) for pair in pairs]
        return [(axisangle[:, 0], translation[:, 0]) for axisangle, translation in motions]

    def _pose(self, frames: Sequence[Tensor]) -> Motion:
        if self.pose_model_type == "shared":
            return self.networks.pose(frames)
        if self.pose_model_type == "posecnn":
            return self.networks.pose(stack_images(frames))
        return self.networks.pose([self.networks.pose_encoder(stack_images(frames))[-1]])


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as fp32 in [0, 1], where they lie."""
    return images / 255.0


def resize_to(x: Tensor, size_px: Sequence[int]) -> Tensor:
    """Bilinear resize of (B, C, h, w) fp32 to (B, C, *size_px), pixel areas aligned; untouched when it has that size."""
    return x if tuple(x.shape[-2:]) == tuple(size_px) else F.interpolate(x, tuple(size_px), mode="bilinear", align_corners=False)
