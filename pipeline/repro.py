"""Run every out-of-date stage, networks side by side:  python -m pipeline.repro

`dvc repro` runs one stage after another. This command trains the networks at the same time, each in a `dvc repro
--single-item` of its own, and begins the search while the last of them train. Then it runs `dvc repro` for the other
stages. All files are the same as those of `dvc repro`.

By default, as many networks run as there are cores, or GPUs, and 2 GiB of free memory for each; REPRO_JOBS=N sets
another number. When a stage fails, those that are running finish, and no others start. Ctrl-C ends all of them. The
next run resumes.
"""

import argparse
import asyncio
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.core import atomic, command, config, machine
from pipeline.core.config import Params
from pipeline.core.errors import ConfigError, TrainingError
from pipeline.core.paths import Paths

GRACE = 30.0  # seconds after Ctrl-C in which stages close their runs and files
TAIL = 15  # lines of a failed stage to show again at the end
HINTS = "To track the changes with git, run:"  # begins DVC's last lines, which the `dvc repro` at the end has as well
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
Failed = dict[str, tuple[int, list[str]]]  # by stage: exit status and last lines


def run(arguments: argparse.Namespace) -> None:
    """Train the out-of-date networks side by side, then run the other stages."""
    paths = Paths()
    params = config.load(paths)
    from dvc.cli import main as dvc  # after the parameters are known to be valid: it takes half a second
    from dvc.exceptions import DvcException

    if jobs(params, len(params.networks)) > 1:
        try:
            plan = Plan(params)
            if plan.unprepared:
                if status := dvc(["repro", "validate"]):
                    sys.exit(status)
                plan = Plan(params)
            count = jobs(params, len(plan.stale))
            if count > 1:
                run_side_by_side(plan.stale, count, params)
            plan.sort_lock(paths)
        except DvcException as error:  # `dvc repro` reports it with its cause
            print(f"warning: networks are not trained side by side: {error}", file=sys.stderr, flush=True)
    sys.exit(dvc(["repro"]))


def jobs(params: Params, stages: int) -> int:
    """The number of stages that run side by side: REPRO_JOBS, or as many as cores or GPUs, and memory, allow.

    Raises:
        ConfigError: REPRO_JOBS is invalid.
    """
    wanted = os.environ.get("REPRO_JOBS")
    if wanted and not re.fullmatch(r"[1-9]\d{0,3}", wanted, re.ASCII):
        raise ConfigError(f"REPRO_JOBS: found {wanted}; allowed: a whole number from 1 to 9999")
    limits = [stages]
    if wanted:
        limits.append(int(wanted))
    else:
        limits.append(machine.fits_in_memory())
        if not _on_cluster():
            limits.append(
                len(machine.gpus(params.runtime)) or machine.cores() // (params.runtime.threads or machine.cores())
            )
    return max(1, min(limits))


def _on_cluster() -> bool:
    """Return whether other machines do the fits."""
    return bool(os.environ.get("DASK_SCHEDULER_ADDRESS"))


class Plan:
    """The stages that can run side by side, and which of them have to run.

    They are those that train a network, and last the search, which begins when no network waits. With GPUs it runs
    alone: a stage that runs beside others has one GPU, and a search uses all.
    """

    def __init__(self, params: Params) -> None:
        from dvc.repo import Repo, lock_repo

        searches = params.tune is not None and (_on_cluster() or not machine.gpus(params.runtime))
        together = re.compile(r"(train|grid)@|tune$" if searches else r"(train|grid)@")
        with Repo() as repo, lock_repo(repo):
            stages = [stage for stage in repo.index.stages if together.match(getattr(stage, "name", ""))]
            self.names = [stage.name for stage in stages]
            self.unprepared = any(stage.status() for stage in repo.stage.collect("validate", with_deps=True))
            out_of_date = [stage for stage in stages if not self.unprepared and stage.status()]
            self.stale = [stage.name for stage in out_of_date if not _restorable(stage)]

    def sort_lock(self, paths: Paths) -> None:
        """Sort these stages in dvc.lock as in dvc.yaml. DVC appends them as they end."""
        from dvc.repo import Repo, lock_repo
        from dvc.utils.serialize import dumps_yaml, load_yaml, parse_yaml_for_update

        file = paths.root / "dvc.lock"
        with Repo() as repo, lock_repo(repo):
            found = list(load_yaml(file)["stages"])
            ordered = (name for name in self.names if name in found)
            names = [next(ordered) if name in self.names else name for name in found]
            if names != found:
                locked = parse_yaml_for_update(file.read_text(encoding="utf-8"), file)
                locked["stages"] = {name: locked["stages"][name] for name in names}
                atomic.write_text(file, dumps_yaml(locked))


def _restorable(stage: Any) -> bool:
    """Return whether DVC can restore the outputs of a stage from its run-cache."""
    from dvc.stage.cache import RunCacheNotFoundError

    stage.save_deps()
    try:
        stage.repo.stage_cache.restore(stage, dry=True)
    except RunCacheNotFoundError:
        return False
    return True


def run_side_by_side(stages: list[str], count: int, params: Params) -> None:
    """Run stages, `count` at a time.

    Raises:
        TrainingError: some failed.
    """
    print(f"running {len(stages)} stages, {count} at a time (REPRO_JOBS=N: N at a time)", flush=True)
    handler, interrupt = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    if interrupt is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # then asyncio cancels the tasks in order
    try:
        failed = asyncio.run(_run_all(stages, [_environment(slot, count, params) for slot in range(count)]))
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, handler)  # asyncio leaves the default
        signal.signal(signal.SIGINT, interrupt)
    if failed:
        tails = [
            "\n".join([f"{stage} failed with status {status}; its last lines:", *(f"    {line}" for line in lines)])
            for stage, (status, lines) in failed.items()
        ]
        raise TrainingError("\n".join([*tails, "fix this and run the same command: finished networks are kept"]))


def _environment(slot: int, count: int, params: Params) -> dict[str, str]:
    """The environment of the stages that run in one of `count` slots: its share of the cores, and its GPU."""
    changes = machine.threads(count) | {command.ENDS_WITH: str(os.getpid())}
    gpus = machine.gpus(params.runtime)
    return os.environ | changes | ({"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {})


async def _run_all(stages: list[str], environments: Iterable[Mapping[str, str]]) -> Failed:
    """Run stages, one at a time in each environment, until all have run or one has failed."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    waiting, failed, output = iter(enumerate(stages)), Failed(), Console(highlight=False, soft_wrap=True)
    width = max(map(len, stages))

    async def work(environment: Mapping[str, str]) -> None:
        for number, stage in waiting:  # shared: each worker takes the next
            prefix, last = Text(f"{stage:<{width}}  ", COLOURS[number % len(COLOURS)]), deque[str](maxlen=TAIL)

            def show(line: str, prefix: Text = prefix, last: deque[str] = last) -> None:
                last.append(line)
                output.print(prefix + Text(line))

            if status := await _run_stage(stage, environment, show):
                failed[stage] = status, list(last)
            if failed:
                return

    async with asyncio.TaskGroup() as group:
        for environment in environments:
            group.create_task(work(environment))
    return failed


async def _run_stage(stage: str, environment: Mapping[str, str], show: Callable[[str], None]) -> int:
    """Run one stage with DVC, and return its exit status. Cancelled, it ends all processes of the stage first."""
    process = await asyncio.create_subprocess_exec(
        # Without waiting for its lock, DVC gives up after 3 s and loses a network that has been trained.
        *(sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        process_group=0,  # which signals reach as a whole, and those of the terminal do not reach
    )
    # The output ends when all processes of the stage have: DVC may have been killed before them.
    shown = asyncio.create_task(_show_lines(process, show))
    try:
        await asyncio.shield(shown)
    except asyncio.CancelledError:
        await _end(process, shown)
        raise
    return await process.wait()


async def _end(process: asyncio.subprocess.Process, shown: asyncio.Task[None]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError, asyncio.CancelledError):  # cancelled again by a second Ctrl-C
            await asyncio.wait_for(asyncio.shield(shown), GRACE)
            break
    await process.wait()


async def _show_lines(process: asyncio.subprocess.Process, show: Callable[[str], None]) -> None:
    assert process.stdout
    rest, hints = b"", False
    while chunk := await process.stdout.read(2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            hints = hints or text == HINTS
            if text and not hints:
                show(text)
    if rest:
        show(rest.decode(errors="replace"))


def main() -> None:
    command.main(run, command.parser(__doc__))


if __name__ == "__main__":
    main()
