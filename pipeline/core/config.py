"""params.yaml as frozen typed objects; a mistake is refused with its key, the value found and the values allowed."""

import fnmatch
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, TypeAdapter, ValidationError

from models import architecture
from models.architecture import Shape, ShapeError, Traced
from models.own_code import CodeError, OwnNetwork
from models.spec import Network, Spec
from pipeline.core import own_files, search_space, yaml_file
from pipeline.core.catalog import Catalog, Entry
from pipeline.core.config_errors import described, listing, validated
from pipeline.core.errors import ConfigError
from pipeline.core.grid import Grid
from pipeline.core.paths import TUNED, Paths
from pipeline.core.sections import PRESETS, Data, Evaluate, Fit, Runtime, Tune, Validate

SEARCH = "search"  # the name of the search's run
OBJECTIVE_DIRECTIONS = {"val_loss": "min", "val_accuracy": "max"}

# Names of networks become names of files, also where case makes no difference and some names are those of devices.
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


def _weights(name: str) -> str:
    if not name.endswith((".keras", ".h5")) or name != Path(name).name:
        raise ValueError("not the name of a .keras, .weights.h5 or .h5 file in own_networks/")
    return name


class Trained(Spec):
    """The training settings of a network.

    Args:
        weights: a file of own_networks/ with starting weights.
        freeze: patterns of the names of layers that are not trained.
    """

    weights: Annotated[str, AfterValidator(_weights)] | None = None
    freeze: tuple[str, ...] = ()
    fit: Fit


class NetworkConfig(Trained, Network):
    """A network of blocks and its training settings."""

    @property
    def output(self) -> str:
        return self.head.output

    def trace(self, image: Shape, classes: int) -> list[Traced]:
        """The layers for images of shape (height, width, channels); frozen ones have no trainable parameters.

        Raises:
            ShapeError: a layer's output would be empty, or no layer matches a pattern of `freeze`.
        """
        rows = architecture.trace(self, image, classes)
        names = [row.layer.name for row in rows if row.parameters]
        for index, pattern in enumerate(self.freeze):
            if not fnmatch.filter(names, pattern):
                listed = f"matches no layer with weights; layers: {', '.join(names)}"
                raise ShapeError(f"freeze.{index}", json.dumps(pattern), listed)
        frozen = {name for pattern in self.freeze for name in fnmatch.filter(names, pattern)}
        if frozen == set(names):
            raise ShapeError("freeze", json.dumps(self.freeze), "nothing is left to train; remove a pattern")
        return [replace(row, non_trainable=row.parameters) if row.layer.name in frozen else row for row in rows]


class OwnNetworkConfig(Trained, OwnNetwork):
    """A network of the user's own code and its training settings."""


AnyNetwork = NetworkConfig | OwnNetworkConfig
# By the key `builder`, so that errors are those of one kind of network.
NetworkBlock = Annotated[
    Annotated[NetworkConfig, Tag("of blocks")] | Annotated[OwnNetworkConfig, Tag("of own code")],
    Discriminator(lambda block: "of own code" if _is_own(block) else "of blocks"),
]


def _is_own(block: Any) -> bool:
    return isinstance(block, OwnNetwork) or (isinstance(block, dict) and "builder" in block)


class Params(Spec):
    """All of params.yaml, with the common `fit` filled in for every network."""

    seed: Annotated[int, Field(ge=1, lt=2**31)]  # Keras Tuner takes 0 for "no seed"
    data: Data
    validate_: Annotated[Validate, Field(alias="validate")]
    fit: Fit
    models: Annotated[dict[Name, NetworkBlock], Field(min_length=1)]
    grid: Grid
    tune: Tune | None
    evaluate: Evaluate
    runtime: Runtime

    def network(self, name: str) -> AnyNetwork:
        """The network of that name.

        Raises:
            ConfigError: there is no such network.
        """
        known = self.networks
        if name not in known:
            raise ConfigError(f"params.yaml: models.{name}: there is no such network{listing(name, known)}")
        return known[name]

    @property
    def networks(self) -> dict[str, AnyNetwork]:
        """The networks to train: those of `models`, then those of the grid."""
        if not self.grid.pooling:
            return self.models
        blocks = self.grid.blocks(self.models[self.grid.base].model_dump(mode="json"))
        return self.models | {name: network_from(block) for name, block in blocks.items()}

    @property
    def trained(self) -> list[str]:
        """Names of all networks that are trained, the search's winner last."""
        return [*self.networks, *([TUNED] if self.tune else [])]

    def base_of(self, name: str) -> str | None:
        """The network that this one varies: that of the search or of the grid; None for a network of `models`."""
        if name in self.models:
            return None
        return self.search.base if name == TUNED else self.grid.base

    @property
    def replicate_seeds(self) -> range:
        """The seeds that every network is trained with, beside `seed` itself."""
        return range(self.seed + 1, self.seed + self.evaluate.seeds)

    @property
    def search(self) -> Tune:
        """The settings of the search.

        Raises:
            ConfigError: `tune` is null.
        """
        if self.tune is None:
            raise ConfigError("params.yaml: tune: found null, so there is no search; allowed: the settings of one")
        return self.tune

    @property
    def base(self) -> AnyNetwork:
        """The base network of the search."""
        return self.network(self.search.base)

    @property
    def dimensions(self) -> list[search_space.Dimension]:
        """The dimensions of the search."""
        return search_space.dimensions(self.search.space, self.base.model_dump(mode="json"))


def load(paths: Paths, own: bool = True) -> Params:
    """Read params.yaml and check it, also against the catalogue.

    Args:
        own: whether to check the files in own_networks/ as well.

    Raises:
        ConfigError: one line for each error, with the full path of its key.
    """
    params = parse(yaml_file.read(paths.params), paths.params.name)
    check(params, load_catalog(paths), paths.own_networks if own else None)
    return params


def parse(raw: Any, file: str = "params.yaml") -> Params:
    """Convert the content of params.yaml.

    Raises:
        ConfigError: one line for each key that is unknown, missing or has a value that it cannot have.
    """
    return validated(Params, _with_fit_defaults(raw), raw, file)


def check(params: Params, datasets: Catalog, folder: Path | None) -> None:
    """Check parameters against each other, against the catalogue and, if a folder is given, its files.

    Raises:
        ConfigError: one line for each error, with the full path of its key.
    """
    if params.data.dataset not in datasets:
        found = f"found {json.dumps(params.data.dataset)}{listing(params.data.dataset, datasets)}"
        raise ConfigError(f"params.yaml: data.dataset: {found}")
    entry = datasets[params.data.dataset]
    errors = [*_name_errors(params), *_dataset_errors(params, datasets)]
    errors = errors or _network_errors(params, entry, folder)
    errors = errors or (_space_errors(params, entry, folder) if params.tune else [])
    if errors:
        raise ConfigError("\n".join(f"params.yaml: {error}" for error in errors))


def load_catalog(paths: Paths) -> Catalog:
    """Read and check data/catalog.yaml.

    Raises:
        ConfigError: one line for each error.
    """
    raw = yaml_file.read(paths.catalog)
    return validated(Catalog, raw, raw, "data/catalog.yaml")


def network_from(block: dict[str, Any]) -> AnyNetwork:
    """Build a network from its complete block of configuration.

    Raises:
        ValidationError: params.yaml could not hold this block.
    """
    return TypeAdapter(NetworkBlock).validate_json(json.dumps(block))


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested configuration to dotted keys: {"blocks.0.filters.0": 32}."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    flat: dict[str, Any] = {}
    for key, child in items:
        name = f"{prefix}{key}"
        flat |= flatten(child, f"{name}.") if isinstance(child, dict | list) and child else {name: child}
    return flat


def _with_fit_defaults(raw: Any) -> Any:
    """Complete the `fit` of every network: the common one, overridden by its own values."""
    if not isinstance(raw, dict) or not isinstance(raw.get("models"), dict):
        return raw
    fit = raw.get("fit")
    if isinstance(fit, dict) and isinstance(name := fit.get("augmentation"), str):
        fit = fit | {"augmentation": PRESETS.get(name, name)}  # a mapping, so that a network can override its values
    models = {
        name: model | {"fit": _merged(fit, model.get("fit", {}))} if isinstance(model, dict) else model
        for name, model in raw["models"].items()
    }
    return raw | {"models": models}


def _merged(default: Any, override: Any) -> Any:
    if not isinstance(default, dict) or not isinstance(override, dict):
        return override
    return default | {key: _merged(default.get(key), value) for key, value in override.items()}


def _name_errors(params: Params) -> list[str]:
    errors, same = [], dict[str, str]()
    for name in params.models:
        plain = name.lower()
        if plain == TUNED:
            errors.append(f"models.{name}: the name is taken by the search's winner; allowed: any other name")
        elif plain == SEARCH:
            errors.append(f"models.{name}: the name is taken by the search itself; allowed: any other name")
        elif plain in DEVICES:
            errors.append(f"models.{name}: Windows allows no file of this name; allowed: any other name")
        elif plain in same:
            errors.append(f"models.{name}: differs from {same[plain]} in case only; allowed: any other name")
        same[plain] = name
    if params.grid.base not in params.models:
        errors.append(f"grid.base: found {json.dumps(params.grid.base)}{listing(params.grid.base, params.models)}")
    elif params.grid.pooling and not isinstance(params.models[params.grid.base], NetworkConfig):
        errors.append(f"grid.base: found {json.dumps(params.grid.base)}, which has no blocks; allowed: one that has")
    elif taken := [name for name in params.grid.names if name.lower() in same]:
        errors.append(f"grid: a network of `models` is named {same[taken[0].lower()]}; rename it")
    elif params.tune and params.tune.base not in (known := params.networks):
        errors.append(f"tune.base: found {json.dumps(params.tune.base)}{listing(params.tune.base, known)}")
    return errors


def _dataset_errors(params: Params, datasets: Catalog) -> list[str]:
    name, image = params.evaluate.robustness.out_of_distribution_dataset, datasets[params.data.dataset].image
    alike = [other for other, entry in datasets.items() if entry.image == image and other != params.data.dataset]
    if name is None or name in alike:
        return []
    return [f"evaluate.robustness.out_of_distribution_dataset: found {json.dumps(name)}{listing(name, alike)}, or null"]


def _require(network: AnyNetwork, entry: Entry, folder: Path | None) -> None:
    """Check a network against the dataset and, in a folder, its own files."""
    if folder:
        own_files.require(network, folder)
    if isinstance(network, NetworkConfig):
        network.trace(entry.image, len(entry.classes))


def _network_errors(params: Params, entry: Entry, folder: Path | None) -> list[str]:
    errors, count = [], params.runtime.replicas
    for name, model in params.networks.items():
        if (size := model.fit.batch_size) % count:
            errors.append(f"runtime.replicas: found {count}; allowed: a divisor of the batch size of {name}, {size}")
        if name in params.models:
            errors += [f"models.{name}.fit.{error}" for error in _fit_errors(model.fit, entry)]
        try:
            _require(model, entry, folder)
        except (ShapeError, CodeError) as error:
            place = f"models.{name}.{error.key}" if name in params.models else f"grid: {name}: {error.key}"
            errors.append(f"{place}: found {error.found}; {error}")
    return errors


def _fit_errors(fit: Fit, entry: Entry) -> list[str]:
    """Epochs after the last one, colours of greyscale images, and unknown classes, each with its key."""
    errors = []
    for key, last in (("warmup_epochs", fit.warmup_epochs), ("step_epochs", max(fit.step_epochs or (0,)))):
        if last >= fit.epochs:
            errors.append(f"{key}: found {last}; allowed: less than epochs, {fit.epochs}")
    if entry.image[2] == 1:
        of_color = [key for key in ("saturation", "hue") if getattr(fit.augmentation, key)]
        errors += [f"augmentation.{key}: the images are greyscale and have none; remove it" for key in of_color]
    named = fit.class_weight if isinstance(fit.class_weight, dict) else {}
    unknown = [name for name in named if name not in entry.classes]
    return errors + [f"class_weight.{name}: there is no such class{listing(name, entry.classes)}" for name in unknown]


def _space_errors(params: Params, entry: Entry, folder: Path | None) -> list[str]:
    def problem(block: dict[str, Any]) -> str | None:
        try:
            network = network_from(block)
            _require(network, entry, folder)
            if network.fit.batch_size % (count := params.runtime.replicas):
                return f"allowed: multiples of runtime.replicas, {count}"
            if found := _fit_errors(network.fit, entry):
                return found[0].partition(": ")[2]
        except ValidationError as error:
            return described(error, NetworkBlock)
        except (ShapeError, CodeError) as error:
            return str(error)
        return None

    try:
        search_space.check(params.dimensions, params.base.model_dump(mode="json"), problem)
    except search_space.SpaceError as error:
        key = ".".join(filter(None, ["tune.space", error.key]))
        found = f"found {json.dumps(error.found)}; "
        return [f"{key}: {found}{str(error).removeprefix(found)}"]
    return []
