"""Arrays as pictures embedded in a page: data URLs for <img> elements."""

import base64
import io

import numpy as np
from PIL import Image

SIDE = 64  # maximum pixels of a thumbnail's side, which keeps pages small


def thumbnail(image: np.ndarray) -> str:
    """An image of shape (height, width, 1 or 3), uint8, with sides of at most SIDE pixels."""
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    picture.thumbnail((SIDE, SIDE))
    return _data_url(picture, "png", optimize=True) if grey else _data_url(picture, "jpeg", quality=80)


def sheet(tiles: np.ndarray, columns: int, side: int, gap: int = 4) -> str:
    """Tiles of shape (n, height, width, 3), uint8, in rows of `columns`, each `side` pixels wide, on transparency."""
    height, width = tiles.shape[1:3]
    size = (side, max(1, round(side * height / width)))
    resampling = Image.Resampling.NEAREST if side >= width else Image.Resampling.BOX
    rows = -(-len(tiles) // columns)
    whole = Image.new("RGBA", (columns * (size[0] + gap) - gap, rows * (size[1] + gap) - gap))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        whole.paste(Image.fromarray(tile).resize(size, resampling), (column * (size[0] + gap), row * (size[1] + gap)))
    return _data_url(whole, "webp", lossless=True)  # half the bytes of a PNG


def _data_url(picture: Image.Image, kind: str, **options: int) -> str:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
