"""The outcome of scoring many images: means, how sure they are, errors by distance. Numpy alone."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.metrics import METRICS, mean_errors

# Errors are kept apart by these distances of the truth, metres.
BAND_EDGES_M = (0, 10, 20, 30, 40, 50, 60, 70, 80)
# Bins of the signed relative error (p - g) / g; the first and the last take all that lies beyond.
ERROR_EDGES = tuple(round(-1 + 0.05 * i, 2) for i in range(41))
CONFIDENCE = 0.95
BOOTSTRAPS = 2000
# More decimal digits than any sum of float64 has.
EXACTLY = Context(prec=2000)


class Scores(NamedTuple):
    """The outcome of an evaluation.

    Attributes:
        per_image: (N,7) float64, the errors of each image in the order of ``METRICS``.
        median_ratios: (N,) float64, median of truth over median of prediction per image; None without median scaling.
        exact_bands: (B,8) per distance band (``BAND_EDGES_M``): its pixels, then the sums of their seven terms; without rounding
            (``Decimal``), so that they do not depend on the order in which images are added.
        histogram: pixels by signed relative error (``ERROR_EDGES``).
    """

    per_image: NDArray[np.float64]
    median_ratios: NDArray[np.float64] | None
    exact_bands: NDArray[Any]
    histogram: NDArray[np.int64]

    @property
    def num_images(self) -> int:
        """How many images were scored."""
        return len(self.per_image)

    @property
    def bands(self) -> NDArray[np.float64]:
        """``exact_bands``, rounded."""
        return self.exact_bands.astype(np.float64)

    @property
    def means(self) -> dict[str, float]:
        """Each error's mean over the images, by its published name."""
        return dict(zip(METRICS, self.per_image.mean(axis=0).tolist(), strict=True))

    @property
    def median_ratio(self) -> float | None:
        """The median of the images' ratios."""
        return None if self.median_ratios is None else float(np.median(self.median_ratios))

    @property
    def median_ratio_std(self) -> float | None:
        """The standard deviation of the ratios divided by their median: how much the scale varies between images."""
        return None if self.median_ratios is None else float(np.std(self.median_ratios / np.median(self.median_ratios)))

    def interval(self) -> NDArray[np.float64]:
        """Bounds (2,7) of the 95 % confidence interval of the means: percentiles over images resampled with replacement.

        Efron 1979. The resampling is seeded: the same scores have the same interval.
        """
        tails = 100 * np.array([1 - CONFIDENCE, 1 + CONFIDENCE]) / 2
        bounds: NDArray[np.float64] = np.percentile(_draws(self.num_images) @ self.per_image / self.num_images, tails, axis=0)
        return bounds

    def band_errors(self) -> NDArray[np.float64]:
        """The errors (B,7) of each distance band, pooled over its pixels in all images; NaN where a band has none."""
        return mean_errors(self.bands[:, 1:], self.bands[:, 0])


def exact_sum(parts: Iterable[NDArray[Any]]) -> NDArray[np.object_]:
    """The sum of arrays of one shape without rounding, as ``Decimal``; of float64, or of what ``Decimal`` reads."""
    exact = np.vectorize(Decimal, otypes=[object])
    with localcontext(EXACTLY):
        total: NDArray[np.object_] = np.sum([exact(part) for part in parts], axis=0)
    return total


@lru_cache(maxsize=1)
def _draws(count: int) -> NDArray[np.float64]:
    """How often each of ``count`` images is in each resample (BOOTSTRAPS,count); the same for all models of an evaluation."""
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=BOOTSTRAPS)
    return drawn.astype(np.float64)
