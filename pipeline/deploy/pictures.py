"""Preparation of pictures: files of any size as images like those of a dataset.

Where the catalogue gives `ink`, the drawing is made light on dark, cropped, fitted into a square of `ink` pixels, and
placed with its centre of mass in the middle of the image, as MNIST was made: LeCun et al., Gradient-based learning
applied to document recognition, 1998, section III.A. Other pictures are resized.
"""

import io
import math
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from pipeline.core.errors import DataError
from pipeline.runtime import drawing

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MAX_PIXELS = 50_000_000  # of a picture; those of mobile phones have 12 to 50 million
MAX_UPLOADED_PIXELS = 16_000_000  # of a picture in an HTTP request, of which several may be decoded at a time
ENOUGH_PIXELS = 4_000_000  # larger pictures are reduced by a whole factor first, for the sake of memory
MIN_CONTRAST = 0.1  # between drawing and background, as a share of the full range
ANIMATED = "animated: only the first frame was used"


@dataclass(frozen=True)
class Picture:
    """A picture as an image for a network.

    image: (height, width, channels), float32 in [0, 1].
    second_part: area of the drawing's second largest part over that of its largest; 0 without `ink`.
    notes: remarks on the file.
    """

    image: np.ndarray
    second_part: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Upload:
    """The content of a picture's file, received over HTTP."""

    content: bytes

    def __str__(self) -> str:
        return "the picture"


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


def read(file: Path | Upload, image: tuple[int, int, int], ink: int | None) -> Picture:
    """Read a picture as an image of shape (height, width, channels).

    Where there is `ink`, a picture that already has this size is made light on dark and not changed otherwise.

    Raises:
        DataError: it is missing, has another format, is too large, damaged, or blank.
    """
    height, width, channels = image
    ink = ink if channels == 1 else None
    with _opened(file) as picture:
        # Photographs of mobile phones hold a second, small picture: MPO, an extension of JPEG.
        notes = (ANIMATED,) if getattr(picture, "is_animated", False) and picture.format != "MPO" else ()
        upright = _flat(ImageOps.exif_transpose(picture), "L" if channels == 1 else "RGB", is_drawing=ink is not None)
    if upright.width * upright.height > ENOUGH_PIXELS:
        upright = upright.reduce(math.ceil(math.sqrt(upright.width * upright.height / ENOUGH_PIXELS)))
    if ink is None:
        resized = upright.resize((width, height), Image.Resampling.BICUBIC)
        return Picture(np.asarray(resized, np.float32).reshape(image) / 255, 0.0, notes)
    pixels = _light_on_dark(np.asarray(upright, np.float32) / 255)
    scaled, contrast = drawing.contrast(pixels)
    drawn = drawing.mask(scaled)
    if pixels.shape != (height, width):
        if contrast < MIN_CONTRAST:
            raise DataError(
                f"{file}: blank: its contrast is {contrast:.0%} of the full range; needed: {MIN_CONTRAST:.0%}"
            )
        pixels = _framed(np.where(drawn, scaled, 0).astype(np.float32), drawn, (height, width), ink)
    return Picture(pixels.reshape(image), drawing.second_part(drawn), notes)


@contextmanager
def _opened(file: Path | Upload) -> Iterator[Image.Image]:
    source, limit = (io.BytesIO(file.content), MAX_UPLOADED_PIXELS) if isinstance(file, Upload) else (file, MAX_PIXELS)
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of dimensions (the limit here is lower) and of broken metadata
            Image.open(source, formats=FORMATS) as picture,
        ):
            width, height = picture.size
            if width * height > limit:
                raise DataError(f"{file}: {width:,} x {height:,} pixels; allowed: {limit:,} in all; scale it down")
            yield picture
    except FileNotFoundError:
        raise DataError(f"{file}: not found") from None
    except Image.DecompressionBombError:
        raise DataError(f"{file}: far more than {limit:,} pixels; scale it down") from None
    except (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, TypeError, struct.error) as error:
        # The name of a file may appear in the message; that of a buffer means nothing to the client.
        reason = "" if isinstance(error, Image.UnidentifiedImageError) and isinstance(file, Upload) else f": {error}"
        raise DataError(f"{file}: not a readable PNG, JPEG, WebP or GIF file{reason}") from None


def _flat(picture: Image.Image, mode: str, *, is_drawing: bool) -> Image.Image:
    """Convert to 8 bits, with white behind transparent parts, or black behind a light drawing."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        picture = Image.fromarray((np.asarray(picture, np.float32) / 257).astype(np.uint8))
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        ground = "black" if is_drawing and _is_light(coloured) else "white"
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, ground), coloured)
    return picture.convert(mode)


def _is_light(coloured: Image.Image) -> bool:
    """Return whether all opaque pixels of an RGBA picture are lighter than the middle of the range."""
    grey, opacity = np.asarray(coloured.convert("L")), np.asarray(coloured.getchannel("A"))
    opaque = grey[opacity > 127]
    return opaque.size > 0 and int(opaque.min()) > 127


def _light_on_dark(pixels: np.ndarray) -> np.ndarray:
    """Invert a picture whose border is lighter than the middle of its range."""
    return 1 - pixels if drawing.border(pixels) > (pixels.min() + pixels.max()) / 2 else pixels


def _framed(scaled: np.ndarray, drawn: np.ndarray, size: tuple[int, int], ink: int) -> np.ndarray:
    """Crop the drawing, fit it into a square of `ink` pixels, and centre it by mass."""
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    cropped = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = ink / max(cropped.shape)
    height, width = (max(1, round(length * scale)) for length in cropped.shape)
    fitted = np.asarray(Image.fromarray(cropped).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    framed = np.zeros(size, np.float32)
    top, left = (  # of 28 rows, the centre is row 14, counted from 0: in MNIST the mean is 13.99
        int(np.clip(round(whole / 2 - centre), 0, max(0, whole - length)))
        for whole, length, centre in zip(size, fitted.shape, ndimage.center_of_mass(fitted), strict=True)
    )
    framed[top : top + height, left : left + width] = fitted
    return framed
