"""A network in one line: pooling and dropout, the level of each factor, differences from another network."""

from collections.abc import Iterable, Mapping
from typing import Any

from models.spec import DEFAULT_P, POOLING_KEYS, Block, Head, Network, Normalization, Pooling
from pipeline.core.config import AnyNetwork, NetworkConfig
from pipeline.core.sections import Augmentation, Fit

SEPARATOR = "·"  # between the levels of several blocks
ABSENT = "-"  # the level of a block that does not have the factor
SIDES = ("kernel_size", "stride", "dilation", "padding", "window")  # keys whose pairs are height x width
NONE = ("0", "none", "no")  # levels of a block without dropout, pooling or batch normalization
Levels = Mapping[str, str]  # position (block 1, block 2, ..., head; "" for the whole network) -> level


def summary(network: AnyNetwork) -> str:
    """Pooling of the blocks and of the head, and dropout rates: pooling max·max → flatten | dropout 0·0.3·0.25.

    Of the user's own code, the builder and its arguments: example:make width 32.
    """
    if not isinstance(network, NetworkConfig):
        return " ".join([network.builder, *filter(None, [_arguments(network.arguments)])])
    kinds = [SEPARATOR.join(_pooling(block.pooling) for block in network.blocks)] if network.blocks else []
    rates = SEPARATOR.join(_levels(network)["dropout"].values())
    return f"pooling {' → '.join([*kinds, network.head.pooling])} | dropout {rates}"


def factors(network: AnyNetwork) -> dict[str, str]:
    """Level of every factor as text, with one value for each block where the blocks differ.

    Pooling, window, dropout and head come first. A factor that the network does not have (p of max pooling) is "".
    """
    return {factor: _joined(levels.values()) for factor, levels in _levels(network).items()}


def differences(network: AnyNetwork, base: AnyNetwork) -> str:
    """List the factors in which a network differs from another, with its own levels; "" if there are none.

    A level that several blocks take over is given once: dropout 0.5.
    """
    own, other = _levels(network), _levels(base)
    changed = {factor: _change(levels, other[factor]) for factor, levels in own.items() if levels != other[factor]}
    return ", ".join(f"{factor} {level}" for factor, level in changed.items() if level)


def _change(own: Levels, other: Levels) -> str:
    if own.keys() != other.keys():
        joined = _joined(own.values())
        return joined if joined != _joined(other.values()) else ""
    changed = [position for position in own if own[position] != other[position]]
    level = own[changed[0]]
    if any(own[position] != level for position in changed):
        return _joined(own.values())
    others = [found for position, found in own.items() if position not in changed and found not in (level, *NONE)]
    return f"{level} in {' and '.join(changed)}" if others else level


def _levels(network: AnyNetwork) -> dict[str, Levels]:
    """The levels of every factor, as they are written in params.yaml; "" for those that this kind of network lacks."""
    of_training = _training_levels(network)
    if not isinstance(network, NetworkConfig):
        own = {"builder": {"": network.builder}, "arguments": {"": _arguments(network.arguments)}}
        return {factor: {"": ""} for factor in _block_levels(Network())} | of_training | own
    return _block_levels(network) | of_training | {"builder": {"": ""}, "arguments": {"": ""}}


def _block_levels(network: Network) -> dict[str, Levels]:
    def of_blocks(key: str) -> dict[str, str]:
        return {f"block {number}": _side(getattr(block, key), key) for number, block in enumerate(network.blocks, 1)}

    def of_pooling(key: str) -> Levels:
        poolings = {f"block {number}": block.pooling for number, block in enumerate(network.blocks, 1)}
        return {position: _of_pooling(pooling, key) for position, pooling in poolings.items()}

    head = network.head
    found: dict[str, Levels] = {
        "pooling": of_pooling("kind"),
        "window": of_pooling("window"),
        "dropout": of_blocks("dropout") | {"head": _text(head.dropout)},
        "head": {"": head.pooling},
        "head p": {"": "" if head.p is None else _text(head.p)},
    }
    for key in Pooling.model_fields:
        found[key if key in ("p", "ratio") else f"pooling {key}"] = of_pooling(key)
    for key in [key for key in Block.model_fields if key not in ("pooling", "dropout")]:
        found[_words(key)] = of_blocks(key)
    for key in [key for key in Head.model_fields if key not in ("pooling", "dropout", "p")]:
        found[key if key in ("dense", "output") else f"head {_words(key)}"] = {"": _text(getattr(head, key))}
    del found["pooling kind"], found["pooling window"]
    return found


def _training_levels(network: AnyNetwork) -> dict[str, Levels]:
    fit = network.fit
    keys = [key for key in Fit.model_fields if key != "augmentation"]
    found: dict[str, Levels] = {_words(key): {"": _text(getattr(fit, key))} for key in keys}
    found |= {f"augmentation {key}": {"": _text(getattr(fit.augmentation, key))} for key in Augmentation.model_fields}
    return found | {key: {"": _text(getattr(network, key))} for key in ("weights", "freeze")}


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in arguments.items())


def _of_pooling(pooling: Pooling, key: str) -> str:
    value = getattr(pooling, key) if key in ("kind", *POOLING_KEYS[pooling.kind]) else None
    return "" if value is None else _side(value, key)


def _pooling(pooling: Pooling) -> str:
    """The kind, with a window, stride or exponent other than the default."""
    extras = [_side(pooling.window, "window")] if pooling.window != 2 and "window" in POOLING_KEYS[pooling.kind] else []
    extras += [f"stride {_side(pooling.stride, 'stride')}"] if pooling.stride else []
    extras += [f"p {_text(pooling.p)}"] if pooling.p and pooling.p != DEFAULT_P[pooling.kind] else []
    return " ".join([pooling.kind, *extras])


def _joined(levels: Iterable[str]) -> str:
    found = list(levels)
    return found[0] if len(set(found)) == 1 else SEPARATOR.join(level or ABSENT for level in found)


def _side(value: Any, key: str) -> str:
    return "x".join(map(str, value)) if key in SIDES and isinstance(value, tuple) else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Normalization):
        extras = [str(value.number)] * (value.kind == "group") + ["per convolution"] * (value.place == "convolution")
        return " ".join([value.kind, *extras])
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    if isinstance(value, tuple):
        return "+".join(map(_text, value)) or "none"
    return str(value)


def _words(key: str) -> str:
    return {"batch_norm": "batch normalization"}.get(key, key.replace("_", " "))
