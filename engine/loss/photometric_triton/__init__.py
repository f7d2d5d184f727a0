"""The losses of all scales in a few Triton kernels, for GPUs: the same numbers as ``objective`` makes of ``terms``.

Arithmetic is fp32 on uint8 images, and all sums are formed in a fixed order: the same input gives the same bits.
``TRITON_INTERPRET=1`` runs the kernels on a CPU.
"""

from engine.loss.photometric_triton.operators import identity_loss, pack, photometric, smoothness
from engine.loss.photometric_triton.traffic import TRAFFIC

__all__ = ["TRAFFIC", "identity_loss", "pack", "photometric", "smoothness"]
