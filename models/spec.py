"""A network as a person writes it in params.yaml: typed, frozen, and free of TensorFlow.

Image -> blocks -> head -> one output per class. A block is its convolutions, then pooling, then dropout, then batch
normalisation, each optional; the head turns the last feature maps into a vector and classifies it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Activation = Literal["linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]
Initializer = Literal[
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal"
]
Padding = Literal["valid", "same"]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Spec(BaseModel):
    """Base of everything that is read from a file: no unknown keys, no conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Pooling(Spec):
    """How a block shrinks its feature maps; `none` keeps their size."""

    kind: Literal["max", "average", "none"] = "max"
    window: Count = 2
    stride: Count | None = None  # None: the window, so that windows do not overlap
    padding: Padding = "valid"

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.stride or self.window


class Block(Spec):
    """Convolutions, then pooling, then dropout, then batch normalisation.

    `activation` and `kernel_initializer` are one value for all convolutions of the block, or a list with one for each.
    """

    filters: tuple[Count, ...]
    kernel_size: Count = 3
    padding: Padding = "same"
    activation: Activation | tuple[Activation, ...] = "relu"
    kernel_initializer: Initializer | tuple[Initializer, ...] = "glorot_uniform"
    pooling: Pooling = Pooling()
    dropout: Rate = 0.0
    batch_norm: bool = False

    @model_validator(mode="after")
    def _one_for_each_convolution(self) -> "Block":
        for key in ("activation", "kernel_initializer"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != len(self.filters):
                raise ValueError(f"{key} lists {len(value)} values for {len(self.filters)} convolutions")
        return self


class Head(Spec):
    """Feature maps to a vector, batch normalisation, dense layers with dropout after each, one output per class."""

    pooling: Literal["flatten", "global_average", "global_max"] = "flatten"
    batch_norm: bool = False
    dense: tuple[Count, ...] = ()
    activation: Activation = "relu"
    dropout: Rate = 0.0  # after each dense layer; without one, of the vector itself
    output: Literal["softmax", "logits"] = "softmax"


class Network(Spec):
    """One network: its blocks, which may be none at all, and its head."""

    blocks: tuple[Block, ...] = ()
    head: Head = Head()
