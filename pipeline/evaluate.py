"""Score every network on the test images:  python -m pipeline.evaluate

Writes results/metrics.json (a network's name -> its figures), results/evaluation (tables, and the data of plots) and
results/report.md, and adds the test figures to the MLflow run of each network.
"""

import json
from typing import TYPE_CHECKING

from pipeline import config, stage
from pipeline.config import TUNED
from pipeline.errors import DataError
from pipeline.paths import Paths

if TYPE_CHECKING:
    from pipeline.comparison import About
    from pipeline.scoring import Scored


def evaluate(paths: Paths) -> None:
    """Score the networks of params.yaml and the search's winner."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    trained = {name: trained_run(name, paths) for name in [*params.models, TUNED]}
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import artifacts, comparison, dataset, prediction, scoring, significance, tracking
    with stopwatch("data"):
        card = dataset.load_card(paths)
        test, validation = dataset.load(paths, "test"), dataset.load(paths, "validation")
        _require_data(card.digest, trained, paths)
    scored: dict[str, Scored] = {}
    for name in trained:  # one network in memory at a time
        with stopwatch("scoring"):
            predict = prediction.predictor(artifacts.load(paths.model(name)), params.evaluate.batch_size)
            scored[name] = scoring.score(predict, test, validation, card.classes, used.device)
            del predict
    with stopwatch("comparing"):
        predicted = {name: each.probabilities.argmax(axis=1) for name, each in scored.items()}
        comparisons = significance.compare(predicted, test.labels)
    for name, about in trained.items():
        tags = {"device": used.name}
        with tracking.ended_run(paths, card, name, "evaluate", about["run_id"], stopwatch, tags=tags) as run:
            if run.id != about["run_id"]:
                run.metrics(_of_training(about))
            run.metrics({f"test_{figure}": value for figure, value in scored[name].figures.items()})
            run.metrics(scored[name].cost)
            run.table("per_class", scored[name].evaluation.per_class)
            run.table("confusion", scored[name].evaluation.confusion)
            run.table("reliability", scored[name].reliability)
            run.table("comparisons", comparisons[(comparisons["a"] == name) | (comparisons["b"] == name)])
    with stopwatch("writing"):
        figures = {
            name: scored[name].figures | _of_training(about) | {"run_id": about["run_id"]}
            for name, about in trained.items()
        }
        tables = {
            "per_class": comparison.stacked({name: each.evaluation.per_class for name, each in scored.items()}),
            "learning_curves": comparison.learning_curves(list(trained), paths),
            "reliability": comparison.stacked({name: each.reliability for name, each in scored.items()}),
            "comparisons": comparisons,
            "cost": comparison.cost_table(figures, {name: each.cost for name, each in scored.items()}, paths),
        }
        report = comparison.report(figures, comparisons, trained, card)
        comparison.write(paths, scored, tables, figures, report)
    print(report)
    stopwatch.report("evaluate")


def trained_run(name: str, paths: Paths) -> "About":
    """What the training of a network wrote down about itself.

    Raises:
        DataError: the network was not trained.
    """
    path = paths.training(name) / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        stage_name = "tune" if name == TUNED else f"train@{name}"
        raise DataError(f"{path}: not found; train it first: dvc repro {stage_name}") from None


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
