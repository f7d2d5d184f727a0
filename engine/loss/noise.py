"""The noise that breaks ties of the automask: a function of the seed, the sample and the pixel alone.

So a sample has the same noise whatever batch, chunk, part or process it is in.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Knuth's multiplier of 64 bits (MMIX): seeds of neighbouring samples differ in all their upper bits.
SAMPLE_STRIDE = 6364136223846793005
# Thomas Mueller's multiplier for a hash of 32 bits. Its product with 32 bits fits in an int64.
MULTIPLIER = 0x45D9F3B
LOW_BITS = 0xFFFFFFFF


def sample_seeds(noise_seed: Int[Tensor, ""] | None, indices: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """A seed for each sample: ``noise_seed + SAMPLE_STRIDE index`` in 64 bits, which wrap around.

    Args:
        noise_seed: of all samples, int64; None is 0.
        indices: of the samples in their list, int64.
    """
    return indices * SAMPLE_STRIDE if noise_seed is None else torch.add(noise_seed, indices, alpha=SAMPLE_STRIDE)


def standard_normal(seeds: Int[Tensor, " B"], size_px: Sequence[int]) -> Float[Tensor, "B H W"]:
    """Independent numbers with mean 0 and deviation 1, fp32, for each pixel of images that have these seeds.

    A hash of seed and pixel in three rounds, the halves of the seed added before the first and the second.
    """
    height_px, width_px = size_px
    seeds = seeds[:, None]
    x = torch.arange(height_px * width_px, device=seeds.device)
    for half in (seeds, seeds >> 32, 0):
        x = x + half & LOW_BITS
        x = (x ^ x >> 16) * MULTIPLIER & LOW_BITS
    # The upper 24 bits as an odd number over 2^24, in (-1, 1): exact in fp32.
    uniform = ((x >> 7 | 1) - 2**24) / 2.0**24
    return (math.sqrt(2) * torch.erfinv(uniform)).view(-1, height_px, width_px)
