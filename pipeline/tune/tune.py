"""The search: run trials, train finalists with other seeds, and train the winner like any other network."""

import asyncio
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML
from tqdm import tqdm

from pipeline.core import atomic, config, search_space
from pipeline.core.config import TUNED, AnyNetwork, Params
from pipeline.core.errors import TrainingError
from pipeline.core.records import RECORD, SearchRecord
from pipeline.core.summary import differences
from pipeline.tracking import Run, description
from pipeline.train.train import Trainer, train_network
from pipeline.tune import finalists
from pipeline.tune.search import Search, load, save
from pipeline.tune.trial import METRICS, Metrics, Outcome, Trial, cost, curve_table, ranked, trial_table
from pipeline.tune.trial_runner import TrialRunner


async def tune(trainer: Trainer) -> None:
    """Search, write what was found to artifacts/tune, and train the winner.

    Raises:
        TrainingError: no trial was completed, or every finalist failed.
    """
    params, paths, stopwatch = trainer.params, trainer.paths, trainer.tracker.stopwatch
    atomic.require_writable(paths.search)
    runner = TrialRunner(trainer)
    folder = paths.resumable / "tune" / runner.key
    known = folder / "run_id"
    resumed = known.read_text(encoding="utf-8") if known.is_file() else None
    with trainer.tracker.run("search", resume=resumed) as parent:
        if parent.id != resumed:
            parent.tags({"params.digest": runner.settings_digest} | search_tags(runner))
            settings = config.flatten(params.search.model_dump(mode="json"))
            parent.params(settings | {"seed": params.seed, "precision": trainer.device.precision})
            parent.dataset(trainer.data.info, "search")
            atomic.write_text(known, parent.id or "")
        runner = replace(runner, parent=parent.id)
        trials = await run_search(runner, folder)
        best = ranked(trials, params.search.objective)
        if not best:
            raise TrainingError(f"tune: no trial was completed; the first failed with:\n{trials[0].error}")
        winner, rows = best[0], None
        if len(chosen := best[: params.search.finalists]) > 1:
            winner, rows = await run_finalists(runner, chosen, folder / "finalists")
        network = config.network_from(search_space.apply(params.base.model_dump(mode="json"), winner.values))
        tables = {"trials": trial_table(trials, params.dimensions), "curves": curve_table(trials), "finalists": rows}
        with stopwatch("writing"), atomic.folder(paths.search) as results:
            for name, table in tables.items():
                if table is not None:
                    table.to_csv(results / f"{name}.csv", index=False)
            (results / "best.yaml").write_text(pasteable(network, params), encoding="utf-8")
            SearchRecord(
                run_id=parent.id,
                objective=params.search.objective,
                data_digest=trainer.data.info.digest,
                settings_digest=runner.settings_digest,
                device=trainer.device,
                winner=winner.number,
                errors={str(trial.number): trial.error for trial in trials if trial.error},
            ).write(results)
        for name in ("trials", "finalists"):
            if (table := tables[name]) is not None:
                parent.table(name, table)
        parent.file(paths.search)
        log_winner(winner, network, runner, parent)
    print(f"winner of {len(trials)} trials: {winner.number} ({_shown(winner.metrics)}); training it as {TUNED}")
    await train_network(TUNED, network, trainer)
    shutil.rmtree(paths.resumable / "tune", ignore_errors=True)


async def run_search(runner: TrialRunner, folder: Path) -> list[Trial]:
    """Run all trials, or those left of an interrupted search; return them in the order in which they were begun.

    `folder` keeps the outcomes for a search that is resumed.
    """
    trainer, tune = runner.trainer, runner.trainer.params.search
    base, seed = trainer.params.base.model_dump(mode="json"), trainer.params.seed
    total = None if tune.tuner == "hyperband" else tune.trials
    with (
        tqdm(desc="search", unit="trial", total=total, disable=None, dynamic_ncols=True) as bar,
        trainer.tracker.stopwatch("search"),
    ):

        def on_end(trial: Trial) -> None:
            bar.update()
            outcome = (
                trial.error
                or f"{_shown(trial.metrics or _last(trial))} after {len(trial.curve)} of {trial.epochs} epochs"
            )
            bar.write(f"trial {trial.number}: {outcome}\n  {_changes(trial, runner)}")

        search = Search(tune, base, seed, folder, on_end)
        trials = await search.run(runner.trial)
    stopped = [trial for trial in trials if trial.status == "PRUNED"]
    for trial in filter(lambda trial: trial.run_id, stopped):
        with trainer.tracker.reopen(f"trial {trial.number}", trial.run_id) as run:
            run.tags({"pruned": f"after epoch {len(trial.curve)} of {trial.epochs}"})
    if search.oracle.used_up:
        networks = len({json.dumps(trial.values) for trial in trials})
        print(f"search space exhausted after {networks} distinct networks")
    if stopped:
        print(f"stopped early: {', '.join(str(trial.number) for trial in stopped)}")
    return trials


async def run_finalists(runner: TrialRunner, chosen: list[Trial], folder: Path) -> tuple[Trial, pd.DataFrame]:
    """Train the best trials with other seeds; return the winner, and a row for each fit."""
    trainer, tune = runner.trainer, runner.trainer.params.search

    async def run(trial: Trial, seed: int) -> dict[str, Any]:
        path = folder / f"{trial.number}-{seed}.json"
        outcome = Outcome(**load(path)) if path.is_file() else await runner.finalist(trial, seed)
        save(path, asdict(outcome))
        print(f"finalist {trial.number}, seed {seed}: {outcome.error or _shown(outcome.metrics)}", flush=True)
        return _row(trial, seed, outcome, runner)

    with trainer.tracker.stopwatch("finalists"):
        seeds = finalists.seeds(trainer.params.seed, tune.finalist_seeds)
        async with asyncio.TaskGroup() as group:
            fits = [group.create_task(run(trial, seed)) for trial in chosen for seed in seeds]
    table = pd.DataFrame([fit.result() for fit in fits])
    complete = table.groupby("trial").filter(lambda rows: (rows["status"] == "COMPLETED").all())
    if complete.empty:
        raise TrainingError("tune: every finalist failed with at least one seed; see the messages above")
    sign = cost({tune.objective: 1.0}, tune.objective)
    groups = complete.groupby("trial", sort=False)
    scores = {int(str(number)): list(sign * rows[tune.objective]) for number, rows in groups}
    verdict = finalists.verdict(scores, dict(zip(table["trial"], table["parameters"], strict=True)))
    means = ", ".join(f"trial {number} {sign * mean:.4f}" for number, mean in verdict.means.items())
    print(f"mean {tune.objective} of {tune.finalist_seeds} seeds: {means}")
    best = min(verdict.means, key=lambda number: verdict.means[number])
    error = f"one standard error ({verdict.standard_error:.4f})"
    reason = "the best mean" if verdict.winner == best else f"within {error} of trial {best}, and smaller"
    print(f"the winner is trial {verdict.winner}: {reason}", flush=True)
    return next(trial for trial in chosen if trial.number == verdict.winner), table


def _changes(trial: Trial, runner: TrialRunner) -> str:
    """Differences from the base."""
    base, name = runner.trainer.params.base, runner.trainer.params.search.base
    if trial.error:  # its values may not even be those of a network
        return ", ".join(f"{key} {value}" for key, value in trial.values.items())
    return differences(runner.network(replace(trial, epochs=base.fit.epochs)), base) or f"as {name}"


def _row(trial: Trial, seed: int, outcome: Outcome, runner: TrialRunner) -> dict[str, Any]:
    parameters = runner.counts(trial, outcome).get("parameters")
    row = {"trial": trial.number, "seed": seed, "status": outcome.status, "parameters": parameters}
    return row | {name: outcome.metrics.get(name) for name in METRICS}


def search_tags(runner: TrialRunner, winner: str = "") -> dict[str, str]:
    """Kind and description of the search's run."""
    tune, paths = runner.trainer.params.search, runner.trainer.paths
    scope = f"Search over {', '.join(d.name for d in runner.trainer.params.dimensions)} of {tune.base}."
    return description.tags("search", scope, winner, f"Record: `{(paths.search / RECORD).relative_to(paths.root)}`")


def log_winner(winner: Trial, network: AnyNetwork, runner: TrialRunner, run: Run) -> None:
    """Log the winning trial to the search's run, with the names of parameters and metrics that other runs have."""
    counts = runner.counts(winner, winner)
    run.params(description.params(network))
    run.metrics(counts | {name.replace("val_", "validation_"): value for name, value in winner.metrics.items()})
    run.tags(search_tags(runner, f"Winner: trial {winner.number}. Its metrics are shown; `{TUNED}` is trained longer."))


def pasteable(network: AnyNetwork, params: Params) -> str:
    """A network's block as YAML to paste under `models`, without what equals the defaults."""
    block = network.model_dump(mode="json", exclude_defaults=True)
    fit = _differing(block.pop("fit"), params.fit.model_dump(mode="json"))
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump({TUNED: block | ({"fit": fit} if fit else {})}, text)
    return f"# The winner of the search; paste it under `models` in params.yaml and give it a name.\n{text.getvalue()}"


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


def _shown(metrics: Metrics) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _last(trial: Trial) -> Metrics:
    return {name: trial.curve[-1][name] for name in METRICS}
