"""Draw a network as a Mermaid flowchart, which GitHub, GitLab and many editors show as a picture."""

from collections.abc import Iterator

from models import architecture
from models import layer_types as kinds
from models.architecture import Traced
from models.layer_types import Shape
from models.spec import Pair

# Layers that share the node of the layer before them.
MERGED = (
    kinds.BatchNormalization,
    kinds.LayerNormalization,
    kinds.Activate,
    kinds.Dropout,
)


def mermaid(traced: list[Traced], image: Shape) -> str:
    """A node for each layer, with the normalization, activation and dropout behind it; a box for each block."""
    nodes = {architecture.IMAGE: ["image", _sizes(image)]}
    node_of, last = {architecture.IMAGE: architecture.IMAGE}, architecture.IMAGE
    edges = list[str]()
    for row in traced:
        layer = row.layer
        if isinstance(layer, MERGED) and last != architecture.IMAGE:
            nodes[last][-1:] = [_text(layer), _sizes(row.output_shape)]
        else:
            sources = [node_of[name] for name in layer.inputs] or [last]
            edges += [f"    {source} --> {layer.name}" for source in sources]
            nodes[layer.name] = [_text(layer), _sizes(row.output_shape)]
            last = layer.name
        node_of[layer.name] = last
    return "\n".join(["flowchart TD", *_boxes(nodes), *edges])


def _boxes(nodes: dict[str, list[str]]) -> Iterator[str]:
    block = ""
    for name, lines in nodes.items():
        entered = name.partition("_")[0] if "_" in name else ""
        if entered != block:
            if block:
                yield "    end"
            if entered:
                yield f"    subgraph {entered}"
            block = entered
        yield f'    {name}["{"<br>".join(lines)}"]'
    if block:
        yield "    end"


def _text(layer: kinds.Layer) -> str:
    match layer:
        case kinds.Convolution():
            kind = "" if layer.kind == "standard" else f"{layer.kind} "
            parts = [f"{_sizes(layer.kernel_size)} {kind}convolution, {layer.filters}"]
            parts += [f"stride {_side(layer.stride)}"] if layer.stride != (1, 1) else []
            parts += [f"dilation {_side(layer.dilation)}"] if layer.dilation != (1, 1) else []
            parts += [f"{layer.groups} groups"] if layer.groups > 1 else []
            return ", ".join([*parts, *([] if layer.activation == "linear" else [layer.activation])])
        case kinds.Pool():
            step = "" if layer.step == layer.windows else f", stride {_side(layer.step)}"
            return f"{_sizes(layer.windows)} {layer.pooling.kind} pooling{step}"
        case kinds.FractionalPool():
            return f"fractional max pooling, ratio {layer.pooling.reduction:.3g}"
        case kinds.GlobalPool():
            return "global GeM pooling" if layer.kind == "gem" else f"{layer.kind.replace('_', ' ')} pooling"
        case kinds.Linear():
            return ", ".join([f"dense, {layer.units}", *([] if layer.activation == "linear" else [layer.activation])])
        case kinds.Activate():
            return layer.activation
        case kinds.Dropout():
            return f"dropout {layer.rate:g}"
    names = {
        kinds.ZeroPadding: "zero padding",
        kinds.BatchNormalization: "batch normalization",
        kinds.LayerNormalization: "layer normalization",
        kinds.GroupNormalization: "group normalization",
        kinds.Add: "sum",
        kinds.Multiply: "product",
        kinds.Squeeze: "mean of each channel",
        kinds.Flatten: "flatten",
    }
    return names[type(layer)]


def _side(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else _sizes(pair)


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape))
