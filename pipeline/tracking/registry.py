"""The model registry: the champion of each dataset, and its registration.

A version and the run that trained it refer to each other: the version holds the run's id and, as tags, the commit, the
DVC stage, the digests of data and model and the metrics; the run has the tag `convpipe.registered`.
"""

import json
import sys
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from models.own_code import OwnNetwork
from pipeline.core import own_files
from pipeline.core.advice import advice
from pipeline.core.command import Stopwatch
from pipeline.core.dataset import DatasetInfo
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.records import Scores, TrainingRecord
from pipeline.tracking import store
from pipeline.tracking.registered import CODE, CODE_SHA256, LIMITS, MODEL, SHA256, SUMMARY, usable, usable_version
from pipeline.tracking.store import StoreError, connect

CHAMPION = "champion"
REGISTERED = "convpipe.registered"  # of a run: NAME/VERSION of its network
BASELINES = "convpipe.baselines"  # of a version: the baselines that it does not beat
DIGEST = "data.digest"
NOT_BETTER = "not better than"


@dataclass(frozen=True)
class Candidate:
    """A network that could be registered, its run and logged model in this store, and its test metrics.

    `unbeaten` lists the baselines that it is not significantly better than on the validation images, with p values.
    """

    record: TrainingRecord
    run_id: str | None
    model_uri: str | None
    test: dict[str, float]
    unbeaten: str | None = None


def rank(validation: Scores) -> tuple[float, float]:
    """Sort key, larger is better: accuracy on the validation images, then loss."""
    return validation.accuracy, -validation.loss


def register(paths: Paths, info: DatasetInfo, candidates: list[Candidate], stopwatch: Stopwatch) -> None:
    """Register the best candidate as the dataset's champion, unless the present champion is at least as good.

    Ties go to the first candidate. Metrics compare only on the same data: a champion of other data is replaced, with a
    notice, as is one whose file is gone. If nothing can be registered, a warning is printed; also if the best candidate
    does not beat the baselines.
    """
    best = max(candidates, key=lambda candidate: rank(candidate.record.validation))
    if best.unbeaten:
        print(
            f"warning: {best.record.name}: the best network is {NOT_BETTER} {best.unbeaten} on the validation images; "
            f"{advice(best.record.network)}, or use the baseline",
            file=sys.stderr,
            flush=True,
        )
    warning = f"warning: {best.record.name}: not registered: "
    if best.run_id is None or best.model_uri is None:
        print(f"{warning}MLflow has no logged model of it", file=sys.stderr, flush=True)
        return
    with stopwatch("tracking"):
        try:
            with connect(paths):  # locks the default store, so that no other evaluation registers at the same time
                print(store.attempt(store.name(paths), _register, info, best, paths))
        except StoreError as error:
            print(f"{warning}MLflow: {error}", file=sys.stderr)


def is_logged(paths: Paths, record: TrainingRecord) -> bool:
    """Check that the store still has the network as it was trained: its files may have been deleted, or changed."""
    try:
        with connect(paths):
            return store.attempt(store.name(paths), _is_logged, str(record.model_uri), record.sha256)
    except StoreError:
        return False


def _is_logged(model_uri: str, sha256: str) -> bool:
    logged = mlflow.MlflowClient().get_logged_model(model_uri.rpartition("/")[2])
    return usable(logged.artifact_location, sha256)


def champion(dataset: str) -> ModelVersion | None:
    """Look up the registered champion of a dataset."""
    client = mlflow.MlflowClient()
    for model in client.search_registered_models(f"name = '{dataset}'"):
        if CHAMPION in model.aliases:
            return client.get_model_version(dataset, model.aliases[CHAMPION])
    return None


def _register(info: DatasetInfo, best: Candidate, paths: Paths) -> str:
    client = mlflow.MlflowClient()
    dataset, name, scores = info.dataset, best.record.name, best.record.validation
    present = champion(dataset)
    replaced = ""
    if present is not None and present.tags.get(DIGEST) != info.digest:
        replaced = f"; it replaces version {present.version}, which was trained on other data: they are not comparable"
    elif present is not None and not usable_version(present):
        replaced = f"; it replaces version {present.version}, whose file is missing from the store or was changed"
    elif present is not None and not _has_code(present, paths):
        replaced = f"; it replaces version {present.version}, which cannot be served: its code is no longer here"
    elif present is not None:
        old = Scores(accuracy=float(present.tags["validation.accuracy"]), loss=float(present.tags["validation.loss"]))
        if rank(old) >= rank(scores):
            return (
                f"{dataset}: version {present.version}, {present.tags['model']}, stays champion: validation "
                f"{_described(old)}; best network of this evaluation: {name}, {_described(scores)}"
            )
        replaced = f"; it replaces version {present.version}, {present.tags['model']}: {_described(old)}"
    if not _is_logged(str(best.model_uri), best.record.sha256):
        raise FileNotFoundError(f"the network is missing from its logged model, {best.model_uri}, or was changed there")
    version = _version(client, info, best).version
    client.set_registered_model_alias(dataset, CHAMPION, version)
    return f"{dataset}: version {version}, {name}, is the champion: validation {_described(scores)}{replaced}"


def _version(client: mlflow.MlflowClient, info: DatasetInfo, best: Candidate) -> ModelVersion:
    """Return the version of a network, created if necessary; only one, even if two evaluations create it at once."""
    name, model_uri = info.dataset, str(best.model_uri)
    if not client.search_registered_models(f"name = '{name}'"):
        try:
            client.create_registered_model(name, description=f"Classifier of {name}: {', '.join(info.classes)}")
        except MlflowException:  # another evaluation created it first
            client.get_registered_model(name)
    if known := _versions(client, info, best):
        return known[0]
    model_id = model_uri.rpartition("/")[2]
    created = client.create_model_version(
        name, model_uri, best.run_id, _tags(info, best), description=_description(info, best), model_id=model_id
    )
    first = _versions(client, info, best)[0]
    if first.version != created.version:
        client.delete_model_version(name, created.version)
        return first
    label = json.dumps([{"name": name, "version": first.version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": label})  # the UI's link to the version
    client.set_tag(str(best.run_id), REGISTERED, f"{name}/{first.version}")
    return first


def _versions(client: mlflow.MlflowClient, info: DatasetInfo, best: Candidate) -> list[ModelVersion]:
    """List the versions of this very network that still have it, the oldest first."""
    conditions = {f"tags.`{SHA256}`": best.record.sha256, f"tags.`{DIGEST}`": info.digest, "name": info.dataset}
    found = client.search_model_versions(" and ".join(f"{key} = '{value}'" for key, value in conditions.items()))
    code = _tags(info, best).get(CODE_SHA256)
    found = [version for version in found if version.tags.get(CODE_SHA256) == code]
    return sorted(filter(usable_version, found), key=lambda version: int(version.version))


def _has_code(version: ModelVersion, paths: Paths) -> bool:
    """Check that the user's code of a version is here, as it was registered; most versions have none."""
    if CODE not in version.tags:
        return True
    try:
        own_files.read_code(version.tags[CODE], version.tags[CODE_SHA256], paths.own_networks)
    except DataError:
        return False
    return True


def _tags(info: DatasetInfo, best: Candidate) -> dict[str, str]:
    record, origin = best.record, best.record.origin
    name = record.network.file if isinstance(record.network, OwnNetwork) else None
    metrics = {"validation": record.validation.model_dump(), "test": best.test}
    values = {
        MODEL: record.name,
        CODE: name,
        CODE_SHA256: record.files[name] if name else None,
        SUMMARY: record.summary,
        LIMITS: record.limits.model_dump_json() if record.limits else None,
        SHA256: record.sha256,
        DIGEST: info.digest,
        "params.digest": record.settings_digest,
        "parameters": record.counts.parameters,
        BASELINES: f"{NOT_BETTER} {best.unbeaten}" if best.unbeaten else None,
        **origin.tags(),
        **{f"{split}.{metric}": value for split, part in metrics.items() for metric, value in part.items()},
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def _description(info: DatasetInfo, best: Candidate) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in info.images.items())
    test = Scores(accuracy=best.test["accuracy"], loss=best.test["loss"])
    return (
        f"{best.record.name}, trained on {info.dataset} ({counts} images). Validation, by which it was chosen: "
        f"{_described(best.record.validation)}; test: {_described(test)}. Takes images of shape "
        f"(n, {', '.join(map(str, info.image))}), float32 from 0 to 1; returns the probabilities of the classes "
        f"{', '.join(info.classes)}."
    )


def _described(scores: Scores) -> str:
    return f"accuracy {scores.accuracy:.2%}, loss {scores.loss:.4f}"
