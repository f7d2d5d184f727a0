"""The losses pixel by pixel in float64, straight from their formulas: slow, and with nothing shared or reordered."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reflect(index: int, size: int) -> int:
    """The index inside 0..size-1 that ``index`` mirrors to, the edge not repeated."""
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


def window(image: Array, y: int, x: int) -> Array:
    """The nine values (9, ...) around a pixel of an image (H, W, ...)."""
    height, width = image.shape[:2]
    return np.array([image[reflect(y + dy, height), reflect(x + dx, width)] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])


def dissimilarity(a: Array, b: Array) -> Array:
    """(1 - SSIM) / 2 within [0, 1] a pixel and channel, images (H, W, C)."""
    result = np.empty_like(a)
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            p, q = window(a, y, x), window(b, y, x)
            mp, mq = p.mean(0), q.mean(0)
            vp, vq, cov = ((p - mp) ** 2).mean(0), ((q - mq) ** 2).mean(0), ((p - mp) * (q - mq)).mean(0)
            similarity = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
            result[y, x] = np.clip((1 - similarity) / 2, 0, 1)
    return result


def photometric(a: Array, b: Array, *, use_ssim: bool) -> Array:
    """Photometric error (H, W) of images (H, W, 3)."""
    difference = np.abs(a - b).mean(-1)
    return 0.85 * dissimilarity(a, b).mean(-1) + 0.15 * difference if use_ssim else difference


def per_pixel_loss(sources: list[Array], warped: list[Array], target: Array, *, use_ssim: bool, automask: bool, average: bool) -> Array:
    """The error (H, W) that enters the loss: least over sources or their mean, and the unmoved sources' where that is no greater."""
    reduce = np.mean if average else np.min
    errors: Array = reduce([photometric(image, target, use_ssim=use_ssim) for image in warped], axis=0)
    if automask:
        unmoved = reduce([photometric(image, target, use_ssim=use_ssim) for image in sources], axis=0)
        errors = np.where(errors < unmoved, errors, unmoved)
    return errors


def smoothness(disp: Array, image: Array) -> float:
    """Smoothness of one disp map (H, W) given its image (H, W, 3)."""
    normalised = disp / (disp.mean() + 1e-7)
    height, width = disp.shape
    across = [
        abs(normalised[y, x + 1] - normalised[y, x]) * np.exp(-np.abs(image[y, x + 1] - image[y, x]).mean())
        for y in range(height)
        for x in range(width - 1)
    ]
    down = [
        abs(normalised[y + 1, x] - normalised[y, x]) * np.exp(-np.abs(image[y + 1, x] - image[y, x]).mean())
        for y in range(height - 1)
        for x in range(width)
    ]
    return float(np.mean(across) + np.mean(down))
