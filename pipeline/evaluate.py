"""Score every network on the test images:  python -m pipeline.evaluate

Writes results/metrics.json (a network's name -> its figures), results/evaluation (per-class figures, confusions and
learning curves as data of plots) and results/report.md, adds the test figures to the MLflow run of each network, and
registers the best network, by its figures on the validation images, if it is better than the registered champion.
"""

from typing import TYPE_CHECKING

from pipeline import config, stage
from pipeline.config import TUNED
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.trained import trained_run

if TYPE_CHECKING:
    from pipeline.metrics import Evaluation
    from pipeline.trained import About

EXAMPLE = 2  # images that are logged as the example of a model's input


def evaluate(paths: Paths) -> None:
    """Score the networks of params.yaml and the search's winner."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    trained = {name: trained_run(name, paths) for name in [*params.models, TUNED]}
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import artifacts, comparison, dataset, metrics, tracking
        from pipeline.tracking import registry
    with stopwatch("data"):
        card, test = dataset.load_card(paths), dataset.load(paths, "test")
        _require_data(card.digest, trained, paths)
    found: dict[str, Evaluation] = {}
    candidates: list[registry.Candidate] = []
    for name, about in trained.items():
        with stopwatch("scoring"):
            batches = dataset.scoring_batches(test, len(card.classes), params.evaluate.batch_size)
            probabilities = metrics.predict(artifacts.load(paths.model(name), about["sha256"]), batches)
            found[name] = metrics.evaluate(probabilities, test.labels, card.classes)
        tags = {"device": used.name}
        with tracking.ended_run(paths, card, name, "evaluate", about["run_id"], stopwatch, tags=tags) as run:
            if run.id != about["run_id"]:
                run.metrics(_of_training(about))
                example = test.images[:EXAMPLE].astype("float32") / 255
                meaning = {"dataset": card.dataset, "classes": card.classes}
                run.model(name, paths.model(name), example, probabilities[:EXAMPLE], meaning)
            run.metrics({f"test_{figure}": value for figure, value in found[name].figures.items()})
            run.table("per_class", found[name].per_class)
            run.table("confusion", found[name].confusion)
            model_uri = run.model_uri or about["model_uri"]
        candidates.append(registry.Candidate(name, run.id, model_uri, about, found[name].figures))
    with stopwatch("writing"):
        figures = {
            name: found[name].figures | _of_training(about) | {"run_id": about["run_id"]}
            for name, about in trained.items()
        }
        table = comparison.results_table(figures, trained, card)
        comparison.write(paths, found, figures, table)
    print(table)
    registry.register(paths, card, candidates, stopwatch)
    stopwatch.report("evaluate")


def _require_data(digest: str, trained: dict[str, "About"], paths: Paths) -> None:
    for name, about in trained.items():
        if about["data"] != digest:
            raise DataError(f"{paths.training(name)}: trained on other data than data/validated holds; run dvc repro")


def _of_training(about: "About") -> dict[str, float]:
    validation = {f"validation_{figure}": value for figure, value in about["validation"].items()}
    return validation | about["parameters"]


def main() -> None:
    stage.main(lambda _: evaluate(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
