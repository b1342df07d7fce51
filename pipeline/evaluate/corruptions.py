"""The fifteen corruptions of MNIST-C, which change an image but not its class.

The kinds are those of N. Mu and J. Gilmer (MNIST-C: a robustness benchmark for computer vision, 2019, arXiv
1906.02337). Their implementation and severity, one for each kind, are this project's own: results are comparable with
each other, not with those of the paper. Every corruption takes uint8 images of shape (n, height, width, 1 or 3) and a
generator, and returns new images of the same shape and type.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage, signal

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]

WHITE = 255
CHUNK = 250  # images that are corrupted at a time, to bound the memory; another number gives other draws

# Lengths are pixels of an image whose shorter side is SIDE; they grow with the image.
SIDE = 28
PHOTONS = 4.0  # mean number that a white pixel receives
IMPULSES = 0.2  # share of the pixels, half black, half white
GLASS_REACH = 1.0  # largest of each of a pixel's two displacements, along either axis
GLASS_BLUR = 0.7  # standard deviation
MOTION = 6.0  # length of the path
SHEAR = (0.3, 0.5)  # tangent of the slant
SCALE = (0.5, 0.65)  # of the sides
ROTATION = (20.0, 35.0)  # degrees
BRIGHTNESS = 0.5  # of white
TRANSLATION = (2, 4)  # along either axis
STRIPE = 4.0
FOG = 0.75  # share of white at the thickest point
FOG_ROUGHNESS = 0.6  # amplitude of each level relative to the next coarser one
SPATTER_SIZE = 1.3  # standard deviation of the blur that turns noise into spots
SPATTER_LEVEL = 1.1  # standard deviations above which noise is a spot: 14 % of the area
SPATTER_GREY = 0.6  # of white
DOT_RADIUS, DOT_SPACING = 0.9, 3.5
ZIGZAG_WIDTH, ZIGZAG_HEIGHT, ZIGZAG_PERIOD = 1.4, 2.5, 8.0
LINE_REACH = 6.0  # largest distance of a line from the centre
CANNY_BLUR = 0.8  # standard deviation
CANNY_LOW, CANNY_HIGH = 0.1, 0.3  # thresholds, as shares of the gradient at the edge of black and white


def corrupt(name: str, images: np.ndarray, seed: int) -> np.ndarray:
    """Apply the named corruption to uint8 images (n, h, w, 1 or 3), with draws that depend on seed and name alone.

    Raises:
        KeyError: there is no such corruption.
    """
    corruption = CORRUPTIONS[name]
    # Seeded by the name too, so that a new corruption changes no other.
    rng = np.random.default_rng([seed, *name.encode()])
    result = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        result[start : start + CHUNK] = corruption(images[start : start + CHUNK], rng)
    return result


def shot_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace each pixel by a Poisson variable with its value as the mean, in few photons."""
    return _pixels(rng.poisson(images * (PHOTONS / WHITE)) * (WHITE / PHOTONS))


def impulse_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn random pixels white or black (salt and pepper), all channels together."""
    draws = rng.random((*images.shape[:3], 1), np.float32)
    return np.where(draws < IMPULSES / 2, 0, np.where(draws < IMPULSES, WHITE, images)).astype(np.uint8)


def glass_blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Displace pixels at random, as frosted glass does, then blur."""
    count, height, width, _ = images.shape
    reach = max(1, round(GLASS_REACH * _unit(images)))
    down, across = rng.integers(-reach, reach, (2, 2, count, height, width), np.int16, endpoint=True).sum(axis=0)
    rows = np.clip(np.arange(height)[:, np.newaxis] + down, 0, height - 1)
    columns = np.clip(np.arange(width) + across, 0, width - 1)
    shuffled = images[np.arange(count)[:, np.newaxis, np.newaxis], rows, columns].astype(np.float32)
    blur = GLASS_BLUR * _unit(images)
    return _pixels(ndimage.gaussian_filter(shuffled, (0, blur, blur, 0)))


def motion_blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Average along a straight path in a random direction for each image."""
    length = MOTION * _unit(images)
    half = int(np.ceil(length / 2))
    angle = rng.uniform(0, np.pi, len(images)).astype(np.float32)
    along, across = _turned(2 * half + 1, 2 * half + 1, angle)
    distance = np.hypot(across, np.maximum(np.abs(along) - (length - 1) / 2, 0))
    path = np.maximum(1 - distance, 0)
    path /= path.sum(axis=(1, 2), keepdims=True)
    padded = np.pad(images.astype(np.float32), ((0, 0), (half, half), (half, half), (0, 0)))
    return _pixels(signal.fftconvolve(padded, path[..., np.newaxis], mode="valid", axes=(1, 2)))


def shear(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slant to the left or right, about the centre."""
    slant = _either_way(SHEAR, len(images), rng)
    one, zero = np.ones_like(slant), np.zeros_like(slant)
    return _affine(images, np.stack([one, slant, zero, one], axis=1))


def scale(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shrink about the centre."""
    inverse = 1 / rng.uniform(*SCALE, len(images))
    zero = np.zeros_like(inverse)
    return _affine(images, np.stack([inverse, zero, zero, inverse], axis=1))


def rotate(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate either way, about the centre."""
    angle = np.deg2rad(_either_way(ROTATION, len(images), rng))
    cosine, sine = np.cos(angle), np.sin(angle)
    return _affine(images, np.stack([cosine, -sine, sine, cosine], axis=1))


def brightness(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighten all pixels by the same amount, up to white."""
    return _pixels(images + np.float32(BRIGHTNESS * WHITE))


def translate(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move along both axes, either way, by whole pixels; fill with black."""
    count, height, width, _ = images.shape
    distance = rng.integers(*TRANSLATION, (2, count), endpoint=True) * rng.choice([-1, 1], (2, count))
    down, across = np.rint(distance * _unit(images)).astype(int)
    rows, columns = np.arange(height) - down[:, np.newaxis], np.arange(width) - across[:, np.newaxis]
    inside = ((rows >= 0) & (rows < height))[:, :, np.newaxis] & ((columns >= 0) & (columns < width))[:, np.newaxis]
    each = np.arange(count)[:, np.newaxis, np.newaxis]
    moved = images[each, rows[:, :, np.newaxis] % height, columns[:, np.newaxis] % width]
    return np.where(inside[..., np.newaxis], moved, 0).astype(np.uint8)


def stripe(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Invert a vertical stripe in the middle."""
    width = images.shape[2]
    across = min(width, max(1, round(STRIPE * _unit(images))))
    left = (width - across) // 2
    result = images.copy()
    result[:, :, left : left + across] = WHITE - result[:, :, left : left + across]
    return result


def fog(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mix in white, more where a random cloud is thicker."""
    count, height, width, _ = images.shape
    side = 1 << (max(height, width) - 1).bit_length()
    density = FOG * _clouds(count, side, rng)[:, :height, :width, np.newaxis]
    return _pixels(images + (WHITE - images.astype(np.float32)) * density)


def spatter(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover with opaque grey spots."""
    noise = rng.standard_normal(images.shape[:3], np.float32)
    blur = SPATTER_SIZE * _unit(images)
    noise = ndimage.gaussian_filter(noise, (0, blur, blur), mode="wrap")
    # A Gaussian blur along two axes divides the standard deviation of white noise by this factor.
    level = noise * (2 * np.sqrt(np.pi) * blur)
    spots = np.clip(3 * (level - SPATTER_LEVEL) + 0.5, 0, 1)[..., np.newaxis]
    return _pixels(images * (1 - spots) + SPATTER_GREY * WHITE * spots)


def dotted_line(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a white dotted line through the image, at a random angle and position."""
    along, across = _line(images, rng)
    phase = _fraction(along / DOT_SPACING + rng.random((len(images), 1, 1), np.float32))
    return _drawn(images, np.hypot(across, DOT_SPACING * (phase - 0.5)) - DOT_RADIUS)


def zigzag(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a white zigzag through the image, at a random angle and position."""
    along, across = _line(images, rng)
    phase = _fraction(along / ZIGZAG_PERIOD + rng.random((len(images), 1, 1), np.float32))
    distance = np.abs(across - ZIGZAG_HEIGHT * (4 * np.abs(phase - 0.5) - 1))  # in the direction of `across`
    slope = 4 * ZIGZAG_HEIGHT / ZIGZAG_PERIOD
    return _drawn(images, distance / np.float32(np.hypot(1, slope)) - ZIGZAG_WIDTH / 2)


def canny_edges(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep only edges: white on black.

    J. Canny, A computational approach to edge detection, 1986: the gradient after a Gaussian blur, its maxima across
    the edge, and of these the weak ones only if they are connected to a strong one.
    """
    blur = CANNY_BLUR * _unit(images)
    grey = images.mean(axis=3, dtype=np.float32) * np.float32(np.sqrt(2 * np.pi) * blur / WHITE)  # so a step has 1
    down = ndimage.gaussian_filter(grey, (0, blur, blur), order=(0, 1, 0), mode="nearest")
    across = ndimage.gaussian_filter(grey, (0, blur, blur), order=(0, 0, 1), mode="nearest")
    gradient = np.hypot(down, across)
    candidates = _ridges(gradient, down, across) & (gradient > CANNY_LOW)
    neighbours = np.zeros((3, 3, 3))
    neighbours[1] = 1  # only within the same image
    edges, count = ndimage.label(candidates, neighbours)
    strong = np.zeros(count + 1, bool)
    strong[edges[candidates & (gradient > CANNY_HIGH)]] = True
    found = (strong[edges] * WHITE).astype(np.uint8)
    return np.repeat(found[..., np.newaxis], images.shape[3], axis=3)


CORRUPTIONS: dict[str, Corruption] = {
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted_line": dotted_line,
    "zigzag": zigzag,
    "canny_edges": canny_edges,
}


def _pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, WHITE).astype(np.uint8)


def _unit(images: np.ndarray) -> float:
    """The length of one pixel of an image of SIDE pixels, in pixels of these images."""
    return min(images.shape[1:3]) / SIDE


def _either_way(bounds: tuple[float, float], count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(*bounds, count) * rng.choice([-1, 1], count)


def _affine(images: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Transform each image by its own (a, b, c, d), with bilinear interpolation, black outside.

    Relative to the centre, position (x, y) of the result shows position (a x + b y, c x + d y) of the image.
    """
    height, width = images.shape[1:3]
    x, y = width / 2, height / 2
    result = np.empty_like(images)
    for image, changed, (a, b, c, d) in zip(images, result, matrices.tolist(), strict=True):
        coefficients = (a, b, x - a * x - b * y, c, d, y - c * x - d * y)
        picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        picture = picture.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
        changed[...] = np.asarray(picture).reshape(image.shape)
    return result


def _turned(height: int, width: int, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of pixels from the centre, along and across a direction for each image: two of (n, h, w), in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    cosine, sine = np.cos(angles)[:, np.newaxis, np.newaxis], np.sin(angles)[:, np.newaxis, np.newaxis]
    return cosine * x + sine * y, cosine * y - sine * x


def _line(images: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions of pixels along and across a random line: two of (n, h, w), in pixels of SIDE."""
    count, height, width, _ = images.shape
    along, across = _turned(height, width, rng.uniform(0, np.pi, count).astype(np.float32))
    off = rng.uniform(-LINE_REACH, LINE_REACH, (count, 1, 1)).astype(np.float32)
    return along / _unit(images), across / _unit(images) - off


def _fraction(values: np.ndarray) -> np.ndarray:
    return values - np.floor(values)


def _drawn(images: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Draw a shape in white, given each pixel's distance outside of it, (n, h, w) in pixels of SIDE."""
    ink = _pixels((0.5 - outside * np.float32(_unit(images))) * WHITE)
    return np.maximum(images, ink[..., np.newaxis])


def _clouds(count: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Random clouds from 0 to 1: float32 (count, side, side), side a power of two.

    The diamond-square algorithm (A. Fournier, D. Fussell, L. Carpenter, Computer rendering of stochastic models, 1982),
    periodic at the edges: points between known ones get their mean plus noise, which decreases with the grid size.
    """
    heights = np.zeros((count, side, side), np.float32)
    step, amplitude = side, 1.0
    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        noise = amplitude * rng.standard_normal((3, *corners.shape), np.float32)
        rightwards, downwards = corners + np.roll(corners, -1, 2), corners + np.roll(corners, -1, 1)
        centres = (rightwards + np.roll(rightwards, -1, 1)) / 4 + noise[0]
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = (rightwards + centres + np.roll(centres, 1, 1)) / 4 + noise[1]
        heights[:, half::step, ::step] = (downwards + centres + np.roll(centres, 1, 2)) / 4 + noise[2]
        step, amplitude = half, amplitude * FOG_ROUGHNESS
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / np.maximum(heights.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)


def _ridges(gradient: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Mark gradients larger than both neighbours in their direction, one of eight: bool (n, h, w)."""
    sector = np.rint(np.arctan2(down, across) * (4 / np.pi)).astype(np.int8) % 4
    height, width = gradient.shape[1:]
    padded = np.pad(gradient, ((0, 0), (1, 1), (1, 1)))
    result = np.zeros(gradient.shape, bool)
    for number, (y, x) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        ahead = padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
        behind = padded[:, 1 - y : 1 - y + height, 1 - x : 1 - x + width]
        result |= (sector == number) & (gradient > ahead) & (gradient >= behind)
    return result
