"""The fused photometric loss against float64 and against the plain losses: on a GPU where there is one, else by Triton's interpreter."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from places import PROJECT
from reference import photometric as reference
from scenes import DEVICE, SWITCHES, Scene, gradients, operators, photometric_triton, small_step
from torch import Tensor

from benchmarks.step_inputs import random_batch, to_device
from engine import geometry
from engine.loss import objective
from engine.loss.noise import sample_seeds


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time goes by operators: it takes more pixels at once than a warp, and whole images where they are small."""
    if DEVICE == "cpu":
        monkeypatch.setattr(operators, "LANES", 128)
        monkeypatch.setattr(operators, "ROWS", 32)


def also_on_a_gpu(test: Callable[[], None]) -> Callable[[], None]:
    """Where there is a GPU, the test is one of those for it; elsewhere the interpreter runs it all the same."""
    return pytest.mark.gpu(test) if DEVICE == "cuda" else test


def compared(scene: Scene, **switches: bool) -> list[tuple[Tensor, Tensor]]:
    """The gradients of losses that agree, ours and float64's, with respect to each disparity map and, last, the transforms."""
    (losses, fused), (expected, plain) = scene.fused(**switches), scene.plain(**switches)
    torch.testing.assert_close(losses.double(), expected, rtol=2e-6, atol=1e-8)
    assert all(theirs.abs().max() > 0 for theirs in plain)
    return list(zip(fused, plain, strict=True))


def assert_agreement(scene: Scene, **switches: bool) -> None:
    """Losses to 2e-6, gradients to 2e-4 of their largest."""
    for ours, theirs in compared(scene, **switches):
        assert (ours - theirs).abs().max() <= 2e-4 * theirs.abs().max()


@pytest.mark.parametrize("switches", SWITCHES)
def test_values_and_gradients_are_those_of_float64(switches: dict[str, bool]) -> None:
    assert_agreement(Scene((9, 21), samples=2 if switches["automask"] else 1), **switches)


def test_all_scales_at_once_and_any_number_of_sources() -> None:
    assert_agreement(Scene((8, 20), num_scales=3, num_sources=3, samples=1), **SWITCHES[0])
    assert_agreement(Scene((6, 14), num_scales=2, num_sources=1), **SWITCHES[0])


@pytest.mark.parametrize(
    ("num_sources", "switches"),
    [
        pytest.param(4, SWITCHES[0], id="least of two groups"),
        pytest.param(5, SWITCHES[1], id="mean of three groups", marks=pytest.mark.slow),
        pytest.param(6, SWITCHES[2], id="without automask", marks=pytest.mark.slow),
        pytest.param(4, SWITCHES[3], id="without SSIM", marks=pytest.mark.slow),
        pytest.param(4, SWITCHES[4], id="mean without SSIM and automask", marks=pytest.mark.slow),
    ],
)
def test_sources_taken_in_groups_have_the_same_numbers(num_sources: int, switches: dict[str, bool]) -> None:
    assert_agreement(Scene((8, 20), num_sources=num_sources), **switches)


# Two strips each way, and three, of which the middle one has neighbours on both sides.
@pytest.mark.parametrize(
    ("size_px", "num_sources"),
    [((6, 38), 2), pytest.param((10, 62), 2, marks=pytest.mark.slow), pytest.param((6, 38), 4, marks=pytest.mark.slow)],
)
def test_strips_join_without_a_seam(size_px: tuple[int, int], num_sources: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(size_px, samples=1, num_scales=2, num_sources=num_sources)
    monkeypatch.setattr(operators, "LANES", 32)
    monkeypatch.setattr(operators, "ROWS", 4)
    assert_agreement(scene, **SWITCHES[0])


def test_the_smallest_images() -> None:
    assert_agreement(Scene((3, 2)), **SWITCHES[2])
    assert_agreement(Scene((2, 3)), **SWITCHES[2])


def test_beyond_the_border_and_behind_the_camera() -> None:
    scene = Scene((8, 17))
    scene.T[0, 0, 0, 3], scene.T[0, 1, 2, 3], scene.T[1, 0, 1, 3] = 3.0, -1.5, -2.0
    q = geometry.pixel_motions(scene.K, scene.T)
    depths = 1 / (0.01 + 9.99 * scene.disps[0][0, 0])
    z = depths * q[0, 1, 2, 2] + q[0, 1, 2, 3]
    assert ((z < 0).sum() > 10) & ((z > 0).sum() > 10), "some points lie behind the second source, some before it"
    assert_agreement(scene, **SWITCHES[2])


@also_on_a_gpu
def test_smoothness_and_its_gradient_are_those_of_float64() -> None:
    scene = Scene((10, 36), num_scales=2)
    images = [scene.target, scene.target[..., ::2, ::2]]
    disps = [disp.clone().requires_grad_() for disp in scene.disps]
    found = photometric_triton.smoothness(disps, images, weight=0.5)
    plain = [disp.double().requires_grad_() for disp in scene.disps]
    expected = []
    for scale, (disp, image) in enumerate(zip(plain, images, strict=True)):
        normalised = disp / (disp.mean(dim=(2, 3), keepdim=True) + 1e-7)
        edges = [torch.exp(-(image.double() / 255).diff(dim=dim).abs().mean(dim=1, keepdim=True)) for dim in (3, 2)]
        terms = [(normalised.diff(dim=dim).abs() * even).mean() for dim, even in zip((3, 2), edges, strict=True)]
        expected.append(0.5 / 2**scale * sum(terms))
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-6, atol=0)
    for ours, theirs in zip(gradients(found, disps), gradients(torch.stack(expected), plain), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6 * theirs.abs().max().item())


def test_a_position_that_is_no_number_takes_the_first_pixel() -> None:
    scene = Scene((6, 9), samples=1, num_sources=1)
    scene.T[0, 0, 0, 0] = float("nan")
    assert scene.fused(**SWITCHES[2])[0].item() == pytest.approx(scene.plain(**SWITCHES[2])[0].item(), rel=1e-5)


# Of four, the last two are taken after the first two.
@pytest.mark.parametrize(("num_sources", "first", "second"), [(2, 0, 1), (4, 1, 2)])
def test_of_equal_sources_the_first_counts(num_sources: int, first: int, second: int) -> None:
    scene = Scene((8, 12), samples=1, num_sources=num_sources)
    scene.sources[:, second], scene.T[:, second] = scene.sources[:, first], scene.T[:, first]
    (_, by_T) = scene.fused(**SWITCHES[2])[1]
    assert by_T[:, first].abs().max() > 0
    assert by_T[:, second].abs().max() == 0


def test_images_that_do_not_differ_have_no_loss_and_no_gradient() -> None:
    scene = Scene((5, 13), samples=1)
    scene.sources[:] = scene.target[:, None]
    scene.T[:] = torch.eye(4, device=DEVICE)
    for switches in (SWITCHES[0], SWITCHES[3]):
        losses, found = scene.fused(**switches)
        assert losses.abs().max() < 1e-6
        assert max(gradient.abs().max() for gradient in found) < 1e-3


@also_on_a_gpu
def test_the_unmoved_sources_loss_and_its_noise() -> None:
    scene = Scene((10, 60))
    target, sources = photometric_triton.pack(scene.target), photometric_triton.pack(scene.sources)

    def draw(seed: int, noise: float, *, average: bool = False, rows: slice = slice(None)) -> Tensor:
        seeds = sample_seeds(torch.tensor(seed, device=DEVICE), torch.arange(len(target), device=DEVICE))[rows]
        loss: Tensor = photometric_triton.identity_loss(target[rows], sources[rows], seeds, noise=noise, ssim=True, average=average)
        return loss

    for average in (False, True):
        compared = reference.compare(scene.sources.double() / 255, scene.target.double()[:, None] / 255, ssim=True)
        torch.testing.assert_close(
            draw(0, 0.0, average=average).double(), reference.reduce(compared, average=average), rtol=1e-5, atol=1e-7
        )
    noise = (draw(1, 1e-3) - draw(1, 0.0)) / 1e-3
    assert abs(noise.mean().item()) < 4 / noise.numel() ** 0.5
    assert noise.std().item() == pytest.approx(1, abs=0.06)
    assert torch.equal(draw(1, 1e-3), draw(1, 1e-3))
    assert torch.equal(draw(1, 1e-3, rows=slice(1, 2)), draw(1, 1e-3)[1:])
    assert (draw(2, 1e-3) != draw(1, 1e-3)).float().mean() > 0.9
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1].item()) < 4 / noise[0].numel() ** 0.5


def test_a_pixel_is_one_number_whatever_the_memory_layout() -> None:
    images = torch.randint(0, 256, (2, 3, 3, 4, 6), dtype=torch.uint8)
    packed = photometric_triton.pack(images)
    assert packed.shape == (2, 3, 4, 6)
    assert torch.equal(packed, photometric_triton.pack(images.movedim(-3, -1).contiguous().movedim(-1, -3)))
    for channel in range(3):
        assert torch.equal((packed >> (8 * channel)) & 255, images[:, :, channel].int())


def test_the_operators_keep_torchs_rules() -> None:
    scene = Scene((4, 6), samples=1, num_sources=1)
    target, sources = photometric_triton.pack(scene.target), photometric_triton.pack(scene.sources)
    motions = geometry.pixel_motions(scene.K, scene.T)[None].requires_grad_()
    disp = scene.disps[0].flatten().requires_grad_()
    seeds = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.md_engine.photometric_identity, (target, sources, seeds, 0.0, True, False), test_utils=tests)
    pixels, upstream = target.reshape(-1), torch.ones(1, device=DEVICE)
    torch.library.opcheck(torch.ops.md_engine.smoothness, (disp, pixels, 1e-3, 1, [4, 6], [0]), test_utils=tests)
    sums = torch.ops.md_engine.smoothness(disp, pixels, 1e-3, 1, [4, 6], [0])[1]
    arguments = (disp.detach(), pixels, sums, upstream, 1e-3, 1, [4, 6], [0])
    torch.library.opcheck(torch.ops.md_engine.smoothness_gradient, arguments, test_utils=tests)
    torch.library.opcheck(torch.ops.md_engine.photometric_gather, (disp.detach().view(1, 1, 4, 6), upstream, [0]), test_utils=tests)
    for with_gradient in (True, False):
        arguments = (disp, motions, target, sources, None, [0], 0.01, 9.99, True, False, with_gradient)
        torch.library.opcheck(torch.ops.md_engine.photometric, arguments, test_utils=tests)


@pytest.fixture
def fused_here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The step takes the fused losses on this device too; ``undo`` gives the plain ones back."""
    monkeypatch.setattr(objective, "FUSED_DEVICES", ("cpu", "cuda"))
    return monkeypatch


@pytest.mark.parametrize(
    "options",
    [
        {"use_stereo": True, "scales": (2,)},
        {"frame_ids": (0, 1), "v1_multiscale": True, "scales": (1, 3), "ssim": False},
        {"frame_ids": (0, -1), "pose_model_type": "posecnn", "scales": (3,), "automask": False},
    ],
    ids=["mono and stereo", "v1", "posecnn"],
)
def test_a_step_has_the_plain_steps_loss_and_gradients(options: dict[str, Any], fused_here: pytest.MonkeyPatch) -> None:
    found = []
    for _ in range(2):
        step, batch = small_step(**options)
        terms = step(batch)
        terms.loss.backward()
        found.append(
            (torch.stack([terms.loss.detach(), *terms.per_scale]), {n: p.grad for n, p in step.named_parameters() if p.grad is not None})
        )
        fused_here.undo()
    (fused, ours), (plain, theirs) = found
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-7)
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("frame_ids", [(0, -1, 1), (0, -2, -1, 1, 2)])
def test_without_gradients_the_losses_are_the_same(frame_ids: tuple[int, ...], fused_here: pytest.MonkeyPatch) -> None:
    step, batch = small_step(frame_ids, scales=(3,), v1_multiscale=True)
    with torch.no_grad():
        alone = step(batch).loss
    assert alone.item() == pytest.approx(step(batch).loss.item(), rel=1e-6)


GUARDED = """
import ctypes, mmap, sys
sys.path[:0] = ["tests/support"]
import torch
from engine import geometry
from engine.loss import photometric_triton
from engine.loss.photometric_triton import operators
from scenes import Scene

kept = []

def guarded(tensor, at_end):
    # A copy that begins or ends where a page that may not be touched begins or ends.
    size = tensor.numel() * tensor.element_size()
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 2) * mmap.PAGESIZE)
    kept.append(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(address + page * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
    start = mmap.PAGESIZE + (pages * mmap.PAGESIZE - size if at_end else 0)
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=start).view(tensor.shape)
    return copy.copy_(tensor)

*size_px, num_sources = map(int, sys.argv[1:])
scene = Scene(size_px, samples=1, num_scales=2, num_sources=num_sources)
operators.LANES, operators.ROWS = 32, 4
for at_end in (True, False):
    target, sources, flat, seeds = (guarded(x, at_end) for x in (
        photometric_triton.pack(scene.target), photometric_triton.pack(scene.sources), torch.cat([d.flatten() for d in scene.disps]),
        torch.zeros(1, dtype=torch.int64)))
    motions = guarded(geometry.pixel_motions(scene.K, scene.T).expand(2, 1, num_sources, 3, 4), at_end)
    ops = torch.ops.md_engine
    identity = guarded(ops.photometric_identity(target, sources, seeds, 1e-5, True, False), at_end)
    _, by_disps, _ = ops.photometric(flat, motions, target, sources, identity, [0, 1], 0.01, 9.99, True, False, True)
    upstream = guarded(torch.ones(2), at_end)
    ops.photometric_gather(guarded(by_disps, at_end), upstream, [0, 1])
    pixels = guarded(torch.zeros(flat.numel(), dtype=torch.int32), at_end)
    sums = guarded(ops.smoothness(flat, pixels, 1e-3, 1, size_px, [0, 1])[1], at_end)
    ops.smoothness_gradient(flat, pixels, sums, upstream, 1e-3, 1, size_px, [0, 1])
print("inside")
import os; os._exit(0)  # tensors into the mapped memory are still alive
"""


@pytest.mark.skipif(DEVICE == "cuda" or sys.platform != "linux", reason="the interpreter's memory is guarded, by Linux's calls")
@pytest.mark.parametrize(
    ("size_px", "num_sources"),
    [((5, 30), 2), pytest.param((10, 38), 2, marks=pytest.mark.slow), pytest.param((5, 30), 4, marks=pytest.mark.slow)],
)
def test_no_kernel_reads_beyond_its_tensors(size_px: tuple[int, int], num_sources: int) -> None:
    done = subprocess.run(
        [sys.executable, "-u", "-c", GUARDED, *map(str, (*size_px, num_sources))], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("inside", 0), done.stderr[-2000:]


COMPILED_STEP = """
import sys
sys.path[:0] = ["tests/support"]
import torch
from scenes import small_step
from engine.loss import objective
objective.FUSED_DEVICES = ("cpu", "cuda")
step, batch = small_step(frame_ids=(0, 1), scales=(3,), v1_multiscale=True, autocast_dtype=torch.bfloat16)
terms = step(batch)
terms.loss.backward()
eager, expected = terms.loss.item(), {name: p.grad for name, p in step.named_parameters() if p.grad is not None}
step.zero_grad()
step.compile(fullgraph=True, backend="aot_eager")
terms = step(batch)
terms.loss.backward()
assert abs(terms.loss.item() - eager) < 1e-4 * eager, (terms.loss.item(), eager)
gradients = dict(step.named_parameters())
for name, gradient in expected.items():
    assert (gradients[name].grad - gradient).norm() <= 0.1 * gradient.norm() + 1e-9, name
print("agreed")
"""


@pytest.mark.slow
def test_the_fused_step_compiles_without_graph_breaks() -> None:
    # Apart from the shape checks of this process, which a single graph cannot hold.
    done = subprocess.run([sys.executable, "-c", COMPILED_STEP], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "agreed", done.stderr[-4000:]


def test_several_scales_compile_without_graph_breaks() -> None:
    disps = [torch.empty(2, 1, 64 >> s, 96 >> s, device="meta", requires_grad=True) for s in range(4)]
    images = [torch.empty(2, 3, 64 >> s, 96 >> s, dtype=torch.uint8, device="meta") for s in range(4)]
    compiled = torch.compile(photometric_triton.smoothness, fullgraph=True, backend="aot_eager")
    compiled(disps, images, weight=1e-3).sum().backward()
    assert all(disp.grad is not None and disp.grad.shape == disp.shape for disp in disps)


@pytest.mark.slow
def test_twenty_steps_follow_the_plain_losses_curve(fused_here: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    batch = to_device(random_batch(1, (64, 96)), torch.device(DEVICE))
    options: dict[str, Any] = {}
    if DEVICE == "cpu":
        # The interpreter takes half a minute for a step of all scales at full resolution.
        options = {"scales": (2,), "v1_multiscale": True}
        levels = [F.avg_pool2d(batch.sources[0].flatten(0, 1).float(), 2**level).to(torch.uint8) for level in range(3)]
        batch = batch._replace(sources=tuple(level[None] for level in levels))
        fused_here.setattr(operators, "ROWS", 16)
    curves = []
    for fused in (True, False):
        fused_here.setattr(objective, "FUSED_DEVICES", ("cpu", "cuda") if fused else ())
        step, _ = small_step(**options)
        # Plain descent with momentum: Adam makes steps of full length from gradients that are nothing but rounding, and two runs by
        # the same losses whose weights differ by 1e-7 at the start are 5 % apart after 20 steps.
        optimizer = torch.optim.SGD(step.parameters(), 3e-3, momentum=0.9)
        curve = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = step(batch).loss
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[1][-1] < 0.9 * curves[1][0], "the steps learn something"
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


# At this size some positions are so near to the border of two pixels that fp32 takes the slope beyond it, and in images of noise that is
# another slope altogether: torch's own operators in fp32, too, differ by up to a third of the largest gradient. But such pixels are few
# (one in a hundred at the coarsest scale, far fewer at the others), and they change the norm by two hundredths at most. A row or a column
# left out changes it by more than is allowed here.
@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
@pytest.mark.parametrize(
    ("num_sources", "switches"),
    [
        pytest.param(2, SWITCHES[0], id="least of two"),
        pytest.param(3, SWITCHES[2], id="least of three, without automask"),
        pytest.param(2, SWITCHES[3], id="least of two, without SSIM"),
        pytest.param(2, SWITCHES[4], id="mean of two, without SSIM and automask"),
        pytest.param(4, SWITCHES[0], id="least of two groups"),
        pytest.param(5, SWITCHES[1], id="mean of three groups"),
    ],
)
def test_at_full_size_on_a_gpu(num_sources: int, switches: dict[str, bool]) -> None:
    *by_disps, by_T = compared(Scene((192, 640), samples=3, num_scales=4, num_sources=num_sources), **switches)
    for ours, theirs in (*by_disps, by_T):
        assert (ours - theirs).norm() <= 3e-2 * theirs.norm()
    for ours, theirs in by_disps:
        assert ((ours - theirs).abs() > 2e-3 * theirs.abs().max()).float().mean() < 3e-2
