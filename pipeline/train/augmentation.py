"""Random augmentation of image batches: affine and elastic transforms, flips, erased rectangles, colours."""

import math
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.core.sections import Augmentation
from pipeline.train.colors import jittered

SMOOTHNESS = 7  # of elastic distortions: image side over the standard deviation of the filter; 4 pixels in MNIST
ERASED = (0.02, 0.33)  # least and largest share of an image that is erased
PROPORTION = 3.3  # most of height over width, and of width over height, of what is erased
NODES = 14  # of elastic distortions, along each axis: two per standard deviation of the filter


def augmented(pixels: tf.Tensor, shape: tuple[int, ...], augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """Augment a batch of `shape` (n, height, width, channels), each image with its own draws."""
    if augmentation.geometric:
        pixels = displaced(pixels, shape, augmentation, seed)
    if augmentation.flip:
        of_flips: Any = tf.random.fold_in(seed, 4)
        mirrored = tf.random.stateless_uniform((shape[0], 1, 1, 1), of_flips) < 0.5
        pixels = tf.where(mirrored, tf.reverse(pixels, [2]), pixels)
    if augmentation.colored:
        pixels = jittered(pixels, augmentation, tf.random.fold_in(seed, 5))
    if augmentation.erase:
        pixels = erased(pixels, shape, augmentation.erase, tf.random.fold_in(seed, 6))
    return pixels


def displaced(pixels: tf.Tensor, shape: tuple[int, ...], augmentation: Augmentation, seed: tf.Tensor) -> tf.Tensor:
    """Apply random affine transforms and elastic distortions."""
    transforms = random_affine(augmentation, shape, seed)
    if not augmentation.elastic:
        return transformed(pixels, transforms, augmentation.fill_mode)
    rows, columns = places(transforms, shape)
    other: Any = tf.random.fold_in(seed, 1)
    down, across = random_field(augmentation.elastic, shape, other)
    rows, columns = rows + down, columns + across
    if augmentation.fill_mode == "nearest":
        rows, columns = tf.clip_by_value(rows, 0, shape[1] - 1), tf.clip_by_value(columns, 0, shape[2] - 1)
    return sampled(pixels, shape, rows, columns)


def erased(pixels: tf.Tensor, shape: tuple[int, ...], probability: float, seed: Any) -> tf.Tensor:
    """Replace the pixels of a random rectangle by noise, in a share of the images.

    Zhong et al.: Random Erasing Data Augmentation, 1708.04896, with the ranges of torchvision: the area is uniform, the
    logarithm of height over width as well, and so is the place. A side that does not fit is cut to that of the image.
    """
    count, height, width = shape[:3]
    draws = tf.random.stateless_uniform((5, count, 1, 1, 1), seed)
    area = (ERASED[0] + draws[0] * (ERASED[1] - ERASED[0])) * height * width
    ratio = tf.exp((2 * draws[1] - 1) * math.log(PROPORTION))
    down, across = (
        tf.minimum(tf.round(tf.sqrt(area * ratio)), height),
        tf.minimum(tf.round(tf.sqrt(area / ratio)), width),
    )
    top, left = tf.floor(draws[2] * (height - down + 1)), tf.floor(draws[3] * (width - across + 1))
    row = tf.range(height, dtype=tf.float32)[None, :, None, None]
    column = tf.range(width, dtype=tf.float32)[None, None, :, None]
    inside = (row >= top) & (row < top + down) & (column >= left) & (column < left + across)
    of_noise: Any = tf.random.fold_in(seed, 0)
    noise = tf.random.stateless_uniform(shape, of_noise)
    return tf.where(inside & (draws[4] < probability), noise, pixels)


def random_affine(augmentation: Augmentation, shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """Draw an affine transform per image, as the eight coefficients of a projective one: (n, 8).

    Each maps coordinates of the result to coordinates of the image, about its centre: rotation, shear and scale first,
    then the shift. All four are uniform between minus and plus the configured bound.
    """
    count, height, width = shape[:3]
    draws = tf.random.stateless_uniform((5, count), seed, minval=-1.0, maxval=1.0)
    angle = draws[0] * float(np.deg2rad(augmentation.rotation))
    slant = tf.tan(draws[1] * float(np.deg2rad(augmentation.shear)))
    size = 1.0 / (1.0 + draws[2] * augmentation.scale)
    across, down = draws[3] * augmentation.shift * width, draws[4] * augmentation.shift * height
    cosine, sine = tf.cos(angle), tf.sin(angle)
    a, b = size * cosine, size * (slant * cosine - sine)
    c, d = size * sine, size * (slant * sine + cosine)
    x, y = (width - 1) / 2, (height - 1) / 2
    zero = tf.zeros_like(a)
    return tf.stack([a, b, x - a * x - b * y + across, c, d, y - c * x - d * y + down, zero, zero], axis=1)


def transformed(pixels: tf.Tensor, transforms: tf.Tensor, fill_mode: str = "constant") -> tf.Tensor:
    """Apply projective transforms, bilinear; outside zero (`constant`) or as the nearest pixel (`nearest`)."""
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=pixels.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill_mode.upper(),
    )


def places(transforms: tf.Tensor, shape: tuple[int, ...]) -> tuple[tf.Tensor, tf.Tensor]:
    """Row and column of the image that each pixel of the result is mapped to: two of shape (n, height, width)."""
    a, b, c, d, e, f = tf.unstack(transforms[:, :6, None, None], axis=1)
    y, x = tf.meshgrid(tf.range(shape[1], dtype=tf.float32), tf.range(shape[2], dtype=tf.float32), indexing="ij")
    return d * x + e * y + f, a * x + b * y + c


def random_field(strength: float, shape: tuple[int, ...], seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Draw smooth displacements along rows and columns, in pixels: two of shape (n, height, width).

    Independent numbers at the nodes of a grid, spread over the pixels by a Gaussian filter whose standard deviation is
    a seventh of the image. The field's standard deviation is `strength` times the height or width. Simard, Steinkraus,
    Platt: Best practices for convolutional neural networks applied to visual document analysis, ICDAR 2003, where
    every pixel is a node; their setting for MNIST, 4 pixels and a factor of 34, is a strength of 0.05.
    """
    count, height, width = shape[:3]
    noise = tf.random.stateless_normal((2, count, NODES, NODES), seed)
    field = tf.tensordot(tf.transpose(tf.tensordot(noise, _spread(width), 1), (0, 1, 3, 2)), _spread(height), 1)
    down, across = tf.unstack(tf.transpose(field, (0, 1, 3, 2)))
    return down * strength * height, across * strength * width


def sampled(pixels: tf.Tensor, shape: tuple[int, ...], rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Sample images of `shape` (n, height, width, channels) at coordinates (n, ...), bilinear, zero outside."""
    count, height, width, channels = shape
    stride = width + 3  # of rows in the image with a border of zeros: one pixel before it, two behind
    flat = tf.reshape(tf.pad(pixels, ((0, 0), (1, 2), (1, 2), (0, 0))), (count, (height + 3) * stride, channels))
    rows, columns = tf.clip_by_value(rows, -1.0, height) + 1, tf.clip_by_value(columns, -1.0, width) + 1
    top, left = tf.floor(rows), tf.floor(columns)
    below, right = (rows - top)[..., None], (columns - left)[..., None]
    corner = tf.cast(top, tf.int32) * stride + tf.cast(left, tf.int32)

    def at(offset: int) -> tf.Tensor:
        return tf.gather(flat, corner + offset, batch_dims=1)

    upper = at(0) * (1 - right) + at(1) * right
    lower = at(stride) * (1 - right) + at(stride + 1) * right
    return upper * (1 - below) + lower * below


def _spread(size: int) -> np.ndarray:
    """Gaussian weights from nodes to pixels of one axis, (NODES, size), that preserve the variance of white noise."""
    away = np.linspace(0, 1, NODES)[:, None] - np.linspace(0, 1, size)
    weights = np.exp(-0.5 * (away * SMOOTHNESS) ** 2)
    return (weights / np.linalg.norm(weights, axis=0)).astype(np.float32)
