"""Specification of a network, as written in params.yaml.

Image -> blocks -> head -> one output per class. A block is its convolutions, then pooling, then dropout, then batch
normalization, each optional; the head turns the last feature maps into a vector and classifies it.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Activation = Literal["linear", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]
Initializer = Literal[
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal"
]
Padding = Literal["valid", "same"]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # filters of a convolution, units of a dense layer
Side = Annotated[int, Field(ge=1, le=64)]  # of a kernel or window, or a stride
LAYERS = Field(max_length=100)  # bound of the lists of a network
Rate = Annotated[float, Field(ge=0, lt=1)]
LARGEST_P = 16.0  # above, a power mean hardly differs from the maximum
Power = Annotated[float, Field(ge=1, le=LARGEST_P)]


class Spec(BaseModel):
    """Base class of specifications: no unknown keys, no type conversions, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# Keys of each kind of pooling, in addition to `kind`.
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
    """Pooling of a block; `models.pooling` defines the kinds, and `none` keeps the size of the feature maps.

    Args:
        stride: step between windows; None: `window`, so that windows do not overlap.
        p: exponent of `lp` (default 2, fixed) or initial exponent of `gem` (default 3, learned).
        ratio: factor by which `fractional_max` reduces height and width (default: square root of 2).
    """

    kind: Literal["max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"] = "max"
    window: Side = 2
    stride: Side | None = None
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
        """Ratio of fractional pooling."""
        return self.ratio or DEFAULT_RATIO

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> "Pooling":
        # `none` accepts the keys of a window: changing `kind` alone switches pooling off and on.
        ignored = WINDOWED if self.kind == "none" else ()
        for key, field in type(self).model_fields.items():
            if key in ("kind", *POOLING_KEYS[self.kind], *ignored) or getattr(self, key) == field.default:
                continue
            kinds = ", ".join(kind for kind, keys in POOLING_KEYS.items() if key in keys)
            raise ValueError(f"{self.kind} pooling has no key {key}; remove it, or set kind to one of: {kinds}")
        return self


class Block(Spec):
    """Convolutions, then pooling, then dropout, then batch normalisation.

    Args:
        filters: filters of each convolution.
        convolution: `standard`, or `separable`: a depthwise convolution, then a pointwise one.
        activation: one value for all convolutions of the block, or a list with one value each.
        kernel_initializer: likewise.
        pooling: `strided` is a convolution with the settings of the block's last, and as many filters as channels.
        dropout: rate.
        dropout_kind: drop single values (`plain`) or whole feature maps (`spatial`).
    """

    filters: Annotated[tuple[Width, ...], LAYERS]
    convolution: Literal["standard", "separable"] = "standard"
    kernel_size: Side = 3
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
                raise ValueError(
                    f"{key} has {len(value)} values for {len(self.filters)} convolutions; give one value, or one each"
                )
        return self


class Head(Spec):
    """Feature maps to a vector, batch normalisation, dense layers with dropout after each, one output per class.

    Args:
        p: initial exponent of `gem` (default 3, learned).
        dropout: rate, applied after each dense layer or, if there is none, to the vector.
    """

    pooling: Literal["flatten", "global_average", "global_max", "gem"] = "flatten"
    p: Power | None = None
    batch_norm: bool = False
    dense: Annotated[tuple[Width, ...], LAYERS] = ()
    activation: Activation = "relu"
    dropout: Rate = 0.0
    output: Literal["softmax", "logits"] = "softmax"

    @property
    def power(self) -> float:
        return self.p or DEFAULT_P["gem"]

    @model_validator(mode="after")
    def _p_of_gem_only(self) -> "Head":
        if self.p is not None and self.pooling != "gem":
            raise ValueError(f"{self.pooling} pooling has no key p; remove it, or set pooling to gem")
        return self


class Network(Spec):
    """A network: zero or more blocks, and a head."""

    blocks: Annotated[tuple[Block, ...], LAYERS] = ()
    head: Head = Head()
