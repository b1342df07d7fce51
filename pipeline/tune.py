"""Search dropout, pooling and whatever else `tune.space` lists:  python -m pipeline.tune

The base network's own values are the first trial. The best trial is then trained like any network of params.yaml, under
the name `tuned`, and its block is written to results/tune/best.yaml, ready to be pasted under `models`. Killed, the
search goes on with the trials that are left when it is started again.
"""

import io
import json
import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipeline import atomic, config, space, stage
from pipeline.config import TUNED, Model, Params
from pipeline.errors import TrainingError
from pipeline.paths import Paths

if TYPE_CHECKING:
    from pipeline.runtime import Runtime
    from pipeline.search import Figures, Trial


def tune(paths: Paths) -> None:
    """Search, write down what was found, and train the winner."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import search, training_run
    trials, about = _searched(params, paths, used, stopwatch)
    if all(trial.status != "COMPLETED" for trial in trials):
        raise TrainingError(f"tune: no trial was completed; the first failed with:\n{trials[0].error}")
    winner = search.best(trials, params.tune.objective)
    network = config.model_from(space.apply(params.base.model_dump(mode="json"), winner.values))
    with stopwatch("writing"), atomic.folder(paths.search) as folder:
        search.trial_table(trials).to_csv(folder / "trials.csv", index=False)
        (folder / "best.yaml").write_text(pasteable(network, params), encoding="utf-8")
        (folder / "run.json").write_text(json.dumps(about | {"best": winner.number}, indent=2) + "\n", encoding="utf-8")
    print(f"best of {len(trials)} trials: {winner.number} ({_figures(winner.figures)}); training it as {TUNED}")
    training_run.complete(TUNED, network, params, paths, used, "tune", stopwatch)
    shutil.rmtree(paths.unfinished / "tune", ignore_errors=True)
    stopwatch.report("tune")


def _searched(
    params: Params, paths: Paths, used: "Runtime", stopwatch: stage.Stopwatch
) -> tuple[list["Trial"], dict[str, Any]]:
    from tqdm import tqdm

    from pipeline import dataset, provenance, search, tracking, training, training_run

    with stopwatch("data"):
        card = dataset.load_card(paths)
        train, validation = dataset.load(paths, "train"), dataset.load(paths, "validation")
    base = params.base.model_dump(mode="json")
    settings = params.tune.model_dump(mode="json")
    identity = provenance.digest(settings, base, params.seed, asdict(used))
    folder = paths.unfinished / "tune" / provenance.digest(identity, card.digest, provenance.code_digest())
    known = folder / "run_id"
    again = known.read_text(encoding="utf-8") if known.is_file() else None
    tags = {"params.digest": identity, "device": used.name}
    with tracking.run(paths, card, "search", "tune", stopwatch, tags=tags, again=again) as parent:
        if parent.id != again:
            parent.params(config.flatten(settings) | {"seed": params.seed, "precision": used.precision})
            parent.dataset(card, "search")
            atomic.write_text(known, parent.id or "")
        total = None if params.tune.tuner == "hyperband" else params.tune.trials
        bar = tqdm(desc="search", unit="trial", total=total, disable=None)

        def run_trial(trial: "Trial") -> "Figures":
            block = space.apply(base, trial.values)
            network = config.model_from(space.apply(block, {"fit.epochs": trial.epochs}))
            name = f"trial {trial.number}"
            with tracking.run(paths, card, name, "tune", stopwatch, tags=tags, parent=parent.id) as run:
                run.params(config.flatten(trial.values) | {"fit.epochs": trial.epochs})
                with stopwatch("search"):
                    fitted = training.fit(
                        network,
                        card,
                        train,
                        validation,
                        seed=params.seed,
                        precision=used.precision,
                        on_epoch=run.epoch,
                    )
                run.metrics({f"validation_{name}": value for name, value in fitted.validation.items()})
                run.metrics(training_run.counts(training_run.layer_table(network, card)))
            figures = {f"val_{name}": value for name, value in fitted.validation.items()}
            bar.update()
            bar.write(f"trial {trial.number}: {_figures(figures)} {json.dumps(trial.values)}")
            return figures

        with stopwatch("search"):
            trials = search.search(params.tune, params.dimensions, params.seed, folder, run_trial)
        bar.close()
        parent.table("trials", search.trial_table(trials))
    about = {"run_id": parent.id, "data": card.digest, "params": identity, **settings, **asdict(used)}
    return trials, about


def pasteable(network: Model, params: Params) -> str:
    """A network's block as YAML to paste under `models`: what differs from the defaults."""
    block = network.model_dump(mode="json", exclude_defaults=True)
    fit = _differing(block.pop("fit"), params.fit.model_dump(mode="json"))
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump({TUNED: block | ({"fit": fit} if fit else {})}, text)
    return f"# The search's winner; paste it under `models` in params.yaml, with a name of your own.\n{text.getvalue()}"


def _differing(value: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    different = {}
    for key, own in value.items():
        if isinstance(own, dict):
            own = _differing(own, common[key])
            if not own:
                continue
        elif own == common[key]:
            continue
        different[key] = own
    return different


def _figures(figures: "Figures") -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in figures.items())


def main() -> None:
    stage.main(lambda _: tune(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
