"""Registration of pairs of images: shifted, rotated, scaled, blurred, darker and brighter copies of one image.

Candidates are the nearest neighbours of a descriptor: the image resampled to a small grid that is centred, scaled and
turned by the image's moments. They are searched in cells of similar images, so that time and memory are almost linear
in the number of images.

A pair is then registered. The difference of the two images is fitted by least squares with the effects of small changes
on their mean: shift, rotation, scale, blur, contrast, brightness, as in optical flow (B. Lucas, T. Kanade, An iterative
image registration technique with an application to stereo vision, 1981). The images are moved together, and fitted
again. Almost nothing remains for copies, and more for images of two objects, however similar.
"""

from functools import cache

import numpy as np

SIDE = 32  # pixels; larger images are reduced to it
SMALLEST = 8  # pixels; smaller images are not compared
SMOOTHING = 0.8  # pixels, the standard deviation of the Gaussian that both images of a pair are smoothed with
BLUNT = 1.7  # that of images to be described: blurred copies stay neighbours
GRID = 12  # points per axis of a descriptor
REACH = 1.3  # half the side of its grid, in root mean squares of the distance from the centre
ELONGATED = (0.3, 0.6)  # from no rotation to the axis up to a full one: the axis of a round object is arbitrary
DIMENSIONS = 16  # of a descriptor after a projection on its principal components
SAMPLE = 4096  # images that these are computed from
CELL = 256  # images per cell on average
PROBES = 4  # cells that are searched for the neighbours of an image
CENTRES = 512  # of cells that are compared with an image, at most
OVERLAP = 8  # regions that a centre belongs to on average, if there are more centres
NEIGHBOURS = 8  # in each
MOST_PAIRS = 8  # per image on average: the nearest ones
CROWD = 4 * CELL  # maximum number of images of a cell that are compared with each other
BOUND = 0.02  # squared distance of two descriptors of norm 1, above which images are not registered
FAR = 0.015  # residual at half the size, above which images are not moved
HOPELESS = 0.002  # and after moving them, above which they are not registered at the full size
DIFFERENT = 0.003  # and at the full size, above which they are not moved a second time
TERMS = 7  # effects that are fitted: shift down, shift right, rotation, scale, blur, contrast, brightness
BATCH = 512  # pairs registered at a time: their arrays fit into the processor's cache
DAMPING = 1e-3
CHUNK = 2**20  # pairs whose distances are computed at a time


def prepared(images: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Reduced and smoothed images: uint8 (n, h, w, c) -> float32 (n, c, height, width)."""
    _, height, width, _ = images.shape
    down, right = (_smoothing(size, min(size, SIDE), smoothing) for size in (height, width))
    return down @ (np.moveaxis(images, 3, 1).astype(np.float32) @ right.T)


def reduced(images: np.ndarray) -> np.ndarray:
    """Means over areas, so that no side is longer than SIDE: uint8 (n, h, w, c) -> uint8 (n, height, width, c)."""
    down, right = (_means(size, min(size, SIDE)).astype(np.float32) for size in images.shape[1:3])
    return np.moveaxis(np.rint(down @ (np.moveaxis(images, 3, 1).astype(np.float32) @ right.T)), 1, 3).astype(np.uint8)


@cache
def _smoothing(size: int, reduced: int, deviation: float) -> np.ndarray:
    """The matrix that reduces an axis by means of its pixels, and smooths the result, (reduced, size)."""
    offsets = np.subtract.outer(np.arange(reduced), np.arange(reduced))
    kernel = np.exp(-(offsets**2) / 2 / deviation**2)
    return (kernel / kernel[reduced // 2].sum() @ _means(size, reduced)).astype(np.float32)


def _means(size: int, reduced: int) -> np.ndarray:
    """The matrix that reduces an axis by means of its pixels, (reduced, size)."""
    edges = np.arange(reduced + 1) * size / reduced
    lower, upper = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    pixels = np.arange(size)
    return np.clip(np.minimum(upper, pixels + 1) - np.maximum(lower, pixels), 0, None) * reduced / size


def _coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels from the centre: down (height, 1) and right (1, width)."""
    down = np.arange(height, dtype=np.float32)[:, np.newaxis] - (height - 1) / 2
    right = np.arange(width, dtype=np.float32)[np.newaxis] - (width - 1) / 2
    return down, right


def _sampled(images: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Bilinear interpolation of (n, c, height, width) at coordinates (n, rows, columns) from the centre."""
    height, width = images.shape[2:]
    y = np.clip(down + (height - 1) / 2, 0, height - 1 - 1e-3)
    x = np.clip(right + (width - 1) / 2, 0, width - 1 - 1e-3)
    top, left = y.astype(np.int32), x.astype(np.int32)
    y -= top  # in place, so that they remain float32
    x -= left
    y, x = y[:, np.newaxis], x[:, np.newaxis]
    corner = np.arange(len(images))[:, np.newaxis, np.newaxis] * (height * width) + top * width + left
    shifts = (0, 1, width, width + 1)
    flat = np.moveaxis(images, 1, 0).reshape(images.shape[1], -1)
    a, b, c, d = (np.moveaxis(flat.take(corner + shift, axis=1), 0, 1) for shift in shifts)
    return (a * (1 - x) + b * x) * (1 - y) + (c * (1 - x) + d * x) * y


def descriptors(images: np.ndarray) -> np.ndarray:
    """Descriptors of images that are prepared with the smoothing BLUNT: float32 (n, GRID * GRID), of mean 0 and norm 1.

    Those of constant images are 0.
    """
    grey = images.mean(axis=1)
    down, right = _coordinates(*grey.shape[1:])
    mass = grey.sum(axis=(1, 2)) + 1e-6

    def moment(weights: np.ndarray) -> np.ndarray:
        return (grey * weights).sum(axis=(1, 2)) / mass

    y, x = moment(down), moment(right)
    yy, xx, xy = moment(down**2) - y**2, moment(right**2) - x**2, moment(down * right) - x * y
    extent = np.sqrt(np.maximum(xx + yy, 1e-3))
    elongation = np.hypot(yy - xx, 2 * xy) / extent**2
    low, high = ELONGATED
    angle = np.arctan2(2 * xy, yy - xx) / 2 * np.clip((elongation - low) / (high - low), 0, 1)
    step = np.linspace(-REACH, REACH, GRID, dtype=np.float32)
    cos, sin, y, x = (
        value[:, np.newaxis, np.newaxis] for value in (extent * np.cos(angle), extent * np.sin(angle), y, x)
    )
    rows, columns = step[:, np.newaxis], step[np.newaxis]
    points = _sampled(grey[:, np.newaxis], y + cos * rows - sin * columns, x + sin * rows + cos * columns)
    vectors = points.reshape(len(images), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)).astype(np.float32)


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """The principal components of descriptors, (GRID * GRID, DIMENSIONS)."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return axes[:, -DIMENSIONS:]


def neighbours(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows that are near each other: of each row, the nearest ones in each of the cells nearest to it.

    Returns:
        the lower and the higher number of each pair, each pair once.
    """
    if len(vectors) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    draws = np.random.default_rng(seed)
    centres = vectors[draws.choice(len(vectors), -(-len(vectors) // CELL), replace=False)]
    cells = _cells(vectors, centres)
    probes = cells.shape[1]
    pairs = [np.empty(0, np.int64)]
    members = np.split(
        np.argsort(cells[:, 0], kind="stable"), np.cumsum(np.bincount(cells[:, 0], minlength=len(centres)))
    )
    visits = np.argsort(cells.ravel(), kind="stable") // probes
    visitors = np.split(visits, np.cumsum(np.bincount(cells.ravel(), minlength=len(centres))))
    for cell in range(len(centres)):
        for start in range(0, len(visitors[cell]), CROWD):
            queries = visitors[cell][start : start + CROWD]
            first = max(0, min(start, len(members[cell]) - CROWD))
            inside = members[cell][first : first + CROWD]
            pairs.append(_nearest(vectors, queries, inside))
    lower, higher = np.divmod(np.unique(np.concatenate(pairs)), len(vectors))
    if len(lower) > MOST_PAIRS * len(vectors):
        squares = np.empty(len(lower), np.float32)
        for start in range(0, len(lower), CHUNK):
            part = slice(start, start + CHUNK)
            squares[part] = np.square(vectors[lower[part]] - vectors[higher[part]]).sum(axis=1)
        kept = np.sort(np.argpartition(squares, MOST_PAIRS * len(vectors))[: MOST_PAIRS * len(vectors)])
        lower, higher = lower[kept], higher[kept]
    return lower, higher


def _cells(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The numbers of the nearest centres of each vector, the nearest first: (n, PROBES).

    Among many centres, those near one that is near the vector are searched: else time would be quadratic.
    """
    probes = min(PROBES, len(centres))
    cells = np.empty((len(vectors), probes), np.int32)
    coarse = centres[: OVERLAP * len(centres) // CENTRES if len(centres) > CENTRES else 1]
    blocks = [slice(start, start + CROWD) for start in range(0, len(vectors), CROWD)]
    region = np.concatenate([_squares(vectors[block], coarse).argmin(axis=1) for block in blocks])
    for number, centre in enumerate(coarse):
        near = np.sort(np.argsort(_squares(centre[np.newaxis], centres)[0], kind="stable")[:CENTRES])
        members = np.flatnonzero(region == number)
        for start in range(0, len(members), CROWD):
            rows = members[start : start + CROWD]
            squares = _squares(vectors[rows], centres[near])
            nearest = np.argpartition(squares, probes - 1, axis=1)[:, :probes]
            order = np.argsort(np.take_along_axis(squares, nearest, axis=1), axis=1)
            cells[rows] = near[np.take_along_axis(nearest, order, axis=1)]
    return cells


def _nearest(vectors: np.ndarray, queries: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Pairs of each query and its neighbours inside a cell, as lower number * n + higher number."""
    squares = _squares(vectors[queries], vectors[inside])
    squares[queries[:, np.newaxis] == inside] = np.inf
    count = min(NEIGHBOURS, len(inside))
    nearest = np.argpartition(squares, count - 1, axis=1)[:, :count] if count else np.empty((len(queries), 0), np.intp)
    rows, places = np.nonzero(np.take_along_axis(squares, nearest, axis=1) < BOUND)
    one, other = queries[rows], inside[nearest[rows, places]]
    return np.minimum(one, other).astype(np.int64) * len(vectors) + np.maximum(one, other)


def _squares(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances between the rows of two matrices."""
    norms = [np.einsum("ij,ij->i", each, each) for each in (one, other)]
    return norms[0][:, np.newaxis] + norms[1] - 2 * one @ other.T


def residuals(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Residual difference of pairs of prepared images after registration, relative to their variance: (n,).

    Infinite for pairs that are given up.
    """
    batches = (slice(start, start + BATCH) for start in range(0, len(one), BATCH))
    return np.concatenate([np.empty(0, np.float32), *(_registered(one[batch], other[batch]) for batch in batches)])


def _registered(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    full, small = (one, other), (_halved(one), _halved(other))
    result, moves = _fitted(*small)
    for pair, zoom, bound in ((small, 1, FAR), (full, 2, HOPELESS), (full, 1, DIFFERENT)):
        moves[:, :2] *= zoom  # shifts are in pixels
        result[result >= bound] = np.inf
        rows = np.flatnonzero(result < bound)
        result[rows], more = _fitted(*_approached(pair, rows, moves))
        moves[rows] += more
    return result


def _approached(
    pair: tuple[np.ndarray, np.ndarray], rows: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both images of some pairs, each moved half of the way: interpolation then blurs both alike."""
    half = moves[rows] / 2
    return _moved(pair[0][rows], half), _moved(pair[1][rows], -half)


def _halved(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[2:]
    return _smoothing(height, height // 2, SMOOTHING) @ (images @ _smoothing(width, width // 2, SMOOTHING).T)


def _moved(images: np.ndarray, moves: np.ndarray) -> np.ndarray:
    down, right = _coordinates(*images.shape[2:])
    y, x, turn, scale = (move[:, np.newaxis, np.newaxis] for move in moves.T)
    return _sampled(images, down + y + right * turn + down * scale, right + x - down * turn + right * scale)


def _fitted(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residual of each pair, and the shift down, shift right, rotation and scale that bring it closer: (n, 4)."""
    mean = (one + other) / 2
    down, right = _coordinates(*mean.shape[2:])
    padded = np.pad(mean, ((0, 0), (0, 0), (1, 1), (1, 1)))
    above, below = padded[:, :, :-2, 1:-1], padded[:, :, 2:, 1:-1]
    before, after = padded[:, :, 1:-1, :-2], padded[:, :, 1:-1, 2:]
    terms = np.empty((len(mean), TERMS, *mean.shape[1:]), np.float32)  # np.stack takes twice the time of this
    y, x = terms[:, 0], terms[:, 1]
    y[:], x[:] = (below - above) / 2, (after - before) / 2
    terms[:, 2] = right * y - down * x
    terms[:, 3] = down * y + right * x
    terms[:, 4] = above + below + before + after - 4 * mean
    terms[:, 5] = mean
    terms[:, 6] = 1
    pixels = mean[0].size if len(mean) else 0  # reshape cannot infer a size where there is no pair
    terms = terms.reshape(len(mean), TERMS, pixels)
    target = (other - one).reshape(len(mean), pixels, 1)
    squares = terms @ terms.swapaxes(1, 2) + DAMPING * np.eye(TERMS, dtype=np.float32)
    weights = np.linalg.solve(squares, terms @ target)
    left = target - terms.swapaxes(1, 2) @ weights
    centred = mean - mean.mean(axis=(2, 3), keepdims=True)
    energy = np.einsum("nchw,nchw->n", centred, centred) + 1e-3
    return np.einsum("npi,npi->n", left, left) / energy, weights[:, :4, 0]
