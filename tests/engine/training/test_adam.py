"""Adam's moments of files: laid out as the parameters, from this engine's and Monodepth2's ``adam.pth``, and said where they do not fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.training.checkpoint import load_optimizer
from engine.training.optim import build_optimizer
from splits.errors import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)


def published_adam(model: nn.Module, *, step: Any = 7, lr: float = 1e-5) -> dict[str, Any]:
    """As an old torch saves Adam of contiguous parameters: few options in the group, the step as a number."""
    parameters = list(model.parameters())

    def ramp(parameter: Tensor, scale: float) -> Tensor:
        return (torch.arange(parameter.numel(), dtype=torch.float32) * scale + scale).reshape(parameter.shape)

    state = {
        i: {"step": step.clone() if isinstance(step, Tensor) else step, "exp_avg": ramp(p, 1e-3), "exp_avg_sq": ramp(p, 1e-4)}
        for i, p in enumerate(parameters)
    }
    group = {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "params": list(range(len(parameters)))}
    return {"state": state, "param_groups": [group]}


def one_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    model(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("step", [7, torch.tensor(7.0), torch.tensor(7)])
def test_a_fused_step_after_loading_equals_the_unfused(step: Any, tmp_path: Path) -> None:
    saved = published_adam(network(), step=step)
    torch.save(saved, tmp_path / "adam.pth")
    model, plain = network(), network().to(memory_format=torch.contiguous_format)
    fused = build_optimizer(model, 1e-3)
    assert fused.param_groups[0]["fused"]
    load_optimizer(fused, tmp_path)
    unfused = torch.optim.Adam(plain.parameters(), lr=1e-3, foreach=False, fused=False)
    unfused.load_state_dict(saved)
    unfused.param_groups[0]["lr"] = 1e-3
    for parameter in model.parameters():
        assert fused.state[parameter]["exp_avg"].stride() == parameter.stride()
    for one, other in zip(one_step(model, fused), one_step(plain, unfused), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_several_groups_and_parameters_without_moments(tmp_path: Path) -> None:
    model = network()
    saved = published_adam(model)
    group = saved["param_groups"][0]
    saved["param_groups"] = [group | {"params": group["params"][:2]}, group | {"params": group["params"][2:]}]
    del saved["state"][3]
    torch.save(saved, tmp_path / "adam.pth")
    optimizer = build_optimizer(model, 1e-3)
    load_optimizer(optimizer, tmp_path)
    held = [bool(optimizer.state.get(parameter)) for parameter in model.parameters()]
    assert held == [True, True, True, False, True, True]
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda saved: saved["state"][0].update(exp_avg=torch.zeros(3)),
            r"exp_avg of parameter 0 is \(3,\), the networks need \(8, 3, 3, 3\)",
        ),
        (lambda saved: saved["param_groups"][0]["params"].pop(), "it is of 5 parameters, the networks have 6"),
        (lambda saved: saved["state"][0].pop("exp_avg_sq"), "is not an Adam state"),
        (lambda saved: saved["state"][0].update(step="many"), "is not an Adam state"),
        (lambda saved: saved["state"][0]["exp_avg_sq"].neg_(), "is not an Adam state .*exp_avg_sq of parameter 0.* is below 0"),
        (lambda saved: saved["state"][0].update(exp_avg=torch.full((8, 3, 3, 3), 1e300, dtype=torch.float64)), "in exp_avg of parameter 0"),
        (lambda saved: saved.pop("param_groups"), "is not an Adam state"),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_the_optimizer(spoil: Any, why: str, tmp_path: Path) -> None:
    saved = published_adam(network())
    spoil(saved)
    torch.save(saved, tmp_path / "adam.pth")
    optimizer = build_optimizer(network(), 1e-3)
    with pytest.raises(InputError, match=why):
        load_optimizer(optimizer, tmp_path)
    assert not optimizer.state_dict()["state"]
