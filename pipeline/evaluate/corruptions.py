"""The fifteen corruptions of MNIST-C, which change an image but not its class.

Kinds and parameters are those of the code that made the published dataset (N. Mu and J. Gilmer, MNIST-C: a robustness
benchmark for computer vision, 2019, arXiv 1906.02337), at its severity of each kind; the implementation is this
project's own. On digits of 28 x 28 pixels the mean change of a pixel agrees with that code within 2 % for each kind,
but the draws differ. Every corruption takes uint8 images of shape (n, height, width, 1 or 3) and a generator, and
returns new images of the same shape and type.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy import ndimage

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]

WHITE = 255
CHUNK, VALUES = 250, 2**22  # images, and their pixels and channels, corrupted at a time at most; determine the draws

# Lengths are pixels of an image whose shorter side is SIDE; they grow with the image.
SIDE = 28
PHOTONS = 3.0  # mean number that a white pixel receives
IMPULSES = 0.17  # share of the pixels, half black, half white
GLASS_REACH, GLASS_PASSES = 1.0, 2  # largest move of a pixel along either axis in a swap
GLASS_BLUR = 0.7  # standard deviation
MOTION_PATH, MOTION_BLUR = 20.0, 3.0  # length, and standard deviation of the weights along it
MOTION_ANGLE = 45.0  # degrees from the horizontal, at most
SHEAR = 0.4  # radians
SCALE = 0.7  # of the sides
ROTATION = 0.4  # radians
BRIGHTNESS = 0.5  # of white
TRANSLATION = 3.0  # along either axis
STRIPES = 0.25  # share of the width, at either side
FOG = 3.0  # brightness of the thickest fog, relative to white
FOG_ROUGHNESS = 1.4**-2  # amplitude of each level relative to the next coarser one
FOG_LEVELS, FOG_FINE = 8, 3  # levels of a cloud, which has 2**8 pixels a side, and those of them drawn locally
SPATTER_SIZE, SPATTER_BLUR = 1.0, 1.5  # standard deviations of the blurs of the noise and of the spots in it
SPATTER_EDGE = 0.8  # blurred spots are cut where they are fainter
SPATTER_GREY = 63  # of 255
LINE_REACH = 2.3  # vertical distance at which the logarithm of a line's profile ends
DOT = 2  # columns
ZIGZAG_START, ZIGZAG_END, ZIGZAG_RISE = 2, 25, (-5, 5)
ZIGZAG_ALONG = (0, 2, 6, 10, 14, 18, 22)  # corners, along and across the straight line
ZIGZAG_ACROSS = (0, 2, -2, 2, -2, 2, -2, -1 / 3)  # the last one is at the end of the line
CANNY_BLUR = 1.0  # standard deviation
CANNY_LOW, CANNY_HIGH = 0.1, 0.2  # thresholds of the Sobel gradient, which is 4 at an unblurred step to white


def corrupt(name: str, images: np.ndarray, seed: int, part: int = 0) -> np.ndarray:
    """Apply the named corruption to uint8 images (n, h, w, 1 or 3), with draws that follow from seed, name and part.

    Raises:
        KeyError: there is no such corruption.
    """
    corruption = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, *name.encode(), *([part] if part else [])])  # a new name changes no other
    size = max(1, min(CHUNK, VALUES // math.prod(images.shape[1:])))
    result = np.empty_like(images)
    for start in range(0, len(images), size):
        result[start : start + size] = corruption(images[start : start + size], rng)
    return result


def shot_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace each pixel by a Poisson variable with its value as the mean, in few photons."""
    return _pixels(rng.poisson(images * (PHOTONS / WHITE)) * (WHITE / PHOTONS))


def impulse_noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn random pixels white or black (salt and pepper), all channels together."""
    draws = rng.random((*images.shape[:3], 1), np.float32)
    return np.where(draws < IMPULSES / 2, 0, np.where(draws < IMPULSES, WHITE, images)).astype(np.uint8)


def glass_blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap pixels with neighbours above and to the left, as frosted glass does, between two blurs.

    The blurs are vertical: MNIST-C takes the columns of a grey image for channels. A pass goes over the pixels from
    the lower right to the upper left one; pixels on a slanted line do not interact, so they are swapped together.
    """
    height, width = images.shape[1:3]
    reach, blur = max(1, round(GLASS_REACH * _unit(images))), GLASS_BLUR * _unit(images)
    result = ndimage.gaussian_filter1d(images.astype(np.float32), blur, axis=1, mode="nearest")
    ends = [np.arange(reach + 1, length - reach + 1) for length in (height, width)]
    y, x = (axis.ravel() for axis in np.meshgrid(*ends, indexing="ij"))
    time = (reach + 1) * y + x
    every = np.arange(len(images))[:, np.newaxis]
    for now in np.tile(np.unique(time)[::-1], GLASS_PASSES):
        rows, columns = y[time == now], x[time == now]
        moved = rng.integers(-reach, 1, (2, len(images), len(rows))) * rng.integers(0, 2, (len(images), len(rows)))
        here, there = (every, rows, columns), (every, rows + moved[0], columns + moved[1])
        result[here], result[there] = result[there], result[here]
    return _pixels(ndimage.gaussian_filter1d(result, blur, axis=1, mode="nearest"))


def motion_blur(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smear to the left, along a path of its own angle for each image, with weights that decrease as a half Gaussian.

    Positions on the path are rounded to whole pixels, as in ImageMagick, which MNIST-C uses.
    """
    count, height, width, _ = images.shape
    angle = np.deg2rad(rng.uniform(-MOTION_ANGLE, MOTION_ANGLE, count))
    distance = np.arange(round(MOTION_PATH * _unit(images)) + 1)
    weights = np.exp(-((distance / (MOTION_BLUR * _unit(images))) ** 2) / 2)
    result = np.zeros(images.shape, np.float32)
    for step, weight in zip(distance, weights / weights.sum(), strict=True):
        down, across = np.ceil(step * np.array([np.sin(angle), np.cos(angle)]) - 0.5).astype(int)
        rows = np.clip(np.arange(height) + down[:, np.newaxis], 0, height - 1)
        columns = np.clip(np.arange(width) + across[:, np.newaxis], 0, width - 1)
        result += np.float32(weight) * images[_each(images), rows[:, :, np.newaxis], columns[:, np.newaxis]]
    return _pixels(result)


def shear(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slant to the left or right, about the centre."""
    angle = SHEAR * _signs(len(images), rng)
    one, zero = np.ones_like(angle), np.zeros_like(angle)
    return _affine(images, np.stack([one, -np.sin(angle), zero, np.cos(angle)], axis=1))


def scale(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shrink about the centre."""
    return _affine(images, np.tile([1 / SCALE, 0, 0, 1 / SCALE], (len(images), 1)))


def rotate(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate either way, about the centre."""
    angle = ROTATION * _signs(len(images), rng)
    cosine, sine = np.cos(angle), np.sin(angle)
    return _affine(images, np.stack([cosine, -sine, sine, cosine], axis=1))


def brightness(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighten all pixels by the same amount, up to white."""
    return _pixels(images + np.float32(BRIGHTNESS * WHITE))


def translate(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move along both axes, either way, by whole pixels; fill with black."""
    count, height, width, _ = images.shape
    down, across = np.rint(TRANSLATION * _unit(images) * rng.choice([-1, 1], (2, count))).astype(int)
    rows, columns = np.arange(height) - down[:, np.newaxis], np.arange(width) - across[:, np.newaxis]
    inside = ((rows >= 0) & (rows < height))[:, :, np.newaxis] & ((columns >= 0) & (columns < width))[:, np.newaxis]
    moved = images[_each(images), rows[:, :, np.newaxis] % height, columns[:, np.newaxis] % width]
    return np.where(inside[..., np.newaxis], moved, 0).astype(np.uint8)


def stripe(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Invert the columns at both sides; the middle stays."""
    width = images.shape[2]
    across = max(1, round(STRIPES * width))
    result = WHITE - images
    result[:, :, across : width - across] = images[:, :, across : width - across]
    return result


def fog(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a random cloud, and darken the sum so that no pixel is brighter than the brightest one before."""
    light = images.astype(np.float32) / WHITE
    brightest = light.max(axis=(1, 2, 3), keepdims=True)
    return _pixels(WHITE * (light + FOG * _clouds(images, rng)[..., np.newaxis]) * brightest / (brightest + FOG))


def spatter(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cover with dark grey spots."""
    unit = _unit(images)
    noise = rng.standard_normal(images.shape[:3], np.float32)
    wet = ndimage.gaussian_filter(noise, (0, SPATTER_SIZE * unit, SPATTER_SIZE * unit), mode="nearest") > 0
    blur = SPATTER_BLUR * unit
    spots = ndimage.gaussian_filter(wet.astype(np.float32), (0, blur, blur), mode="nearest")[..., np.newaxis]
    spots[spots < SPATTER_EDGE] = 0
    return _pixels(images * (1 - spots) + SPATTER_GREY * spots)


def dotted_line(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a white dotted line from the left to the right, at random heights."""
    left, right = rng.integers(0, SIDE - 1, (2, len(images)))
    ink = _stroke(images, (np.zeros(len(images)), left), (np.full(len(images), SIDE - 1), right))
    return _drawn(images, ink * (_columns(images) // DOT % 2))


def zigzag(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a white zigzag from the left to the right, at a random height and with a small rise or fall."""
    length = ZIGZAG_END - ZIGZAG_START
    height, rise = rng.integers(0, SIDE - 1, len(images)), rng.integers(*ZIGZAG_RISE, len(images))
    cosine, sine = length / np.hypot(length, rise), rise / np.hypot(length, rise)
    corners = [
        (ZIGZAG_START + cosine * along - sine * across, height + sine * along + cosine * across)
        for along, across in zip((*ZIGZAG_ALONG, length / cosine), ZIGZAG_ACROSS, strict=True)
    ]
    strokes = [_stroke(images, start, end) for start, end in pairwise(corners)]
    return _drawn(images, np.sum(strokes, axis=0))


def canny_edges(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep only edges: white on black.

    J. Canny, A computational approach to edge detection, 1986: the gradient after a Gaussian blur, its maxima across
    the edge, and of these the weak ones only if they are connected to a strong one. The border has none.
    """
    blur = CANNY_BLUR * _unit(images)
    grey = images.mean(axis=3) / WHITE
    smooth, inside = (
        ndimage.gaussian_filter(values, (0, blur, blur), mode="constant") for values in (grey, np.ones_like(grey))
    )
    sobel = _unit(images) * np.outer([-1, 0, 1], [1, 2, 1])
    down, across = (ndimage.correlate(smooth / inside, kernel[np.newaxis]) for kernel in (sobel, sobel.T))
    gradient = np.hypot(down, across)
    candidates = np.zeros(gradient.shape, bool)
    candidates[:, 1:-1, 1:-1] = (_ridges(gradient, down, across) & (gradient >= CANNY_LOW))[:, 1:-1, 1:-1]
    neighbours = np.zeros((3, 3, 3))
    neighbours[1] = 1  # only within the same image
    edges, count = ndimage.label(candidates, neighbours)
    strong = np.zeros(count + 1, bool)
    strong[edges[candidates & (gradient >= CANNY_HIGH)]] = True
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


def _each(images: np.ndarray) -> np.ndarray:
    """The index of each image, to select pixels with rows and columns of shape (n, height, width)."""
    return np.arange(len(images))[:, np.newaxis, np.newaxis]


def _signs(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], count)


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


def _columns(images: np.ndarray) -> np.ndarray:
    """The horizontal position of each column in an image of SIDE columns."""
    return (np.arange(images.shape[2]) + 0.5) * (SIDE / images.shape[2]) - 0.5


def _stroke(images: np.ndarray, start: tuple[np.ndarray, np.ndarray], end: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The ink from 0 to 1 of one line in each image: (n, height, width).

    Ends are horizontal and vertical positions, each of shape (n,), in an image of SIDE x SIDE. A line fades with the
    vertical distance, and ends with whole columns.
    """
    (x0, y0), (x1, y1) = ([part[:, np.newaxis, np.newaxis] for part in place] for place in (start, end))
    x, height = _columns(images), images.shape[1]
    y = ((np.arange(height) + 0.5) * (SIDE / height) - 0.5)[:, np.newaxis]
    distance = np.abs(y - y0 - (y1 - y0) / (x1 - x0) * (x - x0))
    ink = 1 + np.log(np.maximum(1 - distance / LINE_REACH, 1 / np.e))
    return np.where((np.floor(x0) <= x) & (x < np.ceil(x1)), ink, 0)


def _drawn(images: np.ndarray, ink: np.ndarray) -> np.ndarray:
    return _pixels(images + WHITE * ink[..., np.newaxis])


def _clouds(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The corner of a random cloud from 0 to 1 for each image: (n, height, width).

    The cloud has 256 pixels of an image of SIDE a side, by the diamond-square algorithm (A. Fournier, D. Fussell,
    L. Carpenter, Computer rendering of stochastic models, 1982). Its lightest and darkest points follow from the
    coarse levels; only the corner gets the fine ones, with a margin, whose values are wrong at the border.
    """
    heights, amplitude = np.zeros((len(images), 1, 1), np.float32), 1.0
    for _ in range(FOG_LEVELS - FOG_FINE):
        heights, amplitude = _finer(heights, amplitude, rng), amplitude * FOG_ROUGHNESS
    low, high = (end(axis=(1, 2), keepdims=True) for end in (heights.min, heights.max))
    places = [np.arange(length) / _unit(images) for length in images.shape[1:3]]
    cell, margin = 2**FOG_FINE, 2
    for axis, place in enumerate(places, start=1):
        cells = np.arange(-margin, place[-1] // cell + 2 + margin).astype(int)
        heights = heights.take(cells, axis, mode="wrap")
    for _ in range(FOG_FINE):
        heights, amplitude = _finer(heights, amplitude, rng), amplitude * FOG_ROUGHNESS
    for axis, place in enumerate(places, start=1):
        before, share = np.divmod(place + margin * cell, 1)
        index, share = before.astype(int), share.astype(np.float32).reshape((-1, 1) if axis == 1 else (1, -1))
        heights = heights.take(index, axis) * (1 - share) + heights.take(index + 1, axis) * share
    return np.clip((heights - low) / (high - low), 0, 1)


def _finer(heights: np.ndarray, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Double the resolution of maps that are periodic: new points get the mean of their neighbours plus noise."""
    count, rows, columns = heights.shape
    noise = amplitude * rng.uniform(-1, 1, (3, *heights.shape)).astype(np.float32)
    rightwards, downwards = heights + np.roll(heights, -1, 2), heights + np.roll(heights, -1, 1)
    centres = (rightwards + np.roll(rightwards, -1, 1)) / 4 + noise[0]
    finer = np.empty((count, 2 * rows, 2 * columns), np.float32)
    finer[:, ::2, ::2], finer[:, 1::2, 1::2] = heights, centres
    finer[:, ::2, 1::2] = (rightwards + centres + np.roll(centres, 1, 1)) / 4 + noise[1]
    finer[:, 1::2, ::2] = (downwards + centres + np.roll(centres, 1, 2)) / 4 + noise[2]
    return finer


def _ridges(gradient: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Mark gradients no smaller than those before and behind, interpolated between two neighbours: bool (n, h, w)."""
    padded = np.pad(gradient, ((0, 0), (1, 1), (1, 1)))
    y, x = np.mgrid[1 : gradient.shape[1] + 1, 1 : gradient.shape[2] + 1]
    vertical, horizontal = np.sign(down).astype(int), np.sign(across).astype(int)
    steep = np.abs(down) >= np.abs(across)
    larger, smaller = np.maximum(np.abs(down), np.abs(across)), np.minimum(np.abs(down), np.abs(across))
    diagonal = smaller / np.maximum(larger, np.finfo(float).tiny)
    result = np.ones(gradient.shape, bool)
    for way in (1, -1):
        straight = padded[_each(gradient), y + way * vertical * steep, x + way * horizontal * ~steep]
        slanted = padded[_each(gradient), y + way * vertical, x + way * horizontal]
        result &= gradient >= (1 - diagonal) * straight + diagonal * slanted
    return result
