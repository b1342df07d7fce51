"""Random changes of brightness, contrast, saturation and hue."""

from typing import Any

import tensorflow as tf

from pipeline.core.sections import Augmentation


def jittered(pixels: Any, augmentation: Augmentation, seed: Any) -> tf.Tensor:
    """Change the colours of images in [0, 1], each with its own draws, in the order of the names above.

    As TensorFlow's `tf.image.adjust_*`: brightness is added, contrast scales differences from each channel's mean,
    saturation and hue are those of HSV. All draws are uniform; results are clipped to [0, 1].
    """
    draws = tf.random.stateless_uniform((4, pixels.shape[0], 1, 1, 1), seed, minval=-1.0, maxval=1.0)
    if augmentation.brightness:
        pixels += draws[0] * augmentation.brightness
    if augmentation.contrast:
        mean = tf.reduce_mean(pixels, axis=(1, 2), keepdims=True)
        pixels = mean + (pixels - mean) * (1 + draws[1] * augmentation.contrast)
    pixels = tf.clip_by_value(pixels, 0.0, 1.0)
    if augmentation.saturation or augmentation.hue:
        hue, saturation, value = tf.split(tf.image.rgb_to_hsv(pixels), 3, axis=3)
        saturation = tf.clip_by_value(saturation * (1 + draws[2] * augmentation.saturation), 0.0, 1.0)
        hue = tf.math.floormod(hue + draws[3] * augmentation.hue, 1.0)
        pixels = tf.image.hsv_to_rgb(tf.concat([hue, saturation, value], axis=3))
    return pixels
