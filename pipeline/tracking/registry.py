"""The registered champion of each dataset: who becomes it, and where it is found.

A version and the run that trained it name each other: the version holds the run's id and, as tags, the commit, the DVC
stage, the digests of data and model and the figures; the run has the tag `convpipe.registered`.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.stage import Stopwatch
from pipeline.tracking.store import connect
from pipeline.trained import About

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

    from pipeline.dataset import Card

CHAMPION = "champion"
REGISTERED = "convpipe.registered"  # of a run: NAME/VERSION, what its network was registered as
SHA256, DIGEST = "model.sha256", "data.digest"


@dataclass(frozen=True)
class Candidate:
    """A network that could be registered: its run and its logged model in this store, its record, its test figures."""

    name: str
    run_id: str | None
    model_uri: str | None
    about: About
    test: dict[str, float]


@dataclass(frozen=True)
class Loaded:
    """A registered network: images of shape (n, *image), float32 in [0, 1], to probabilities (n, classes)."""

    predict: Callable[[np.ndarray], np.ndarray]
    image: tuple[int, int, int]
    dataset: str
    classes: tuple[str, ...]


def rank(validation: dict[str, float]) -> tuple[float, float]:
    """What makes a network better: a higher accuracy on the validation images, a lower loss where that is equal."""
    return validation["accuracy"], -validation["loss"]


def register(paths: Paths, card: "Card", candidates: list[Candidate], stopwatch: Stopwatch) -> None:
    """Register the best candidate under the dataset's name as its champion, unless the present champion is as good.

    Figures compare on the same data alone: a champion of other data gives way, and it is said. The first of equal
    candidates counts as the best. What cannot be registered is said, not raised.
    """
    best = max(candidates, key=lambda candidate: rank(candidate.about["validation"]))
    if best.run_id is None or best.model_uri is None:
        print(f"warning: {best.name} is not registered: MLflow does not have it", file=sys.stderr, flush=True)
        return
    with stopwatch("tracking"):
        try:
            with connect(paths):  # which locks the default store: no other evaluation registers meanwhile
                print(_register(card, best))
        except (MlflowException, OSError) as error:
            print(f"warning: {best.name} is not registered: MLflow: {str(error).splitlines()[0]}", file=sys.stderr)


def champion(dataset: str) -> ModelVersion | None:
    """The registered champion of a dataset."""
    client = mlflow.MlflowClient()
    for model in client.search_registered_models(f"name = '{dataset}'"):
        if CHAMPION in model.aliases:
            return client.get_model_version(dataset, model.aliases[CHAMPION])
    return None


def found(paths: Paths, uri: str) -> "PyFuncModel":
    """A model from the registry, models:/NAME@champion or models:/NAME/VERSION, as MLflow loads it.

    Raises:
        DataError: there is none, or the store does not answer.
    """
    with connect(paths):
        store = mlflow.get_tracking_uri()
    try:
        return mlflow.pyfunc.load_model(uri)
    except (MlflowException, OSError) as error:
        said = str(error).splitlines()[0]
        raise DataError(f"{uri}: not found in MLflow at {store}: {said}; `dvc repro` registers a champion") from None


def load(paths: Paths, uri: str) -> Loaded:
    """A network of this project from the registry, with what its answers mean.

    Raises:
        DataError: there is none, the store does not answer, or it is another kind of model.
    """
    model = found(paths, uri)
    schema, about = model.metadata.get_input_schema(), model.metadata.metadata or {}
    if schema is None or not {"dataset", "classes"} <= about.keys():
        raise DataError(f"{uri}: not a network of this project: it does not say which classes it knows")
    _, height, width, channels = schema.inputs[0].shape
    return Loaded(model.predict, (height, width, channels), about["dataset"], tuple(about["classes"]))


def _register(card: "Card", best: Candidate) -> str:
    client = mlflow.MlflowClient()
    name, own = card.dataset, best.about["validation"]
    present = champion(name)
    before = ""
    if present is not None and present.tags.get(DIGEST) != card.digest:
        before = f"; version {present.version} before it was trained on other data: the two do not compare"
    elif present is not None:
        theirs = {figure: float(present.tags[f"validation.{figure}"]) for figure in own}
        if rank(theirs) >= rank(own):
            return (
                f"{name}: version {present.version}, {present.tags['model']}, stays champion: "
                f"{_shown(theirs)} on the validation images; the best network here, {best.name}: {_shown(own)}"
            )
        before = f"; version {present.version}, {present.tags['model']}, before it: {_shown(theirs)}"
    version = _version(client, card, best)
    client.set_registered_model_alias(name, CHAMPION, version.version)
    figures = f"{_shown(own)} on the validation images"
    return f"{name}: version {version.version}, {best.name}, is the champion: {figures}{before}"


def _version(client: mlflow.MlflowClient, card: "Card", best: Candidate) -> ModelVersion:
    """The version of a network, created unless it is there; one, even if two evaluations create it at once."""
    name, model_uri = card.dataset, str(best.model_uri)
    if not client.search_registered_models(f"name = '{name}'"):
        try:
            client.create_registered_model(name, description=f"Classifier of {name}: {', '.join(card.classes)}")
        except MlflowException:  # another evaluation was faster
            client.get_registered_model(name)
    if known := _versions(client, card, best):
        return known[0]
    model_id = model_uri.rpartition("/")[2]
    created = client.create_model_version(
        name, model_uri, best.run_id, _tags(card, best), description=_description(card, best), model_id=model_id
    )
    first = _versions(client, card, best)[0]
    if first.version != created.version:
        client.delete_model_version(name, created.version)
        return first
    label = json.dumps([{"name": name, "version": first.version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": label})  # what the UI links by
    client.set_tag(str(best.run_id), REGISTERED, f"{name}/{first.version}")
    return first


def _versions(client: mlflow.MlflowClient, card: "Card", best: Candidate) -> list[ModelVersion]:
    """The versions that hold this very network, the oldest first."""
    conditions = {f"tags.`{SHA256}`": best.about["sha256"], f"tags.`{DIGEST}`": card.digest, "name": card.dataset}
    found = client.search_model_versions(" and ".join(f"{key} = '{value}'" for key, value in conditions.items()))
    return sorted(found, key=lambda version: int(version.version))


def _tags(card: "Card", best: Candidate) -> dict[str, str]:
    about = best.about
    figures = {"validation": about["validation"], "test": best.test}
    lineage = {f"git.{key}": about[key] for key in ("commit", "changed") if key in about}
    lineage |= {f"dvc.{key}": about[key] for key in ("stage", "experiment", "baseline") if key in about}
    values: dict[str, Any] = {
        "model": best.name,
        SHA256: about["sha256"],
        DIGEST: card.digest,
        "params.digest": about["params"],
        "parameters": about["parameters"]["parameters"],
        **lineage,
        **{f"{split}.{figure}": value for split, part in figures.items() for figure, value in part.items()},
    }
    return {key: str(value) for key, value in values.items()}


def _description(card: "Card", best: Candidate) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in card.images.items())
    return (
        f"{best.name}, trained on {card.dataset} ({counts} images). {_shown(best.about['validation'])} on the "
        f"validation images, which it was chosen by; {_shown(best.test)} on the test images. Takes images of shape "
        f"(n, {', '.join(map(str, card.image))}), float32 from 0 to 1; gives the probabilities of the classes "
        f"{', '.join(card.classes)}."
    )


def _shown(figures: dict[str, float]) -> str:
    return f"accuracy {figures['accuracy']:.2%}, loss {figures['loss']:.4f}"
