"""The encoders' BatchNorm: over a process's own batch, or over the batches of all processes of a group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class UncountedNorm(nn.BatchNorm2d):
    """BatchNorm whose encoder counts the batches of all layers at once: layer by layer, that is every tenth operator of a step.

    Attributes:
        group: in training, normalise by the statistics of all its processes' batches, which are of one size; None: of this process's batch.
    """

    group: ProcessGroup | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        momentum = self.momentum or 0.0
        if self.group is None or not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, momentum, self.eps)
        y, mean, variance = _NormOverGroup.apply(x, self.weight, self.bias, self.eps, self.group)
        assert self.running_mean is not None
        assert self.running_var is not None
        count = self.group.size() * x.numel() // len(mean)
        with torch.no_grad():
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        normed: Tensor = y
        return normed


def synchronise_norms(networks: nn.Module, group: ProcessGroup) -> None:
    """From now on every BatchNorm of the encoders is over the batches of all processes of the group, which call it together.

    Args:
        networks: the same in all processes, which give it batches of one size.
        group: on the networks' device: NCCL's for GPUs, gloo's for CPUs.
    """
    for module in networks.modules():
        if isinstance(module, UncountedNorm):
            module.group = group


class _NormOverGroup(torch.autograd.Function):
    """BatchNorm by the statistics of all processes' batches; torch's SyncBatchNorm is for GPUs alone, and leaves a compiled graph.

    With a process's gradient g, x' = (x - mean) / deviation, and means over all batches: dx = w / deviation (g - mean(g) - x' mean(g x')).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised x in its dtype; mean and (biased) variance of all batches, (C,) of the dtype of ``weight``, without gradient."""
        exact = x.to(weight.dtype)
        # In two passes, which a CPU does in a fifth of the time of ``var_mean``.
        own_mean = exact.mean(dim=(0, 2, 3), keepdim=True)
        own_variance = (exact - own_mean).square().mean(dim=(0, 2, 3))
        means, variances = _of_all(torch.stack([own_mean.flatten(), own_variance]), group).unbind(dim=1)
        # Without differences of squares: the mean variance within the batches, and the variance between them.
        between, mean = torch.var_mean(means, dim=0, correction=0)
        variance = variances.mean(dim=0) + between
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        """Of the sum of all processes' losses with respect to x; with respect to weight and bias, of this process's loss alone."""
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants; then what they depend on x.
        by_x, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            upstream, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        weights, biases = _of_all(torch.stack([by_weight, by_bias]), ctx.group).sum(dim=0).unbind()
        scale = weight * (variance + ctx.eps).rsqrt() * (len(mean) / (ctx.group.size() * x.numel()))
        by_statistics = F.batch_norm(x, mean, variance, scale * weights, scale * biases, False, 0.0, ctx.eps)
        return by_x - by_statistics, by_weight, by_bias, None, None


def _of_all(own: Tensor, group: ProcessGroup) -> Tensor:
    """That tensor of each process, stacked by rank; the same bits in all of them."""
    rows = own.new_zeros(group.size(), *own.shape)
    rows[group.rank()] = own
    torch.distributed.all_reduce(rows, group=group)
    return rows
