"""Search dropout, pooling and whatever else `tune.space` lists:  python -m pipeline.tune

The base network's own values are the first trial. The best trials are trained again with other seeds, and the winner is
then trained like any network of params.yaml, under the name `tuned`; its block is written to results/tune/best.yaml,
ready to be pasted under `models`. Killed, the search goes on with what is left when it is started again.
"""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from pipeline import atomic, config, space, stage, workers
from pipeline.config import TUNED, Model, Params
from pipeline.errors import TrainingError
from pipeline.paths import Paths

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.search import Figures, Oracle, Outcome, Stops, Trial
    from pipeline.trials import Workplace


def tune(paths: Paths) -> None:
    """Search, write down what was found, and train the winner."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    with workers.team(workers.settings(params)) as team:
        _tune(params, paths, team, stopwatch)
    stopwatch.report("tune")


def _tune(params: Params, paths: Paths, team: workers.Team | None, stopwatch: stage.Stopwatch) -> None:
    with stopwatch("imports"):  # after the parameters are known to be good
        from pipeline import runtime

        used = runtime.start(params.runtime)
        from pipeline import evidence, evidence_plots, provenance, search, tracking, training_run, trials
    place = trials.workplace(params, paths, used, stopwatch)
    card, identity = place.card, place.identity
    settings = params.tune.model_dump(mode="json")
    folder = paths.unfinished / "tune" / provenance.digest(identity, card.digest, provenance.code_digest())
    known = folder / "run_id"
    again = known.read_text(encoding="utf-8") if known.is_file() else None
    with tracking.run(paths, card, "search", "tune", stopwatch, tags=place.tags, again=again) as parent:
        if parent.id != again:
            parent.params(config.flatten(settings) | {"seed": params.seed, "precision": used.precision})
            parent.dataset(card, "search")
            atomic.write_text(known, parent.id or "")
        asked, found = _searched(place, team, folder, parent.id)
        table, curves = search.trial_table(found, params.dimensions), search.curve_table(found)
        parent.table("trials", table)
        best = search.ranked(found, params.tune.objective)
        if not best:
            raise TrainingError(f"tune: no trial was completed; the first failed with:\n{found[0].error}")
        winner, finalists = best[0], None
        if len(chosen := best[: params.tune.finalists]) > 1:
            winner, finalists = _winner(place, team, asked, chosen, folder)
            parent.table("finalists", finalists)
        network = config.model_from(space.apply(params.base.model_dump(mode="json"), winner.values))
        about = {
            "run_id": parent.id,
            "data": card.digest,
            "params": identity,
            **settings,
            **asdict(used),
            "best": winner.number,
            "errors": {trial.number: trial.error for trial in found if trial.error},
        }
        with stopwatch("writing"), atomic.folder(paths.search) as results:
            table.to_csv(results / "trials.csv", index=False)
            curves.to_csv(results / "curves.csv", index=False)
            if finalists is not None:
                finalists.to_csv(results / "finalists.csv", index=False)
            (results / "best.yaml").write_text(pasteable(network, params), encoding="utf-8")
            (results / "run.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            says = evidence.assess(table, curves, params.dimensions, params.tune.objective)
            says.write(results)
            evidence_plots.write(says, results)
        parent.file(paths.search)
    print(says.text)
    print(f"winner of {len(found)} trials: {winner.number} ({_figures(winner.figures)}); training it as {TUNED}")
    training_run.complete(TUNED, network, params, paths, used, "tune", stopwatch)
    shutil.rmtree(paths.unfinished / "tune", ignore_errors=True)


def _searched(
    place: "Workplace", team: workers.Team | None, folder: Path, parent: str | None
) -> tuple["Oracle", list["Trial"]]:
    from tqdm import tqdm

    from pipeline import search, tracking, trials

    params = place.params
    tune, base = params.tune, params.base.model_dump(mode="json")
    total = None if tune.tuner == "hyperband" else tune.trials
    with tqdm(desc="search", unit="trial", total=total, disable=None) as bar, place.stopwatch("search"):

        def ended(trial: "Trial") -> None:
            bar.update()
            came_to = trial.error or f"{_figures(trial.figures)} after {len(trial.curve)} of {trial.epochs} epochs"
            bar.write(f"trial {trial.number}: {came_to} {json.dumps(trial.values)}")

        note = {"search": place.fingerprint, "parent": parent or ""}
        asked = search.oracle(tune, base, params.seed, folder, ended, note)
        _run(asked, place, team)
        found = search.trials(asked)
    for trial in found:
        if len(trial.curve) < len(asked.trial(trial.number).curve):  # it went on, not knowing of those before it
            name = f"trial {trial.number}"
            known = tracking.ended_run(
                place.paths, place.card, name, "tune", trial.run_id, place.stopwatch, tags=place.tags
            )
            with known as run:
                run.tags(trials.pruned(len(trial.curve), trial.epochs))
    if asked.used_up:
        networks = len({json.dumps(trial.values) for trial in found})
        print(f"the space is used up: all of its networks that were found, {networks}, have been tried")
    stopped = [str(trial.number) for trial in found if trial.status == "PRUNED"]
    if stopped:
        print(f"stopped early: {', '.join(stopped)}")
    return asked, found


def _run(asked: "Oracle", place: "Workplace", team: workers.Team | None) -> None:
    """Have all trials run: by the team, or here."""
    from pipeline import search

    if team:
        team.run(asked)
        return

    def run(trial: "Trial", stops: "Stops") -> "Outcome":
        return place.run(trial, stops, (trial.note or {}).get("parent"))

    search.work(asked, "worker0", place.params.tune, run)


def _winner(
    place: "Workplace",
    team: workers.Team | None,
    searched: "Oracle",
    chosen: list["Trial"],
    folder: Path,
) -> tuple["Trial", "pd.DataFrame"]:
    """Train finalists again; the winner, and a row for each fit."""
    import pandas as pd

    from pipeline import finalists, search, training_run

    tune = place.params.tune

    def ended(trial: "Trial") -> None:
        assert trial.finalist
        number, seed = trial.finalist
        print(f"finalist {number}, seed {seed}: {trial.error or _figures(trial.figures)}", flush=True)

    with place.stopwatch("finalists"):
        seeds = finalists.seeds(place.params.seed, tune.finalist_seeds)
        asked = search.finals(searched, chosen, seeds, folder / "finalists", ended)
        _run(asked, place, team)
    rows: list[dict[str, Any]] = []
    for trial in search.fits(asked):
        assert trial.finalist
        number, seed = trial.finalist
        network = place.network(trial.values, tune.epochs)
        parameters = training_run.counts(training_run.layer_table(network, place.card))["parameters"]
        fit = {"trial": number, "seed": seed, "status": trial.status, "parameters": parameters}
        rows.append(fit | {name: trial.figures.get(name) for name in search.FIGURES})
    table = pd.DataFrame(rows)
    complete = table.groupby("trial").filter(lambda fits: (fits["status"] == "COMPLETED").all())
    if complete.empty:
        raise TrainingError("tune: every finalist failed with one seed at least; see the messages above")
    sign = search.cost({tune.objective: 1.0}, tune.objective)
    scores = {
        int(str(number)): list(sign * fits[tune.objective]) for number, fits in complete.groupby("trial", sort=False)
    }
    verdict = finalists.verdict(scores, dict(zip(table["trial"], table["parameters"], strict=True)))
    means = ", ".join(f"trial {number} {sign * mean:.4f}" for number, mean in verdict.means.items())
    print(f"mean {tune.objective} of {tune.finalist_seeds} seeds: {means}; standard error {verdict.standard_error:.4f}")
    best = min(verdict.means, key=lambda number: verdict.means[number])
    reason = "the best mean" if verdict.winner == best else f"within one standard error of trial {best}, and smaller"
    print(f"the winner is trial {verdict.winner}: {reason}", flush=True)
    return next(trial for trial in chosen if trial.number == verdict.winner), table


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
