"""Near duplicates: low frequencies of images, perceptual hashes of 64 bits, and the distance of two images.

The hash is pHash (C. Zauner, Implementation and benchmarking of perceptual image hash functions, 2010): the signs of
the lowest frequencies of the cosine transform relative to their median. Time and memory are linear in the number of
images: only neighbours in sorted orders of the hashes are compared.

Not imagehash, which offers hashes alone: 8,309 pairs of MNIST's 60,000 training images have equal 64-bit hashes; 256
bits leave 7 false pairs instead of none, and comparing all pairs takes 20 s instead of 0.3 s (docs/data.md).
"""

from collections.abc import Iterator
from functools import cache

import numpy as np

COARSE = 8  # frequencies per axis for the hash
FINE = 16  # frequencies per axis for the distance
WHITE = (COARSE / FINE) ** 2  # share of the coarse frequencies in white noise; two objects differ more in them
BITS = 64
STEP = 16  # bits of rotation between two sorted orders
WINDOW = 4  # neighbours compared in each order
MAX_BITS = 4  # by which the hashes of a candidate pair may differ
CHUNK = 4096  # images whose frequencies are held as floats at a time


def frequencies(images: np.ndarray, count: int = COARSE) -> np.ndarray:
    """The lowest frequencies of the cosine transform of each channel: (n, h, w, c) -> float32 (n, c, count * count)."""
    number, height, width, channels = images.shape
    # As two products of large matrices each, which are much faster than stacks of small ones.
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
    """Pairs of images whose hashes differ by a few bits, as earlier and later numbers; some pairs are repeated."""
    numbers = np.arange(len(codes), dtype=np.int32)
    for turn in range(0, BITS, STEP):
        rotated = (codes << np.uint64(turn)) | (codes >> np.uint64((BITS - turn) % BITS))
        order = numbers[np.argsort(rotated, kind="stable")]
        for step in range(1, min(WINDOW, len(codes) - 1) + 1):
            left, right = order[:-step], order[step:]
            near = np.bitwise_count(codes[left] ^ codes[right]) <= MAX_BITS
            left, right = left[near], right[near]
            yield np.minimum(left, right), np.maximum(left, right)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - the correlation of two images in their low frequencies, pair by pair: 0 for equal, 1 for unrelated images.

    Brightness and contrast have no influence, fine noise hardly any. Both arguments are frequencies (n, c, k).
    """
    a, b = _centred(one), _centred(other)
    return 1 - np.einsum("ij,ij->i", a, b)


def _centred(spectrum: np.ndarray) -> np.ndarray:
    vectors = without_brightness(spectrum)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def without_brightness(spectrum: np.ndarray) -> np.ndarray:
    """Frequencies as one vector per image, without the mean of all channels but with the colour cast: (n, c * k)."""
    values = spectrum.astype(np.float32)
    values[:, :, 0] -= values[:, :, 0].mean(axis=1, keepdims=True)
    return values.reshape(len(values), values.shape[1] * values.shape[2])
