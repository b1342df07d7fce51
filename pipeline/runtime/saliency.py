"""Saliency: the evidence for a class at each position of an image."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from models import inference

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.SeparableConv2D, keras.layers.DepthwiseConv2D)
# What may follow a convolution before pooling: its activation, a gate, the sum of a residual block.
FOLLOWING = (keras.layers.Activation, keras.layers.Multiply, keras.layers.Add)


def grad_cam(model: keras.Model, images: np.ndarray, classes: np.ndarray) -> np.ndarray | None:
    """The evidence for a class at each position of the last feature maps: float32 (n, height, width), at least 0.

    ReLU(sum_k alpha_k A_k), with A_k the feature maps of the last convolution, or residual sum, behind its activation,
    and alpha_k the mean over the positions of the derivative of the class's logit by A_k; brought to the size of the
    image by linear interpolation. Selvaraju et al.: Grad-CAM: visual explanations from deep networks via gradient-based
    localization, arXiv 1610.02391.

    Args:
        images: uint8, of shape (n, height, width, channels).
        classes: one class for each image, (n,).

    Returns:
        None for a network without convolutions, or one that does not end in a dense layer.
    """
    output = inference.classifier(model)
    if output is None or not any(isinstance(layer, CONVOLUTIONS) for layer in model.layers):
        return None
    last = [layer for layer in model.layers if gives_maps(layer)][-1]
    pixels = scaled(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        if isinstance(model, keras.Sequential):
            maps, vector = outputs(model, [last, model.layers[-2]], pixels)
        else:
            maps, vector = keras.Model(model.inputs[0], [last.output, output.input])(pixels, training=False)
        logits = ops.matmul(ops.cast(vector, "float32"), output.kernel)  # the layer itself may end in softmax
        logits = logits if output.bias is None else logits + output.bias
        chosen = ops.sum(logits * ops.one_hot(classes, logits.shape[-1]), axis=1)
    weights = ops.mean(ops.cast(tape.gradient(chosen, maps), "float32"), axis=(1, 2), keepdims=True)
    evidence = ops.relu(ops.sum(weights * ops.cast(maps, "float32"), axis=-1, keepdims=True))
    return array(ops.image.resize(evidence, images.shape[1:3], interpolation="bilinear"))[..., 0]


def outputs(model: keras.Model, layers: list[keras.Layer | None], images: Any) -> list[Any]:
    """The outputs of some layers for a tensor of images; of None, the images."""
    if not isinstance(model, keras.Sequential):
        wanted = [layer.output if layer else model.inputs[0] for layer in layers]
        return keras.Model(model.inputs[0], wanted)(images, training=False)
    # Loaded ones: `layer.output` belongs to an unfinished form of the model, of which Keras builds several.
    found, values = {None: images}, images
    for layer in model.layers:
        found[layer] = values = layer(values, training=False)
    return [found[layer] for layer in layers]


def gives_maps(layer: keras.Layer) -> bool:
    """Return whether a layer is a convolution, or one of those between convolutions and pooling."""
    return isinstance(layer, (*CONVOLUTIONS, *FOLLOWING)) and len(layer.output.shape) == 4


def scaled(images: np.ndarray) -> Any:
    """Convert uint8 images to a tensor with values in [0, 1]."""
    return ops.convert_to_tensor(images.astype(np.float32) / 255)


def array(values: Any) -> np.ndarray:
    """Convert a tensor of any precision to float32."""
    return ops.convert_to_numpy(ops.cast(values, "float32"))
