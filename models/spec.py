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
Power = Annotated[float, Field(ge=1, le=16)]  # beyond it, float32 holds too few of the powers


class Spec(BaseModel):
    """Base of everything that is read from a file: no unknown keys, no conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# The keys that each kind of pooling takes, beside `kind`.
WINDOWED = ("window", "stride", "padding")
POOLING_KEYS: dict[str, tuple[str, ...]] = {
    "max": WINDOWED,
    "average": WINDOWED,
    "lp": (*WINDOWED, "p"),
    "stochastic": WINDOWED,
    "fractional_max": ("ratio",),
    "gem": (*WINDOWED, "p"),
    "blur": WINDOWED,
    "strided": WINDOWED,
    "none": (),
}
DEFAULT_P = {"lp": 2.0, "gem": 3.0}
DEFAULT_RATIO = 2**0.5


class Pooling(Spec):
    """How a block shrinks its feature maps; `none` keeps their size. `models.pooling` says what each kind computes.

    `lp` has a fixed p, 2 unless given; `gem` learns its p and begins with the one given, or 3. `fractional_max` has no
    windows of one size: it divides height and width by `ratio`, the square root of 2 unless given.
    """

    kind: Literal["max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"] = "max"
    window: Count = 2
    stride: Count | None = None  # None: the window, so that windows do not overlap
    padding: Padding = "valid"
    p: Power | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None

    @property
    def step(self) -> int:
        """Pixels from one window to the next."""
        return self.stride or self.window

    @property
    def power(self) -> float:
        return self.p or DEFAULT_P[self.kind]

    @property
    def reduction(self) -> float:
        """Of height and width, by fractional pooling."""
        return self.ratio or DEFAULT_RATIO

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> "Pooling":
        # `none` goes with any window: pooling is switched off, and on again, by one key.
        ignored = WINDOWED if self.kind == "none" else ()
        for key, field in type(self).model_fields.items():
            if key in ("kind", *POOLING_KEYS[self.kind], *ignored) or getattr(self, key) == field.default:
                continue
            kinds = ", ".join(kind for kind, keys in POOLING_KEYS.items() if key in keys)
            raise ValueError(f"{key} is no key of {self.kind} pooling; allowed: kind: {kinds}, or no {key}")
        return self


class Block(Spec):
    """Convolutions, then pooling, then dropout, then batch normalisation.

    `activation` and `kernel_initializer` are one value for all convolutions of the block, or a list with one for each.
    A `separable` convolution filters every channel by itself (depthwise), then mixes the channels (pointwise). Dropout
    drops single values (`plain`) or whole feature maps (`spatial`). Pooling of the kind `strided` is one more
    convolution like the last of the block, with as many filters as it has channels.
    """

    filters: tuple[Count, ...]
    convolution: Literal["standard", "separable"] = "standard"
    kernel_size: Count = 3
    padding: Padding = "same"
    activation: Activation | Annotated[tuple[Activation, ...], Field(min_length=1)] = "relu"
    kernel_initializer: Initializer | Annotated[tuple[Initializer, ...], Field(min_length=1)] = "glorot_uniform"
    pooling: Pooling = Pooling()
    dropout: Rate = 0.0
    dropout_kind: Literal["plain", "spatial"] = "plain"
    batch_norm: bool = False

    @model_validator(mode="after")
    def _one_for_each_convolution(self) -> "Block":
        for key in ("activation", "kernel_initializer"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != len(self.filters):
                raise ValueError(f"{key} lists {len(value)} values for {len(self.filters)} convolutions")
        return self


class Head(Spec):
    """Feature maps to a vector, batch normalisation, dense layers with dropout after each, one output per class.

    `gem` learns its p and begins with the one given, or 3.
    """

    pooling: Literal["flatten", "global_average", "global_max", "gem"] = "flatten"
    p: Power | None = None
    batch_norm: bool = False
    dense: tuple[Count, ...] = ()
    activation: Activation = "relu"
    dropout: Rate = 0.0  # after each dense layer; without one, of the vector itself
    output: Literal["softmax", "logits"] = "softmax"

    @property
    def power(self) -> float:
        return self.p or DEFAULT_P["gem"]

    @model_validator(mode="after")
    def _p_under_gem_alone(self) -> "Head":
        if self.p is not None and self.pooling != "gem":
            raise ValueError(f"p is no key of {self.pooling} pooling; allowed: pooling: gem, or no p")
        return self


class Network(Spec):
    """One network: its blocks, which may be none at all, and its head."""

    blocks: tuple[Block, ...] = ()
    head: Head = Head()
