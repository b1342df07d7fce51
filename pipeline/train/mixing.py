"""Mixup and CutMix: each image of a batch is mixed with another one, and so are their labels."""

from typing import Any

import tensorflow as tf

from pipeline.core.sections import Augmentation


def mixed(pixels: Any, labels: Any, augmentation: Augmentation, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix each image with the one before it in the batch, whose order is random, with its own draws.

    Where both kinds are on, each image gets one of them, with equal chances.
    """
    shape = tuple(pixels.shape)
    kinds, alphas = (mixup_share, cutmix_share), (augmentation.mixup, augmentation.cutmix)
    of_shares: Any = tf.random.fold_in(seed, 2)
    shares = [kind(alpha, shape, of_shares) for kind, alpha in zip(kinds, alphas, strict=True) if alpha]
    share: Any = shares[0]
    if len(shares) > 1:
        of_kinds: Any = tf.random.fold_in(seed, 3)
        first = tf.random.stateless_uniform((shape[0], 1, 1, 1), of_kinds) < 0.5
        share = tf.where(first, shares[0], shares[1])
    of_label = tf.reduce_mean(share, axis=(1, 2, 3))[:, None]
    return (
        pixels * (1 - share) + tf.roll(pixels, 1, axis=0) * share,
        labels * (1 - of_label) + tf.roll(labels, 1, axis=0) * of_label,
    )


def mixup_share(alpha: float, shape: tuple[int, ...], seed: Any) -> tf.Tensor:
    """The share of the other image in each pixel, (n, height, width, 1): the same for all, of a beta distribution.

    Zhang et al.: mixup: Beyond Empirical Risk Minimization, 1710.09412.
    """
    return tf.broadcast_to(beta(alpha, shape[0], seed)[:, None, None, None], (*shape[:3], 1))


def cutmix_share(alpha: float, shape: tuple[int, ...], seed: Any) -> tf.Tensor:
    """The share of the other image in each pixel, (n, height, width, 1): 1 in a box, 0 outside.

    The box has the image's proportions and an area of a beta distribution; its centre is uniform, and what lies outside
    of the image is lost. Yun et al.: CutMix, 1905.04899.
    """
    count, height, width = shape[:3]
    side = tf.sqrt(beta(alpha, count, seed))
    of_centre: Any = tf.random.fold_in(seed, 0)
    centre = tf.random.stateless_uniform((2, count), of_centre)
    rows = _between(height, centre[0] * height, side * height)
    columns = _between(width, centre[1] * width, side * width)
    return rows[:, :, None, None] * columns[:, None, :, None]


def beta(alpha: Any, count: int, seed: Any) -> tf.Tensor:
    """Draw from the beta distribution whose parameters are both `alpha`, (count,)."""
    # In float64: gamma variates of a small alpha are too small for float32.
    first, second = tf.unstack(tf.random.stateless_gamma((2, count), seed, alpha, dtype=tf.float64))
    return tf.cast(tf.math.divide_no_nan(first, first + second), tf.float32)


def _between(size: int, centre: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
    """1 for pixels of an axis within boxes, else 0: (n, size)."""
    low, high = tf.round(centre - side / 2)[:, None], tf.round(centre + side / 2)[:, None]
    place = tf.range(size, dtype=tf.float32)
    return tf.cast((place >= low) & (place < high), tf.float32)
