"""Command-line entry: arguments, errors, signals, timing."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.core.errors import UserError


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Create a parser whose help is the docstring of the module."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def main(run: Callable[[argparse.Namespace], object], arguments: argparse.ArgumentParser) -> None:
    """Run a command and exit; errors that the user can fix give status 1 and a message without a traceback."""
    namespace = arguments.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        run(namespace)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    # As an exception, so that open runs and temporary files are closed.
    raise SystemExit(128 + number)


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
