"""Specification of a network, as written in params.yaml.

Image -> blocks -> head -> one output per class. A block is its convolutions, then pooling, then dropout, then
normalization, each optional; the head turns the last feature maps into a vector and classifies it.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

Activation = Literal["linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"]
Initializer = Literal[
    "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "orthogonal"
]
Padding = Literal["valid", "same"]
Pair = tuple[int, int]  # along the height, along the width
Count = Annotated[int, Field(ge=1, lt=2**31)]
Width = Annotated[int, Field(ge=1, le=65_536)]  # filters of a convolution, units of a dense layer
Side = Annotated[int, Field(ge=1, le=64)]  # of a kernel or window, or a stride
Margin = Annotated[int, Field(ge=0, le=64)]
LAYERS = Field(max_length=100)  # bound of the lists of a network
Rate = Annotated[float, Field(ge=0, lt=1)]
LARGEST_P = 16.0  # above, a power mean hardly differs from the maximum
Power = Annotated[float, Field(ge=1, le=LARGEST_P)]


def _or_else(allowed: str) -> WrapValidator:
    """One error in place of those of every member of a union."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(tuple(value) if isinstance(value, list) else value)
        except ValidationError:
            raise PydanticCustomError("allowed", allowed) from None  # type: ignore[arg-type]

    return WrapValidator(validate)


# One for both axes, or [height, width].
Sides = Annotated[Side | tuple[Side, Side], _or_else("1 to 64, or a pair [height, width] of such numbers")]
# Numbers: rows and columns of zeros on each side.
Margins = Annotated[
    Padding | Margin | tuple[Margin, Margin],
    _or_else("same, valid, 0 to 64 zeros on each side, or a pair [rows, columns] of such numbers"),
]


def pair(value: int | Pair) -> Pair:
    """The values along height and width."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


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
DEFAULT_GROUPS = 32
# Keys of a block that say nothing without convolutions. Others apply to strided pooling as well.
OF_CONVOLUTIONS = ("stride", "dilation", "residual", "squeeze_excitation", "repeat")


class Pooling(Spec):
    """Pooling of a block; `models.pooling` defines the kinds, and `none` keeps the size of the feature maps.

    Args:
        stride: step between windows; None: `window`, so that windows do not overlap.
        padding: numbers are rows and columns of zeros on each side, which count as values.
        p: exponent of `lp` (default 2, fixed) or initial exponent of `gem` (default 3, learned).
        ratio: factor by which `fractional_max` reduces height and width (default: square root of 2).
    """

    kind: Literal["max", "average", "lp", "stochastic", "fractional_max", "gem", "blur", "strided", "none"] = "max"
    window: Sides = 2
    stride: Sides | None = None
    padding: Margins = "valid"
    p: Power | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None

    @property
    def step(self) -> int | Pair:
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


class Normalization(Spec):
    """Normalization of feature maps.

    Args:
        kind: `layer`: over the channels at each position; `group`: over positions and the channels of a group.
        groups: of group normalization (default 32).
        place: at the end of the `block`, or between every `convolution` and its activation.
    """

    kind: Literal["none", "batch", "layer", "group"] = "none"
    groups: Width | None = None
    place: Literal["block", "convolution"] = "block"

    @property
    def number(self) -> int:
        """Number of groups."""
        return self.groups or DEFAULT_GROUPS

    @model_validator(mode="after")
    def _groups_of_group_only(self) -> "Normalization":
        if self.groups is not None and self.kind != "group":
            raise ValueError(f"{self.kind} normalization has no key groups; remove it, or set kind to group")
        return self


class Block(Spec):
    """Convolutions, then pooling, then dropout, then normalization.

    Args:
        filters: filters of each convolution.
        convolution: `separable`: a depthwise convolution, then a pointwise one; `depthwise`: each filter has one
            channel as its input, so that `filters` are multiples of the channels.
        padding: numbers are rows and columns of zeros on each side.
        activation: one value for all convolutions of the block, or a list with one value each.
        kernel_initializer: likewise.
        stride: of the first convolution.
        use_bias: None: unless each convolution is normalised.
        batch_norm: short for `normalization: {kind: batch}`.
        residual: add the input to the output of the convolutions, by a 1x1 convolution where their shapes differ; the
            last activation follows the sum.
        squeeze_excitation: channels per hidden unit of the gate that scales each channel; None: no gate.
        repeat: number of times that the convolutions follow each other, each time as a residual unit with its gate.
        pooling: `strided` is a convolution with the settings of the block's last, and as many filters as channels.
        dropout: rate.
        dropout_kind: drop single values (`plain`) or whole feature maps (`spatial`).
        name: begins the names of the layers; None: `block1`, `block2` and so on.
    """

    filters: Annotated[tuple[Width, ...], LAYERS]
    convolution: Literal["standard", "separable", "depthwise"] = "standard"
    kernel_size: Sides = 3
    padding: Margins = "same"
    activation: Activation | Annotated[tuple[Activation, ...], Field(min_length=1)] = "relu"
    kernel_initializer: Initializer | Annotated[tuple[Initializer, ...], Field(min_length=1)] = "glorot_uniform"
    pooling: Pooling = Pooling()
    dropout: Rate = 0.0
    dropout_kind: Literal["plain", "spatial"] = "plain"
    batch_norm: bool = False
    stride: Sides = 1
    dilation: Sides = 1
    groups: Width = 1
    use_bias: bool | None = None
    normalization: Normalization = Normalization()
    residual: bool = False
    squeeze_excitation: Width | None = None
    repeat: Annotated[int, Field(ge=1, le=100)] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)] | None = None

    @property
    def norm(self) -> Normalization:
        """The normalization, also where it is written as `batch_norm`."""
        return Normalization(kind="batch") if self.batch_norm else self.normalization

    @property
    def normalized(self) -> bool:
        """True if each convolution is normalised."""
        return self.norm.kind != "none" and self.norm.place == "convolution"

    @property
    def bias(self) -> bool:
        return not self.normalized if self.use_bias is None else self.use_bias

    @model_validator(mode="after")
    def _one_for_each_convolution(self) -> "Block":
        for key in ("activation", "kernel_initializer"):
            value = getattr(self, key)
            if isinstance(value, tuple) and len(value) != len(self.filters):
                raise ValueError(
                    f"{key} has {len(value)} values for {len(self.filters)} convolutions; give one value, or one each"
                )
        return self

    @model_validator(mode="after")
    def _keys_that_agree(self) -> "Block":
        if self.batch_norm and self.normalization != Normalization():
            raise ValueError("batch_norm: true is short for normalization: {kind: batch}; remove one of them")
        if not self.filters:
            unused = [key for key in OF_CONVOLUTIONS if getattr(self, key) != type(self).model_fields[key].default]
            if unused:
                raise ValueError(f"a block without convolutions has no key {unused[0]}; remove it, or add filters")
            if self.normalized and self.pooling.kind != "strided":
                raise ValueError("a block without convolutions has none to normalize; remove place, or add filters")
        if pair(self.stride) != (1, 1) and pair(self.dilation) != (1, 1):
            raise ValueError("a convolution has a stride or a dilation above 1, not both; remove one of them")
        if self.convolution != "standard":
            if self.groups != 1:
                raise ValueError(f"a {self.convolution} convolution has no key groups; remove it")
            steps = [self.stride, *([self.pooling.step] if self.pooling.kind == "strided" else [])]
            if any(len(set(pair(step))) > 1 for step in steps):
                raise ValueError(f"a {self.convolution} convolution has one stride for both axes; give one number")
        return self


class Head(Spec):
    """Feature maps to a vector, batch normalization, dense layers with dropout after each, one output per class.

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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the blocks."""
        return tuple(block.name or f"block{number}" for number, block in enumerate(self.blocks, 1))

    @model_validator(mode="after")
    def _names_of_their_own(self) -> "Network":
        known = {"image", "head", "output"}
        for name in self.names:
            if name in known:
                raise ValueError(f"the name {name} is taken; give each block a name of its own")
            known.add(name)
        return self
