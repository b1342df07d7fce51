"""Command-line entry: arguments, errors, signals, one process for each stage, timing."""

import argparse
import fcntl
import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from urllib.parse import quote

import psutil

from pipeline.core.errors import UserError
from pipeline.core.paths import Paths

ENDS_WITH = "CONVPIPE_ENDS_WITH"  # the process that runs DVC for several stages side by side: they end when it dies
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox"}
POLL = 0.25  # seconds
GRACE = 20.0  # seconds that a stage has to close its run and its files after DVC has died


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Create a parser whose help is the docstring of the module."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(run: Callable[[argparse.Namespace], object], arguments: argparse.ArgumentParser) -> None:
    """Run a command and exit; errors that the user can fix give status 1 and a message without a traceback."""
    namespace = arguments.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    stage = _stage()
    if stage and os.environ.get("DVC_STAGE"):
        _end_with_dvc()
    try:
        with (
            _only_process(" ".join(filter(None, [stage, getattr(namespace, "name", None)]))) if stage else nullcontext()
        ):
            run(namespace)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        if stage:
            print(f"\n{_interrupted(stage)}", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    finally:
        gc.freeze()  # spares the last garbage collection: 2 s after TensorFlow, for memory that is freed anyway


def _stop(number: int, frame: FrameType | None) -> None:
    # As an exception, so that open runs and temporary files are closed.
    raise SystemExit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As Python's own handler, which asyncio would replace by one that waits for the end of a step, which may be a fit.
    raise KeyboardInterrupt


def _interrupted(stage: str) -> str:
    stage, paths = os.environ.get("DVC_STAGE", stage), Paths()
    if paths.home.resolve() == paths.root.resolve():
        return f"{stage}: interrupted; the same command resumes here"
    # In a copy of the project, which DVC deletes with .cache.
    return f"{stage}: interrupted; the same command restores the finished stages and repeats this one"


def _stage() -> str | None:
    """The stage that `python -m pipeline.STAGE` runs; None in other commands."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    found = re.fullmatch(r"pipeline\.(\w+)\.__main__", spec.name if spec else "")
    return found[1] if found and found[1] != "tracking" else None


@contextmanager
def _only_process(work: str) -> Iterator[None]:
    """Hold the lock of a stage, or of one network of it: a second process would replace its outputs.

    Raises:
        UserError: another process holds it.
    """
    path = Paths().resumable / "locks" / f"{quote(work, safe='')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        print(f"warning: {work}: not protected against a second process: {error}", file=sys.stderr, flush=True)
        yield
        return
    with os.fdopen(descriptor, "r+b", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            number = lock.read().decode() or "unknown"
            raise UserError(
                f"{work}: already running in this folder, as process {number}; wait for its end or stop it "
                f"(kill {number}), then run the stage again"
            ) from None
        with suppress(OSError):  # a full disk; the number is for the message alone
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        yield


def _end_with_dvc() -> None:
    """End this process when the one that started it dies, as after `kill -9` of DVC.

    An orphan would go on writing outputs of parameters that may have changed. DVC starts a stage through a shell, which
    may stay between the two.
    """
    links = [(os.getpid(), os.getppid())]
    with suppress(psutil.Error):
        while psutil.Process(links[-1][1]).name() in SHELLS:
            links.append((links[-1][1], psutil.Process(links[-1][1]).ppid()))
    if os.environ.get(ENDS_WITH):
        links.append((links[-1][1], int(os.environ[ENDS_WITH])))
    threading.Thread(target=_watch, args=(links,), daemon=True).start()


def _watch(links: list[tuple[int, int]]) -> None:
    while all(_parent(child) == parent for child, parent in links):
        time.sleep(POLL)
    with suppress(OSError, ValueError):  # the terminal may be gone as well
        print("warning: the process that started this stage has died; ending it", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _parent(process: int) -> int | None:
    try:
        return psutil.Process(process).ppid()
    except psutil.Error:
        return None


class Stopwatch:
    """Measures the seconds of each part of a stage. A nested part stops the clock of the outer one."""

    def __init__(self) -> None:
        # Processor time, since the start of the process is known to the second only.
        startup = time.process_time()
        self._mark = time.perf_counter()
        self._began = self._mark - startup
        self._open: list[str] = []
        self.seconds: dict[str, float] = {"start-up": startup}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._charge()
        self._open.append(part)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def report(self, stage: str) -> None:
        """Print the total since the start of the process, and its parts."""
        total = time.perf_counter() - self._began
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in self.seconds.items())
        print(f"{stage}: {total:.1f} s ({parts})", flush=True)

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._mark
        self._mark = now
