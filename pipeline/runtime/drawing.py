"""Segmentation of a drawing, light on dark: the pixels that belong to it, and its parts."""

import numpy as np
from scipy import ndimage

FAINT = 0.15  # share of the contrast below which a pixel is background: paper grain, JPEG artefacts
DRAWN = 0.4  # share above which a pixel certainly belongs to the drawing


def border(pixels: np.ndarray) -> float:
    """Return the median of the outermost pixels, (height, width)."""
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def contrast(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Scale to 0 for the background, which is the border's median, and 1 for the lightest pixel.

    Returns:
        The scaled pixels, and the contrast between the two.
    """
    background = border(pixels)
    found = float(pixels.max()) - background
    return (pixels - background) / (found or 1.0), found


def mask(scaled: np.ndarray) -> np.ndarray:
    """Select the pixels of the drawing from those that `contrast` scaled.

    These are the certain pixels, and the fainter ones connected to them: an isolated speck of dust is left out.
    """
    return ndimage.binary_propagation(scaled > DRAWN, mask=scaled > FAINT)


def second_part(drawn: np.ndarray) -> float:
    """Return the area of the second largest connected part over that of the largest; 0 if there is only one."""
    parts, count = ndimage.label(drawn, np.ones((3, 3)))
    if count < 2:
        return 0.0
    second, first = np.sort(np.bincount(parts.ravel())[1:])[-2:]
    return float(second / first)
