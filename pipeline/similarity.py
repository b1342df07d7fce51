"""Which images look alike: low frequencies, perceptual hashes of 64 bits, and pairs that are nearly the same.

The hash is pHash (C. Zauner, Implementation and benchmarking of perceptual image hash functions, 2010): the signs of
the lowest frequencies of the cosine transform, each against their median. Time and memory grow with the number of
images, not with that of pairs: only neighbours in sorted orders of the hashes are compared.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

COARSE = 8  # frequencies per axis of the hash
FINE = 16  # and of the comparison of two images
BITS = 64
STEP = 16  # the hashes are sorted once for every rotation by so many bits
WINDOW = 4  # neighbours that are looked at in each order
MOST_BITS = 4  # that may differ between the hashes of two images worth a comparison
CHUNK = 4096  # images whose pixels are held as floats at a time


def frequencies(images: np.ndarray, count: int = COARSE) -> np.ndarray:
    """The lowest frequencies of the cosine transform of each channel: (n, h, w, c) -> float32 (n, c, count * count)."""
    number, height, width, channels = images.shape
    # As products of two matrices each, which are much faster than stacks of small ones.
    rows = np.moveaxis(images, 3, 1).astype(np.float32).reshape(-1, width) @ _basis(width, count)
    columns = rows.reshape(-1, height, count).swapaxes(1, 2).reshape(-1, height) @ _basis(height, count)
    return columns.reshape(number, channels, count * count)


@cache
def _basis(size: int, count: int) -> np.ndarray:
    angles = np.pi / size * np.outer(np.arange(size) + 0.5, np.arange(count))
    return (np.cos(angles) / size).astype(np.float32)


def hashes(spectrum: np.ndarray) -> np.ndarray:
    """The perceptual hash of each image, uint64 (n,), from its frequencies in all channels, (n, c, COARSE * COARSE)."""
    codes = np.empty(len(spectrum), np.uint64)
    for start in range(0, len(spectrum), CHUNK):
        grey = spectrum[start : start + CHUNK].astype(np.float32).mean(axis=1)
        bits = np.packbits(grey > np.median(grey, axis=1, keepdims=True), axis=1)
        codes[start : start + CHUNK] = bits.view(np.uint64).ravel()
    return codes


def candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of images whose hashes differ by a few bits, the earlier ones and the later ones; some come repeatedly."""
    numbers = np.arange(len(codes), dtype=np.int32)
    for turn in range(0, BITS, STEP):
        rotated = (codes << np.uint64(turn)) | (codes >> np.uint64((BITS - turn) % BITS))
        order = numbers[np.argsort(rotated, kind="stable")]
        for step in range(1, min(WINDOW, len(codes) - 1) + 1):
            left, right = order[:-step], order[step:]
            near = np.bitwise_count(codes[left] ^ codes[right]) <= MOST_BITS
            left, right = left[near], right[near]
            yield np.minimum(left, right), np.maximum(left, right)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - the correlation of two images in their low frequencies, pair by pair: 0 for the same, 1 for unrelated ones.

    Brightness and contrast do not count, and fine noise hardly does. Both are frequencies of shape (n, c, k).
    """
    a, b = _centred(one), _centred(other)
    return 1 - np.einsum("ij,ij->i", a, b)


def _centred(spectrum: np.ndarray) -> np.ndarray:
    vectors = without_brightness(spectrum)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def without_brightness(spectrum: np.ndarray) -> np.ndarray:
    """Frequencies as one vector per image, without the mean of all channels; the colour cast stays: (n, c * k)."""
    values = spectrum.astype(np.float32)
    values[:, :, 0] -= values[:, :, 0].mean(axis=1, keepdims=True)
    return values.reshape(len(values), -1)
