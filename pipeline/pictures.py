"""A PNG or JPEG file of any size -> an image such as a dataset has them.

Where the catalogue gives `ink`, pictures are made what the dataset's own are: light on dark, what is drawn cropped and
fitted into a square of `ink` pixels, its centre of mass in the middle of the image. So MNIST was made: LeCun et al.,
Gradient-based learning applied to document recognition, 1998, section III.A. Elsewhere they are resized.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from pipeline.errors import DataError

MAX_PIXELS = 50_000_000  # of a picture; a telephone's have 12 to 50 million
MIN_CONTRAST = 0.1  # of the full range, between what is drawn and what it is drawn on
FAINT = 0.15  # share of that contrast below which a pixel is background: the grain of paper, the traces of JPEG
DRAWN = 0.4  # share above which it is surely drawn: what crops the picture


def check(path: Path) -> None:
    """Refuse by its header a file that `read` would refuse.

    Raises:
        DataError: it is missing, no PNG or JPEG file, or too large.
    """
    with _opened(path):
        pass


def read(path: Path, image: tuple[int, int, int], ink: int | None) -> np.ndarray:
    """A picture as an image of shape (height, width, channels), float32 in [0, 1].

    One that has the size already is only turned light on dark, where there is `ink`, and is otherwise left as it is.

    Raises:
        DataError: see `check`; or it is damaged, or nothing is drawn on it.
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
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),  # the bound is below
            Image.open(path, formats=("PNG", "JPEG")) as picture,
        ):
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise DataError(
                    f"{path}: is {width:,} x {height:,} pixels; allowed: {MAX_PIXELS:,} in all; scale it down"
                )
            yield picture
    except FileNotFoundError:
        raise DataError(f"{path}: not found") from None
    except Image.DecompressionBombError:
        raise DataError(f"{path}: has far more than {MAX_PIXELS:,} pixels") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG or JPEG file: {error}") from None


def _flat(picture: Image.Image, mode: str) -> Image.Image:
    """Without transparency, on white, and with 8 bits."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), coloured)
    return picture.convert(mode)


def _light_on_dark(pixels: np.ndarray) -> np.ndarray:
    """The picture, inverted if its border is lighter than the middle of its range."""
    return 1 - pixels if _border(pixels) > (pixels.min() + pixels.max()) / 2 else pixels


def _border(pixels: np.ndarray) -> float:
    """The median of the outermost pixels."""
    return float(np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])))


def _framed(pixels: np.ndarray, size: tuple[int, int], ink: int, path: Path) -> np.ndarray:
    """What is drawn, alone: cropped, fitted into a square of `ink` pixels, centred by mass."""
    background = _border(pixels)
    contrast = float(pixels.max()) - background
    if contrast < MIN_CONTRAST:
        raise DataError(
            f"{path}: nothing is drawn on it: its pixels differ by {contrast:.0%} of the full range at most"
        )
    drawn = (pixels - background) / contrast
    # Pixels that are surely drawn, and the fainter ones that touch them: a speck of dust by itself stays outside.
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
