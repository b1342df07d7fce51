"""Train every network again with other seeds:  python -m pipeline.replicate

`evaluate.seeds: N` means N trainings of each network: the one of its own stage, and here those of the N - 1 seeds after
`seed`, into artifacts/replicates/NAME/SEED. What is there already, of the same settings, data and code, is kept.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import config, stage, trained
from pipeline.config import TUNED, Params
from pipeline.paths import Paths

if TYPE_CHECKING:
    from pipeline.runtime import Runtime


def replicate(paths: Paths) -> None:
    """Bring artifacts/replicates up to the parameters."""
    stopwatch = stage.Stopwatch()
    params = config.load(paths)
    names = [*params.models, TUNED]
    _remove_others(paths, {paths.replicate(name, seed) for name in names for seed in params.replicate_seeds})
    if params.replicate_seeds:
        abouts = {name: trained.load(paths, name) for name in names}
        with stopwatch("imports"):  # after the parameters are known to be good
            from pipeline import runtime

            used = runtime.start(params.runtime)
        _train_missing(abouts, params, paths, used, stopwatch)
    stopwatch.report("replicate")


def _train_missing(
    abouts: dict[str, trained.About], params: Params, paths: Paths, used: "Runtime", stopwatch: stage.Stopwatch
) -> None:
    from pipeline import artifacts, atomic, dataset, provenance, tracking, training, training_run

    with stopwatch("data"):
        card = dataset.load_card(paths)
        train, validation = dataset.load(paths, "train"), dataset.load(paths, "validation")
    code = provenance.code_digest()
    for name, about in abouts.items():
        trained.require_data(card.digest, about, paths)
        network = config.model_from(about["network"])
        for seed in params.replicate_seeds:
            title, folder = f"{name} seed {seed}", paths.replicate(name, seed)
            settings = provenance.digest(about["network"], seed, asdict(used))
            key = provenance.digest(settings, card.digest, code)
            if _key(folder) == key:
                print(f"{title}: trained already", flush=True)
                continue
            seeded = params.model_copy(update={"seed": seed})
            tags = {"params.digest": settings, "device": used.name}
            parent = about["run_id"]
            with tracking.run(paths, card, title, "replicate", stopwatch, tags=tags, parent=parent) as run:
                training_run.record_settings(run, network, seeded, card, used)
                with stopwatch("fit"):
                    fitted = training.fit(
                        network,
                        card,
                        train,
                        validation,
                        seed=seed,
                        precision=used.precision,
                        on_epoch=run.epoch,
                        checkpoint=paths.unfinished / "replicate" / f"{name}-{key}.npz",
                        title=title,
                    )
                run.metrics({f"validation_{figure}": value for figure, value in fitted.validation.items()})
                of_it = {"model": name, "seed": seed, "run_id": run.id, "data": card.digest, "key": key}
                with stopwatch("writing"), atomic.folder(folder) as part:
                    of_it["sha256"] = artifacts.save(fitted.model, part / "model.keras")
                    (part / "run.json").write_text(json.dumps(of_it, indent=2) + "\n", encoding="utf-8")


def _key(folder: Path) -> Any:
    """What the replicate in a folder follows from; None where there is none."""
    path = folder / "run.json"
    return json.loads(path.read_text(encoding="utf-8"))["key"] if path.is_file() else None


def _remove_others(paths: Paths, wanted: set[Path]) -> None:
    """Remove the replicates of networks and seeds that there no longer are."""
    paths.replicates.mkdir(parents=True, exist_ok=True)
    for folder in paths.replicates.glob("*/*"):
        if folder not in wanted:
            shutil.rmtree(folder)
    for folder in paths.replicates.iterdir():
        if not any(folder.iterdir()):
            folder.rmdir()


def main() -> None:
    stage.main(lambda _: replicate(Paths()), stage.parser(__doc__))


if __name__ == "__main__":
    main()
