"""Score every network on the test images:  python -m pipeline.evaluate

Writes results/metrics.json (a network's name -> its figures), results/evaluation (tables, and the data of plots),
results/report.md and results/report.html, adds the test figures to the MLflow run of each network, and registers the
best network, by its figures on the validation images, if it is better than the registered champion.
"""

from typing import TYPE_CHECKING, Any

from pipeline import config, stage, trained
from pipeline.config import TUNED, Params
from pipeline.errors import DataError
from pipeline.paths import Paths
from pipeline.trained import About

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from pipeline.dataset import Card, Split
    from pipeline.looking import Look
    from pipeline.prediction import Predict
    from pipeline.scoring import Scored


EXAMPLE = 2  # images that are logged as the example of a model's input


def evaluate(paths: Paths) -> None:
    """Score the networks of params.yaml and the search's winner."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    networks = {name: trained.load(paths, name) for name in [*params.models, TUNED]}
    replicates = {name: trained.load_replicates(paths, name, params.replicate_seeds) for name in networks}
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import (
            artifacts,
            comparison,
            dataset,
            looking,
            prediction,
            report,
            robustness,
            scoring,
            significance,
        )
        from pipeline.tracking import registry
    with stopwatch("data"):
        card = dataset.load_card(paths)
        test, validation = dataset.load(paths, "test"), dataset.load(paths, "validation")
        other = _images_of(params.evaluate.robustness.foreign_dataset, paths)
        for about in networks.values():
            trained.require_data(card.digest, about, paths)
    scored: dict[str, Scored] = {}
    looks: dict[str, Look] = {}
    predictors: dict[str, Predict] = {}
    example = looking.middle_example(test.labels)
    for name in networks:
        with stopwatch("scoring"):
            model = artifacts.load(paths.model(name), networks[name]["sha256"])
            predictors[name] = prediction.predictor(model, params.evaluate.batch_size)
            scored[name] = scoring.score(predictors[name], test, validation, card.classes, used.device)
        with stopwatch("looking"):
            looks[name] = looking.look(model, test.images, test.labels, scored[name].probabilities, example)
    with stopwatch("robustness"):
        robust = robustness.examine(
            predictors, test.images, test.labels, params.seed, params.evaluate.robustness, other
        )
    figures = {name: each.figures | robust.figures(name) for name, each in scored.items()}
    with stopwatch("comparing"):
        predicted = {name: each.probabilities.argmax(axis=1) for name, each in scored.items()}
        comparisons = significance.compare(predicted, test.labels)
    tags = {"device": used.name}
    over_seeds: dict[str, pd.DataFrame] = {}
    if params.replicate_seeds:
        seeds = _score_replicates(replicates, figures, params, paths, card, test, stopwatch, tags)
        summary = comparison.over_seeds(seeds)
        over_seeds = {"seeds": seeds, "replicates": summary, "seed_comparisons": significance.compare_seeds(seeds)}
        for name, _, mean, deviation in summary.itertuples(index=False):
            figures[name] |= {"accuracy_mean": mean, "accuracy_deviation": deviation}
    rows = {name: figures[name] | _of_training(about) | {"run_id": about["run_id"]} for name, about in networks.items()}
    tables = {
        "per_class": comparison.stacked({name: each.evaluation.per_class for name, each in scored.items()}),
        "learning_curves": comparison.learning_curves(list(networks), paths),
        "reliability": comparison.stacked({name: each.reliability for name, each in scored.items()}),
        "comparisons": comparisons,
        "cost": comparison.cost_table(rows, {name: each.cost for name, each in scored.items()}, paths),
        "corruption": robust.corruption,
        "corruption_summary": robust.summary,
        "shift": robust.shift,
        "foreign": robust.foreign,
        **over_seeds,
    }
    text = comparison.report(rows, comparisons, networks, card)
    if over_seeds:
        text += "\n" + comparison.seeds_section(over_seeds["replicates"], over_seeds["seed_comparisons"])
    with stopwatch("writing"):
        comparison.write(paths, scored, tables, rows, text)
    with stopwatch("drawing"):
        disagreements = looking.disagreements({name: each.probabilities for name, each in scored.items()}, test.labels)
        report.Report(
            dataset=card.dataset,
            figures=rows,
            confusion={name: each.evaluation.confusion for name, each in scored.items()},
            curves=tables["learning_curves"],
            pictures=looking.Pictures(test.images, card.classes, example, looks, disagreements),
            provenance=comparison.provenance(networks, card, params.seed),
            **{part: tables.get(part) for part in report.TABLES},
        ).write(paths.page)
    candidates = []
    for name, about in networks.items():
        run_id, model_uri = _record(
            name, about, scored[name], figures[name], comparisons, card, test, paths, stopwatch, tags
        )
        candidates.append(registry.Candidate(name, run_id, model_uri, about, figures[name]))
    print(text)
    registry.register(paths, card, candidates, stopwatch)
    stopwatch.report("evaluate")


def _record(
    name: str,
    about: About,
    scored: "Scored",
    figures: dict[str, Any],
    comparisons: "pd.DataFrame",
    card: "Card",
    test: "Split",
    paths: Paths,
    stopwatch: stage.Stopwatch,
    tags: dict[str, str],
) -> tuple[str | None, str | None]:
    """Add what was found to the MLflow run of a network; the id of the run, and the URI of its model."""
    from pipeline import tracking

    with tracking.ended_run(paths, card, name, "evaluate", about["run_id"], stopwatch, tags=tags) as run:
        if run.id != about["run_id"]:
            run.metrics(_of_training(about))
            images = test.images[:EXAMPLE].astype("float32") / 255
            meaning = {"dataset": card.dataset, "classes": card.classes}
            run.model(name, paths.model(name), images, scored.probabilities[:EXAMPLE], meaning)
        run.metrics({f"test_{figure}": value for figure, value in figures.items()} | scored.cost)
        run.table("per_class", scored.evaluation.per_class)
        run.table("confusion", scored.evaluation.confusion)
        run.table("reliability", scored.reliability)
        run.table("comparisons", comparisons[(comparisons["a"] == name) | (comparisons["b"] == name)])
        run.file(paths.page)
        return run.id, run.model_uri or about["model_uri"]


def _score_replicates(
    replicates: dict[str, dict[int, About]],
    figures: dict[str, dict[str, Any]],
    params: Params,
    paths: Paths,
    card: "Card",
    test: "Split",
    stopwatch: stage.Stopwatch,
    tags: dict[str, str],
) -> "pd.DataFrame":
    """Test figures of every network for every seed: model, seed, accuracy, loss."""
    import pandas as pd

    from pipeline import artifacts, metrics, prediction, tracking

    rows = []
    for name, abouts in replicates.items():
        rows.append({"model": name, "seed": params.seed, **{key: figures[name][key] for key in ("accuracy", "loss")}})
        for seed, about in abouts.items():
            with stopwatch("scoring"):
                model = artifacts.load(paths.replicate(name, seed) / "model.keras", about["sha256"])
                scores = metrics.scores(
                    prediction.predictor(model, params.evaluate.batch_size)(test.images), test.labels
                )
            rows.append({"model": name, "seed": seed, **scores})
            title = f"{name} seed {seed}"
            with tracking.ended_run(paths, card, title, "evaluate", about["run_id"], stopwatch, tags=tags) as run:
                run.metrics({f"test_{figure}": value for figure, value in scores.items()})
    return pd.DataFrame(rows)


def _images_of(dataset: str | None, paths: Paths) -> "np.ndarray | None":
    """The test images of another dataset, whose files are checked as `validate` checks them; None for none."""
    from pipeline import readers

    if dataset is None:
        return None
    if not paths.raw(dataset).is_dir():
        raise DataError(
            f"{paths.raw(dataset)}: not found; evaluate.robustness.foreign_dataset needs it: fetch it once by "
            f"`dvc repro download` with data.dataset: {dataset}, or set it to null"
        )
    published = readers.read(config.load_catalog(paths)[dataset], paths.raw(dataset))
    return published.get("test", published["train"]).images


def _of_training(about: About) -> dict[str, float]:
    validation = {f"validation_{figure}": value for figure, value in about["validation"].items()}
    return validation | about["parameters"]


def main() -> None:
    stage.main(lambda _: evaluate(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
