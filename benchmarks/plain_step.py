"""A training step as Monodepth2 is commonly written: the yardstick of ``bench_step``, and a second implementation for its tests.

Everything in fp32 and planar layout; networks one operator after the other; 4x4 intrinsics; points formed and projected by matrix
products, each scale for itself; every SSIM computes both images' statistics again; the unmoved sources are compared with the target at each
scale again.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from dataload.batch import Batch
from engine.loss.objective import Predictions
from engine.networks import Networks
from engine.networks.depth_decoder import Conv3x3
from engine.networks.pose import Motion


class PlainInputs(NamedTuple):
    """What a plain loader ships: fp32 images in [0, 1], intrinsics and their inverses per scale as 4x4 matrices."""

    target: list[Tensor]
    sources: list[Tensor]
    target_input: Tensor
    source_inputs: list[Tensor]
    K: list[Tensor]
    K_inv: list[Tensor]
    T_stereo: Tensor


def plain_inputs(batch: Batch) -> PlainInputs:
    """The same samples as ``batch``, as the plain step reads them."""
    K = []
    for level in range(len(batch.target)):
        scaled = torch.eye(4, device=batch.K.device).repeat(len(batch.K), 1, 1)
        scaled[:, :3, :3] = batch.K
        scaled[:, :2, :3] /= 2**level
        K.append(scaled)
    return PlainInputs(
        target=[(level / 255.0).contiguous() for level in batch.target],
        sources=[(source / 255.0).contiguous() for source in batch.sources[0].unbind(1)],
        target_input=(batch.target_input / 255.0).contiguous(),
        source_inputs=[(source / 255.0).contiguous() for source in batch.source_inputs.unbind(1)],
        K=K,
        K_inv=[torch.linalg.inv(scaled) for scaled in K],
        T_stereo=batch.T_stereo,
    )


class PlainDepth(nn.Module):
    """Disparities from an image by the weights of ``networks``."""

    def __init__(self, networks: Networks) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        """By scale (B, 1, h, w) from (B, 3, H, W)."""
        decoder = self.networks.depth
        features = plain_features(self.networks.encoder.encoder, image)
        disps: dict[int, Tensor] = {}
        x = features[-1]
        for stage in reversed(range(5)):
            before, after = decoder.decoder[8 - 2 * stage].conv, decoder.decoder[9 - 2 * stage].conv
            x = F.interpolate(F.elu(self.convolve(before, x), inplace=True), scale_factor=2, mode="nearest")
            if stage > 0:
                x = torch.cat([x, features[stage - 1]], dim=1)
            x = F.elu(self.convolve(after, x), inplace=True)
            if stage in decoder.scales:
                disps[stage] = torch.sigmoid(self.convolve(decoder.heads[decoder.scales.index(stage)], x).float())
        return disps

    @staticmethod
    def convolve(block: Conv3x3, x: Tensor) -> Tensor:
        """The block's convolution on a reflected border."""
        return block.conv(F.pad(x, (1, 1, 1, 1), mode="reflect"))


def plain_features(net: ResNet, images: Tensor) -> list[Tensor]:
    """Five feature maps of images (B, C, H, W) in [0, 1], the finest first."""
    if net.training:
        # As torch's BatchNorm does, each for itself; the encoders' own leaves it to them.
        for norm in net.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.num_batches_tracked.add_(1)
    features = [net.relu(net.bn1(net.conv1((images - 0.45) / 0.225)))]
    features.append(net.layer1(net.maxpool(features[-1])))
    for layer in (net.layer2, net.layer3, net.layer4):
        features.append(layer(features[-1]))
    return features


class Backproject(nn.Module):
    """Homogeneous points (B, 4, H W) from a depth map, for one batch size and image size."""

    pixels: Tensor
    ones: Tensor

    def __init__(self, batch_size: int, height_px: int, width_px: int) -> None:
        super().__init__()
        y, x = torch.meshgrid(torch.arange(height_px), torch.arange(width_px), indexing="ij")
        pixels = torch.stack([x.flatten(), y.flatten(), torch.ones(height_px * width_px)]).float()
        self.register_buffer("pixels", pixels.repeat(batch_size, 1, 1))
        self.register_buffer("ones", torch.ones(batch_size, 1, height_px * width_px))

    def forward(self, depth: Tensor, K_inv: Tensor) -> Tensor:
        """Depth (B, 1, H, W) and K_inv (B, 4, 4) to (B, 4, H W)."""
        points = depth.flatten(2) * torch.matmul(K_inv[:, :3, :3], self.pixels)
        return torch.cat([points, self.ones], dim=1)


class Project(nn.Module):
    """Sampling grid (B, H, W, 2) of points seen by another camera."""

    def __init__(self, height_px: int, width_px: int) -> None:
        super().__init__()
        self.height_px, self.width_px = height_px, width_px

    def forward(self, points: Tensor, K: Tensor, T: Tensor) -> Tensor:
        """Points (B, 4, H W), K and T (B, 4, 4)."""
        seen = torch.matmul(torch.matmul(K, T)[:, :3], points)
        pixels = (seen[:, :2] / (seen[:, 2:] + 1e-7)).unflatten(2, (self.height_px, self.width_px)).permute(0, 2, 3, 1)
        span = torch.tensor([self.width_px - 1, self.height_px - 1], device=points.device)
        return (pixels / span - 0.5) * 2


class Dissimilarity(nn.Module):
    """clamp((1 - SSIM) / 2) with all statistics of both images."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.pool = nn.AvgPool2d(3, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, 3, H, W) each, to the same shape."""
        x, y = self.pad(x), self.pad(y)
        mean_x, mean_y = self.pool(x), self.pool(y)
        variance_x = self.pool(x**2) - mean_x**2
        variance_y = self.pool(y**2) - mean_y**2
        covariance = self.pool(x * y) - mean_x * mean_y
        numerator = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
        denominator = (mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)
        return torch.clamp((1 - numerator / denominator) / 2, 0, 1)


class PlainStep(nn.Module):
    """Loss of the default objective (pairs of frames, separate pose encoder, automask) for one batch and image size."""

    def __init__(
        self,
        networks: Networks,
        *,
        batch_size: int,
        size_px: tuple[int, int],
        frame_ids: Sequence[int] = (0, -1, 1),
        use_stereo: bool = False,
        noise: float = 1e-5,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.networks, self.autocast_dtype = networks, autocast_dtype
        self.depth = PlainDepth(networks)
        self.frame_ids, self.use_stereo, self.noise = tuple(frame_ids), use_stereo, noise
        self.scales = networks.depth.scales
        self.backproject = nn.ModuleList([Backproject(batch_size, *size_px) for _ in self.scales])
        self.project = nn.ModuleList([Project(*size_px) for _ in self.scales])
        self.dissimilarity = Dissimilarity()

    def forward(self, inputs: PlainInputs) -> Tensor:
        """The mean loss over scales."""
        return self.loss(self.predict(inputs), inputs)

    def predict(self, inputs: PlainInputs) -> Predictions:
        """The networks' outputs; only the networks run under ``autocast_dtype``."""
        device_type = inputs.target_input.device.type
        with torch.autocast(device_type, self.autocast_dtype) if self.autocast_dtype else nullcontext():
            return Predictions(self.depth(inputs.target_input), {}, self.motions(inputs))

    def loss(self, predictions: Predictions, inputs: PlainInputs) -> Tensor:
        """The mean loss over scales of ready predictions."""
        disps, transforms = predictions.disps, self.transforms(predictions.motions, inputs)
        total = torch.zeros((), device=inputs.target_input.device)
        for position, scale in enumerate(self.scales):
            disp = F.interpolate(disps[scale], inputs.target[0].shape[-2:], mode="bilinear", align_corners=False)
            depth = 1 / (0.01 + (10.0 - 0.01) * disp)
            warped = []
            for source, T in zip(inputs.sources, transforms, strict=True):
                points = self.backproject[position](depth, inputs.K_inv[0])
                grid = self.project[position](points, inputs.K[0], T)
                warped.append(F.grid_sample(source, grid, padding_mode="border", align_corners=True))
            total = total + self.scale_loss(scale, disps[scale], warped, inputs)
        return total / len(self.scales)

    def scale_loss(self, scale: int, disp: Tensor, warped: list[Tensor], inputs: PlainInputs) -> Tensor:
        """Minimum over unmoved and warped sources, plus smoothness."""
        target = inputs.target[0]
        identity = torch.cat([self.compare(source, target) for source in inputs.sources], dim=1)
        identity = identity + self.noise * torch.randn(identity.shape, device=identity.device)
        reprojection = torch.cat([self.compare(image, target) for image in warped], dim=1)
        loss = torch.min(torch.cat([identity, reprojection], dim=1), dim=1).values.mean()
        normalised = disp / (disp.mean(2, True).mean(3, True) + 1e-7)
        return loss + 1e-3 * smoothness(normalised, inputs.target[scale]) / 2**scale

    def compare(self, pred: Tensor, target: Tensor) -> Tensor:
        """Photometric error (B, 1, H, W)."""
        difference = torch.abs(target - pred).mean(1, True)
        return 0.85 * self.dissimilarity(pred, target).mean(1, True) + 0.15 * difference

    def motions(self, inputs: PlainInputs) -> list[Motion]:
        """Axis-angle and translation (B, 3) per neighbour, each pair in temporal order."""
        result = []
        for frame_id, source in zip(self.frame_ids[1:], inputs.source_inputs, strict=True):
            pair = [source, inputs.target_input] if frame_id < 0 else [inputs.target_input, source]
            axisangle, translation = self.networks.pose(plain_features(self.networks.pose_encoder.encoder, torch.cat(pair, 1))[-1:])
            result.append((axisangle[:, 0], translation[:, 0]))
        return result

    def transforms(self, motions: Sequence[Motion], inputs: PlainInputs) -> list[Tensor]:
        """T_source_target (B, 4, 4) per source, the other camera last."""
        result = [
            transform(axisangle, translation, invert=frame_id < 0)
            for frame_id, (axisangle, translation) in zip(self.frame_ids[1:], motions, strict=True)
        ]
        return [*result, inputs.T_stereo] if self.use_stereo else result


def transform(axisangle: Tensor, translation: Tensor, *, invert: bool) -> Tensor:
    """4x4 transforms as a product of a rotation and a translation matrix."""
    eye = torch.eye(4, device=axisangle.device)
    R, shift = eye.repeat(len(axisangle), 1, 1), eye.repeat(len(axisangle), 1, 1)
    angle = axisangle.norm(dim=1)[:, None, None]
    x, y, z = (axisangle / (angle[:, 0] + 1e-7)).unbind(1)
    o = torch.zeros_like(x)
    skew = torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=1).view(-1, 3, 3)
    axis = torch.stack([x, y, z], dim=1)[:, :, None]
    R[:, :3, :3] = angle.cos() * eye[:3, :3] + angle.sin() * skew + (1 - angle.cos()) * torch.matmul(axis, axis.transpose(1, 2))
    shift[:, :3, 3] = -translation if invert else translation
    return torch.matmul(R.transpose(1, 2), shift) if invert else torch.matmul(shift, R)


def smoothness(disp: Tensor, image: Tensor) -> Tensor:
    """Mean disparity gradient, less where the image has one."""
    disp_x, disp_y = torch.abs(disp[..., :-1] - disp[..., 1:]), torch.abs(disp[..., :-1, :] - disp[..., 1:, :])
    image_x = torch.abs(image[..., :-1] - image[..., 1:]).mean(1, True)
    image_y = torch.abs(image[..., :-1, :] - image[..., 1:, :]).mean(1, True)
    return (disp_x * torch.exp(-image_x)).mean() + (disp_y * torch.exp(-image_y)).mean()
