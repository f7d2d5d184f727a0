"""One update: in parts, with activations recomputed, compiled or not, captured or not, it is the same update."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import assert_same_state, batches, compiled_updater, make_engine, updates
from places import PROJECT
from steps import make_batch, make_step

from dataload.batch import Batch
from engine.training import checkpoint
from engine.training.build import Engine, build_engine
from engine.training.compiling import is_compiled
from engine.training.config import TrainConfig
from engine.training.optim import learning_rate_of, set_learning_rate
from engine.training.step import LossTerms
from engine.training.update import WARM_UP_CALLS, Updater, seed_step
from engine.weights import InputSize

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_an_update_is_a_plain_one() -> None:
    one, other = make_engine(), make_engine()
    losses = updates(one, Updater(one), 3)
    for number, batch in enumerate(batches(other, 3)):
        seed_step(other.step, 7, number)
        other.optimizer.zero_grad()
        loss = other.step(batch).loss
        loss.backward()
        other.optimizer.step()
        assert loss.item() == losses[number]
    assert_same_state(one, other)


def test_parts_make_one_update_of_their_mean() -> None:
    engine = make_engine(noise=0.0)
    batch = next(batches(engine, 1))
    halves = [Batch(*(tuple(t[p] for t in f) if isinstance(f, tuple) else f[p] for f in batch)) for p in (slice(2), slice(2, 4))]
    engine.step.train()
    before = {name: value.clone() for name, value in engine.networks.state_dict().items()}
    expected: list[LossTerms] = []
    for half in halves:
        expected.append(engine.step(half))
        (expected[-1].loss / 2).backward()
    gradients = [parameter.grad for parameter in engine.networks.parameters()]
    engine.networks.load_state_dict(before)
    terms = Updater(engine, parts=2)(batch)
    assert terms.loss.item() == pytest.approx(sum(e.loss.item() for e in expected) / 2, rel=1e-6)
    means = [sum(e.per_scale[i].item() for e in expected) / 2 for i in range(4)]
    assert [value.item() for value in terms.per_scale] == pytest.approx(means, rel=1e-6)
    for parameter, gradient in zip(engine.networks.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=0)
    # One update for both parts: Adam has counted one.
    assert {int(state["step"]) for state in engine.optimizer.state.values()} == {1}
    assert engine.networks.encoder.encoder.bn1.num_batches_tracked == 2


OPTIONS: list[dict[str, Any]] = [
    {},
    {"autocast_dtype": torch.bfloat16},
    {"pose_model_type": "shared", "predictive_mask": True, "automask": False, "scales": (3, 1)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_recomputing_activations_changes_no_bit(options: dict[str, Any]) -> None:
    plain, recomputing = make_engine(**options), make_engine(recompute=True, **options)
    plain.step.train()
    assert updates(plain, Updater(plain), 3) == updates(recomputing, Updater(recomputing), 3)
    assert_same_state(plain, recomputing)
    assert plain.networks.encoder.encoder.bn1.num_batches_tracked > 0


def saved_bytes(engine: Engine) -> int:
    """Bytes that a forward pass of the networks keeps for the backward pass, each storage once, parameters aside."""
    storages: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = next(batches(engine, 1))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        predictions = engine.step.predict(batch)  # held on to: what is freed could be counted again under its address
    parameters = {parameter.untyped_storage().data_ptr() for parameter in engine.networks.parameters()}
    assert predictions.disps
    return sum(size for place, size in storages.items() if place not in parameters)


def test_recomputing_activations_saves_memory() -> None:
    kept, recomputed = saved_bytes(make_engine()), saved_bytes(make_engine(recompute=True))
    assert recomputed < 0.4 * kept, (recomputed, kept)


def test_recomputing_needs_training_and_gradients() -> None:
    engine = make_engine(recompute=True)
    batch = next(batches(engine, 1))
    engine.step.eval()
    with torch.no_grad():
        expected = make_engine().step.eval().predict(batch).disps[0]
        torch.testing.assert_close(engine.step.predict(batch).disps[0], expected, rtol=0, atol=0)


def test_a_seeded_update_repeats_itself_whatever_was_drawn_before() -> None:
    step, batch = make_step()
    step.train()
    losses = []
    for drawn in (0, 5):
        torch.rand(drawn)
        seed_step(step, 3, 11)
        losses.append(step(batch).loss.item())
    assert losses[0] == losses[1]
    place, seed = step.noise_seed, step.noise_seed.item()
    seed_step(step, 3, 12)
    assert step.noise_seed is place
    assert step.noise_seed.item() != seed


def with_rate_in_a_tensor(engine: Engine) -> torch.optim.Adam:
    """Adam with its learning rate where it lies on a GPU: in a tensor."""
    return torch.optim.Adam(engine.networks.parameters(), lr=torch.tensor(1e-4), fused=True)


def test_a_learning_rate_in_a_tensor_changes_in_place_and_is_saved_as_a_number(tmp_path: Path) -> None:
    engine = make_engine()
    place = (engine := engine._replace(optimizer=with_rate_in_a_tensor(engine))).optimizer.param_groups[0]["lr"]
    updates(engine, Updater(engine), 1)
    set_learning_rate(engine.optimizer, 1e-5)
    assert engine.optimizer.param_groups[0]["lr"] is place
    assert place.item() == pytest.approx(1e-5, rel=1e-6)
    folder = tmp_path / "weights_0"
    size = InputSize(64, 96, False)
    checkpoint.save_checkpoint(folder, engine.networks, size, engine.optimizer, engine.scaler, checkpoint.Position())
    rate = torch.load(folder / "adam.pth", weights_only=True)["param_groups"][0]["lr"]
    assert type(rate) is float
    assert rate == pytest.approx(1e-5, rel=1e-6)
    # A number where the rate is a number, a tensor where it is one, whichever of them it was saved from.
    for again in (make_engine(), (fresh := make_engine())._replace(optimizer=with_rate_in_a_tensor(fresh))):
        kind = type(again.optimizer.param_groups[0]["lr"])
        checkpoint.load_checkpoint(folder, again.networks, again.optimizer, again.scaler)
        assert type(again.optimizer.param_groups[0]["lr"]) is kind
        assert float(again.optimizer.param_groups[0]["lr"]) == pytest.approx(1e-5, rel=1e-6)
        set_learning_rate(again.optimizer, 2e-4)
        checkpoint.load_optimizer(again.optimizer, folder)
        assert type(again.optimizer.param_groups[0]["lr"]) is kind
        assert float(again.optimizer.param_groups[0]["lr"]) == pytest.approx(2e-4, rel=1e-6)
        one, other = updates(again, Updater(again), 1), updates(again, Updater(again), 1)
        assert one != other


def test_a_rate_in_a_tensor_updates_as_a_number_does() -> None:
    one, other = make_engine(), make_engine()
    other = other._replace(optimizer=with_rate_in_a_tensor(other))
    # As the tensor holds it.
    set_learning_rate(one.optimizer, torch.tensor(1e-4).item())
    updates(one, Updater(one), 2)
    updates(other, Updater(other), 2)
    assert_same_state(one, other)


COMPILED = """
import sys
sys.path[:0] = ["tests/support"]
import torch
from engines import assert_same_state, make_engine, updates
from engine.training.update import Updater

engines, losses, kept = [], [], []
for recompute in (False, True):
    storages = {}
    def count(tensor):
        if isinstance(tensor, torch.Tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor
    engine = make_engine(recompute=recompute, frame_ids=(0,), use_stereo=True)
    engine.step.compile(fullgraph=True, backend="aot_eager")
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        losses.append(updates(engine, Updater(engine), 2))
    engines.append(engine)
    kept.append(sum(storages.values()))
assert losses[0] == losses[1], losses
assert_same_state(*engines)
assert engines[1].networks.encoder.encoder.bn1.num_batches_tracked == 2
assert kept[1] < 0.8 * kept[0], kept
print("agreed", kept)
"""


@pytest.mark.slow
def test_recomputing_works_compiled_as_one_graph() -> None:
    # Apart from the shape checks of this process, which a single graph cannot hold.
    done = subprocess.run([sys.executable, "-c", COMPILED], cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert "agreed" in done.stdout, done.stderr[-4000:]


ONE_CONVOLUTION = """
import logging, sys
from engine.training.compiling import keep_compiled
keep_compiled()
sys.path[:0] = ["tests/support"]
from torch._dynamo.utils import counters
from engines import compiled_updater
from steps import make_batch

logging.getLogger("md").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("md").setLevel(logging.INFO)
updater = compiled_updater()
print("before:", updater)
losses = [updater(make_batch()).loss.item() for _ in range(2)]
normalised = updater.engine.networks[1]
print("after:", updater, losses, normalised.num_batches_tracked.item(), normalised.running_mean.sum().item())
print("hits", counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"])
"""


def run_program(program: str, **environment: str) -> str:
    unset = {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=300, env={**inherited, **environment}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_the_next_run_finds_what_was_compiled_and_one_without_a_compiler_trains_on(tmp_path: Path) -> None:
    first, second = (run_program(ONE_CONVOLUTION, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert (tmp_path / "md-engine" / "compile").is_dir()
    assert "Compiled in " in first
    assert "hits 0" in first
    assert "hits 0" not in second
    without = run_program(ONE_CONVOLUTION, XDG_CACHE_HOME=str(tmp_path / "other"), CXX="/nonexistent/g++")
    assert "Compiled in" not in without
    (warning,) = [line for line in without.splitlines() if line.startswith("The step cannot be compiled (")]
    assert warning.endswith("--no_compile")
    assert "before: compiled, 2 parts" in without
    # Nothing was lost on the way: one update per call, statistics of two parts per call.
    after, expected = (next(s for s in out.splitlines() if s.startswith("after: ")) for out in (without, first))
    assert after.startswith("after: not compiled, 2 parts")
    numbers, numbers_compiled = ([float(word.strip("[],")) for word in s.split("batch ")[1].split()] for s in (after, expected))
    assert numbers == pytest.approx(numbers_compiled, rel=1e-4)


@pytest.mark.parametrize(("named", "compiles"), [("/nonexistent/g++ -O1", False), ("", False), ("g++ -O1", True)])
def test_without_a_compiler_a_step_is_not_compiled_and_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, named: str, compiles: bool
) -> None:
    monkeypatch.setenv("CXX", named)
    config = TrainConfig.from_options(dataset="demo", height=64, width=96, weights_init="scratch", compile=True)
    engine = build_engine(config, torch.device("cpu"), metric_factor=1.0)
    assert is_compiled(engine.step) is compiles
    told = f"The step cannot be compiled (the C++ compiler that CXX names ({named or 'nothing'}) is missing); training continues uncompiled"
    assert [record.getMessage().startswith(told) for record in caplog.records] == ([] if compiles else [True])


def test_an_error_of_the_step_itself_comes_up(caplog: pytest.LogCaptureFixture) -> None:
    updater, batch = compiled_updater(), make_batch()
    with pytest.raises(RuntimeError, match=r"Given groups=1, weight of size \[4, 3, 3, 3\]"):
        updater(batch._replace(target_input=batch.target_input[:, :2]))
    assert "cannot be compiled" not in caplog.text


def test_batches_are_put_where_a_graph_reads_them_in_the_layout_of_the_first() -> None:
    engine = make_engine(use_stereo=True)
    updater = Updater(engine, capture=True)
    assert not updater.capture  # on a CPU
    first, second = batches(engine, 2)
    copies = [tensor.clone() for tensor in first.tensors()]
    static = updater._put_in_place(first)
    assert [tensor.stride() for tensor in static.tensors()] == [tensor.stride() for tensor in first.tensors()]
    places = [tensor.data_ptr() for tensor in static.tensors()]
    assert updater._put_in_place(second) is static
    assert [tensor.data_ptr() for tensor in static.tensors()] == places
    for place, given, copy, before in zip(static.tensors(), second.tensors(), copies, first.tensors(), strict=True):
        assert torch.equal(place, given)
        assert torch.equal(before, copy)
    with pytest.raises(AssertionError, match="batches of one shape"):
        updater._put_in_place(next(batches(engine, 1, samples=1)))


# ---- on a GPU ----


def gpu_engine(**options: Any) -> Engine:
    """Its learning rate is so low that the last bits of two runs, which differ on a GPU, stay the last bits for ten updates."""
    options = {"autocast_dtype": torch.bfloat16, "learning_rate": 1e-5, **options}
    return make_engine(device=torch.device("cuda"), **options)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"recompute": True}, {"autocast_dtype": torch.float16}, {"predictive_mask": True, "automask": False, "use_stereo": True}],
    ids=str,
)
def test_a_replayed_update_follows_the_eager_one(options: dict[str, Any], parts: int) -> None:
    eager, captured = gpu_engine(**options), gpu_engine(**options)
    expected = updates(eager, Updater(eager, parts=parts), 10)
    updater = Updater(captured, parts=parts, capture=True)
    found = updates(captured, updater, 10)
    assert updater._graph is not None
    assert found == pytest.approx(expected, rel=3e-2)
    assert found[:3] == pytest.approx(expected[:3], rel=1e-3)
    assert expected[-1] < 0.9 * expected[0], "what learns nothing cannot tell a replay that changes nothing"
    assert captured.networks.encoder.encoder.bn1.num_batches_tracked == 10 * parts


@needs_gpu
@pytest.mark.gpu
def test_ten_updates_wait_for_nothing() -> None:
    engine = gpu_engine(autocast_dtype=torch.float16)
    updater = Updater(engine, parts=2, capture=True)
    given = list(batches(engine, 10))
    finite = torch.ones((), dtype=torch.bool, device=engine.device)
    updater(given[0])  # what is set up once may wait
    torch.cuda.synchronize()
    try:
        for number, batch in enumerate(given):
            capturing = updater._calls == WARM_UP_CALLS  # so may the capture
            torch.cuda.set_sync_debug_mode("default" if capturing else "error")
            set_learning_rate(engine.optimizer, 1e-5 / (1 + number))
            seed_step(engine.step, 0, number)
            finite &= updater(batch).loss.isfinite()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert updater._graph is not None
    assert finite.item()
    assert learning_rate_of(engine.optimizer) == pytest.approx(1e-6, rel=1e-6)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("fused", [True, False], ids=["noise of the kernels", "noise of torch's operators"])
def test_learning_rate_and_seed_reach_a_captured_update(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = gpu_engine(noise=0.5)
    if fused and not engine.step.objective.fuses(engine.device):
        pytest.skip("no Triton")
    monkeypatch.setattr(engine.step.objective, "fuses", lambda _: fused)
    updater = Updater(engine, capture=True)
    batch = next(batches(engine, 1))
    for number in range(WARM_UP_CALLS + 1):
        seed_step(engine.step, 0, number)
        updater(batch)
    assert updater._graph is not None
    set_learning_rate(engine.optimizer, 0.0)
    before = {name: parameter.clone() for name, parameter in engine.networks.named_parameters()}
    losses = []
    for number in (5, 5, 6):
        seed_step(engine.step, 0, number)
        losses.append(updater(batch).loss.item())
    for name, parameter in engine.networks.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] != pytest.approx(losses[0], rel=1e-5)


@needs_gpu
@pytest.mark.gpu
def test_a_failed_capture_loses_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, eager = (gpu_engine(autocast_dtype=torch.float16) for _ in range(2))
    forward = engine.step.forward

    def reads_a_value(batch: Batch) -> LossTerms:
        # After torch's generator was used, which must work afterwards too.
        torch.rand(1, device=engine.device)
        terms = forward(batch)
        terms.loss.item()
        return terms

    monkeypatch.setattr(engine.step, "forward", reads_a_value)
    updater = Updater(engine, capture=True)
    found, expected = updates(engine, updater, 6), updates(eager, Updater(eager), 6)
    assert caplog.text.count("The step cannot be captured in a CUDA graph (") == 1
    assert not updater.capture
    assert found == pytest.approx(expected, rel=1e-2)
    assert engine.networks.encoder.encoder.bn1.num_batches_tracked == 6
