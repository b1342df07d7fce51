"""Training of every network with further seeds."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

from pipeline.core import atomic
from pipeline.core.records import RECORD, load_training
from pipeline.train.train import Job, Trainer


async def replicate(trainer: Trainer) -> None:
    """Train every network with each of `params.replicate_seeds`, into artifacts/replicates/NAME/SEED.

    DVC removes the output of a stage before it runs, so finished replicates are kept elsewhere: one with the same
    settings, data and code is not trained again.

    Raises:
        DataError: a network was not trained yet, or on other data.
    """
    params, paths = trainer.params, trainer.paths
    kept, stopwatch = paths.resumable / "replicate", trainer.tracker.stopwatch
    records = {name: load_training(paths, name) for name in params.trained}
    for record in records.values():
        record.require_data(trainer.data.info.digest)
    folders: dict[tuple[str, int], Path] = {}
    same: dict[str, list[Job]] = {}  # by the key of the fit
    for name, record in records.items():
        titled = trainer.title(name, record.network)
        for seed in params.replicate_seeds:
            spec = trainer.spec(record.network, seed)
            key = trainer.key(spec)
            folder = folders[name, seed] = kept / f"{name}-{seed}-{key}"
            checkpoint = folder / "checkpoint.npz"
            job = Job(
                name, spec, f"{titled} seed {seed}", "replicate", record.run_id, checkpoint=checkpoint, output=folder
            )
            same.setdefault(key, []).append(job)
    async with asyncio.TaskGroup() as group:
        for jobs in same.values():
            group.create_task(_one_by_one(jobs, trainer))
    with stopwatch("writing"):
        for (name, seed), folder in folders.items():
            with atomic.folder(paths.replicate(name, seed)) as target:
                shutil.copytree(folder, target, dirs_exist_ok=True)
        for folder in kept.iterdir():
            if folder not in folders.values():
                shutil.rmtree(folder)


async def _one_by_one(jobs: list[Job], trainer: Trainer) -> None:
    """Run jobs of the same fit, of which only the first has to be trained."""
    folders = [job.output for job in jobs if job.output]
    for job, folder in zip(jobs, folders, strict=True):
        if (folder / RECORD).is_file():
            print(f"{job.title}: already trained", flush=True)
        else:
            await trainer.train(replace(job, others=folders))
