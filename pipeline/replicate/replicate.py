"""Training of every network with further seeds."""

import asyncio
import shutil

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
    folders = {}
    async with asyncio.TaskGroup() as group:
        for name, record in records.items():
            titled = trainer.title(name, record.network)
            for seed in params.replicate_seeds:
                spec, title = trainer.spec(record.network, seed), f"{titled} seed {seed}"
                folder = folders[name, seed] = kept / f"{name}-{seed}-{trainer.key(spec)}"
                if (folder / RECORD).is_file():
                    print(f"{title}: already trained", flush=True)
                    continue
                checkpoint = folder / "checkpoint.npz"
                job = Job(name, spec, title, "replicate", record.run_id, checkpoint=checkpoint, output=folder)
                group.create_task(trainer.train(job))
    with stopwatch("writing"):
        for (name, seed), folder in folders.items():
            with atomic.folder(paths.replicate(name, seed)) as target:
                shutil.copytree(folder, target, dirs_exist_ok=True)
        for folder in kept.iterdir():
            if folder not in folders.values():
                shutil.rmtree(folder)
