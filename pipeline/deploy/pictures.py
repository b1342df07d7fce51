"""Preparation of pictures: PNG and JPEG files of any size as images like those of a dataset.

Where the catalogue gives `ink`, the drawing is made light on dark, cropped, fitted into a square of `ink` pixels, and
placed with its centre of mass in the middle of the image, as MNIST was made: LeCun et al., Gradient-based learning
applied to document recognition, 1998, section III.A. Other pictures are resized.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from pipeline.core.errors import DataError

MAX_PIXELS = 50_000_000  # of a picture; those of mobile phones have 12 to 50 million
MIN_CONTRAST = 0.1  # between drawing and background, as a share of the full range
FAINT = 0.15  # share of that contrast below which a pixel is background: paper grain, JPEG artefacts
DRAWN = 0.4  # share above which a pixel certainly belongs to the drawing


@contextmanager
def reporting() -> Iterator[None]:
    """Print a DataError of the block on stderr instead of raising it."""
    try:
        yield
    except DataError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)


def accepted(path: Path) -> bool:
    """Check a file by its header, and report it if `read` would refuse it."""
    with reporting(), _opened(path):
        return True
    return False


def read(path: Path, image: tuple[int, int, int], ink: int | None) -> np.ndarray:
    """Read a picture as an image of shape (height, width, channels), float32 in [0, 1].

    Where there is `ink`, a picture that already has this size is made light on dark and not changed otherwise.

    Raises:
        DataError: it is missing, no PNG or JPEG file, too large, damaged, or blank.
    """
    height, width, channels = image
    with _opened(path) as picture:
        upright = _flat(ImageOps.exif_transpose(picture), "L" if channels == 1 else "RGB")
    if ink is None or channels > 1:
        return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC), np.float32).reshape(image) / 255
    pixels = _light_on_dark(np.asarray(upright, np.float32) / 255)
    if pixels.shape != (height, width):
        pixels = _framed(pixels, (height, width), ink, path)
    return pixels.reshape(image)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),  # our own limit is lower
            Image.open(path, formats=("PNG", "JPEG")) as picture,
        ):
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{path}: {width:,} x {height:,} pixels; allowed: {MAX_PIXELS:,} in all; scale it down")
            yield picture
    except FileNotFoundError:
        raise DataError(f"{path}: not found") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: far more than {MAX_PIXELS:,} pixels; scale it down") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG or JPEG file: {error}") from None


def _flat(picture: Image.Image, mode: str) -> Image.Image:
    """Convert to 8 bits, with white behind transparent parts."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), coloured)
    return picture.convert(mode)


def _light_on_dark(pixels: np.ndarray) -> np.ndarray:
    """Invert a picture whose border is lighter than the middle of its range."""
    return 1 - pixels if _border(pixels) > (pixels.min() + pixels.max()) / 2 else pixels


def _border(pixels: np.ndarray) -> float:
    """Return the median of the outermost pixels."""
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def _framed(pixels: np.ndarray, size: tuple[int, int], ink: int, path: Path) -> np.ndarray:
    """Crop the drawing, fit it into a square of `ink` pixels, and centre it by mass."""
    background = _border(pixels)
    contrast = float(pixels.max()) - background
    if contrast < MIN_CONTRAST:
        raise DataError(f"{path}: blank: its contrast is {contrast:.0%} of the full range; needed: {MIN_CONTRAST:.0%}")
    drawn = (pixels - background) / contrast
    # Certain pixels, and the fainter ones connected to them: an isolated speck of dust is left out.
    kept = ndimage.binary_propagation(drawn > DRAWN, mask=drawn > FAINT)
    drawn = np.where(kept, drawn, 0).astype(np.float32)
    rows, columns = (np.flatnonzero(kept.any(axis=axis)) for axis in (1, 0))
    cropped = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = ink / max(cropped.shape)
    height, width = (max(1, round(length * scale)) for length in cropped.shape)
    fitted = np.asarray(Image.fromarray(cropped).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    framed = np.zeros(size, np.float32)
    top, left = (
        int(np.clip(round(whole / 2 - (centre + 0.5)), 0, max(0, whole - length)))
        for whole, length, centre in zip(size, fitted.shape, ndimage.center_of_mass(fitted), strict=True)
    )
    framed[top : top + height, left : left + width] = fitted
    return framed
