"""One training step from a batch to its losses: the unit that is compiled."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dataload.batch import Batch
from engine.loss.constants import TIE_BREAK_NOISE
from engine.loss.objective import LossTerms, Objective, Predictions
from engine.networks import Networks
from engine.networks.encoder import stack_images
from engine.networks.pose import Motion
from engine.options import LossConfig, ModelConfig
from engine.precision import cast_together

__all__ = ["LossTerms", "StepPictures", "TrainStep"]


class StepPictures(NamedTuple):
    """What a step saw, for logged pictures; by scale. Values in [0, 1]. B samples were seen, N of them are shown.

    Attributes:
        disps: (B, 1, h, w) each.
        warped: sources warped into the target by the finest scale's depth, (N, S, 3, H, W).
        automask: (N, H, W) each, 1 where a pixel is used; None when off.
        predictive_mask: (N, S, h, w) each; None when off.
    """

    disps: Mapping[int, Tensor]
    warped: Tensor
    automask: Mapping[int, Tensor] | None
    predictive_mask: Mapping[int, Tensor] | None


class TrainStep(nn.Module):
    """Networks and objective: from a batch to its losses. Only the networks run under autocast.

    Args:
        networks: as made by ``build_networks`` with the same options.
        frame_ids: offsets of the frames in the batches, the target's 0 first.
        use_stereo: whether the target's other camera is the last source.
        model: what the networks were built from.
        loss: the switches of the loss.
        autocast_dtype: precision of the networks; None is fp32.
        noise: standard deviation of the tie-break of the automask.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        frame_ids: Sequence[int],
        use_stereo: bool,
        model: ModelConfig,
        loss: LossConfig,
        autocast_dtype: torch.dtype | None = None,
        noise: float = TIE_BREAK_NOISE,
    ) -> None:
        super().__init__()
        self.networks = networks
        # The seed of the tie-break's noise: on the device, so that it may change under a captured step.
        self.noise_seed: Tensor
        self.register_buffer("noise_seed", torch.zeros((), dtype=torch.int64), persistent=False)
        self.temporal_ids = tuple(frame_ids)[1:]
        self.pose_model_type = model.pose_model_type
        self.pairs = model.pose_model_input == "pairs"
        # One forward for all pairs is faster, but BatchNorm then sees all pairs at once.
        self.batch_pose_pairs = model.batch_pose_pairs
        self.autocast_dtype = autocast_dtype
        # What autocast would cast one by one: weights of plain convolutions. Those that compute in fp32 have classes of their own.
        plain = [(name, module) for name, module in networks.named_modules() if type(module) is nn.Conv2d]
        self.halved = tuple(f"{name}.{kind}" for name, module in plain for kind, p in module.named_parameters() if p.requires_grad)
        self.objective = Objective(frame_ids=frame_ids, use_stereo=use_stereo, model=model, loss=loss, noise=noise)

    def cast_where_used(self) -> None:
        """Leave the cast of each weight to autocast, where the weight is used, instead of casting all of them together.

        That is a kernel per weight more. But a weight's gradient is then there before those of weights that are used earlier, and can be
        exchanged with other processes meanwhile.
        """
        self.halved = ()

    def forward(self, batch: Batch) -> LossTerms:
        """The losses of one batch, differentiable with respect to the networks' parameters."""
        return self.objective(self.predict(batch), batch, self.noise_seed)

    @torch.no_grad()
    def pictures(self, batch: Batch, shown: slice = slice(None)) -> StepPictures:
        """What a step sees, the networks in eval mode meanwhile.

        Args:
            batch: images (uint8) and cameras.
            shown: the samples that are warped and masked; disps are of all.
        """
        was_training = self.training
        self.eval()
        try:
            predictions = self.predict(batch)
        finally:
            self.train(was_training)
        part = predictions.samples(shown)
        results = self.objective.results(part, batch.samples(shown))
        used = {scale: result.used for scale, result in results.items() if result.used is not None}
        return StepPictures(predictions.disps, results[min(results)].warped, used or None, part.masks or None)

    def _autocast(self, device_type: str) -> AbstractContextManager[None]:
        return torch.autocast(device_type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def predict(self, batch: Batch) -> Predictions:
        """The networks' answers, disps and motions in fp32."""
        if self.autocast_dtype is None or not self.halved:
            return self._answers(batch)
        weights = dict(self.networks.named_parameters())
        halves = cast_together([weights[name] for name in self.halved], self.autocast_dtype)
        answers: Predictions = torch.func.functional_call(
            self.networks, dict(zip(self.halved, halves, strict=True)), (self._answers, batch)
        )
        return answers

    def _answers(self, batch: Batch) -> Predictions:
        target = batch.target_input
        sources = list(batch.source_inputs.unbind(dim=1)) if self.temporal_ids else []
        with self._autocast(target.device.type):
            if self.pose_model_type == "shared" and sources:
                stacked = self.networks.encoder(torch.cat([target, *sources]))
                by_frame = list(zip(*(feature.chunk(1 + len(sources)) for feature in stacked), strict=True))
                features, frames = list(by_frame[0]), [feature[-1] for feature in by_frame]
            else:
                features, frames = self.networks.encoder(target), [target, *sources]
            disps = self.networks.depth(features)
            masks = self.networks.predictive_mask(features) if self.objective.switches.predictive_mask else {}
            motions = self._motions(frames) if sources else []
        return Predictions(disps, masks, motions)

    def _motions(self, frames: list[Tensor]) -> list[Motion]:
        """Axis-angle and translation, (B, 3) each, per temporal source; ``frames`` are images, or features of a shared encoder."""
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
