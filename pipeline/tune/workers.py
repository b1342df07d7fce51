"""Run trials of a search in another process:  python -m pipeline.tune.workers HOST:PORT

The stage `tune` starts the workers of its own machine: one per core, or TUNE_WORKERS. They use a socket that no other
user can open. With TUNE_LISTEN=HOST:PORT, workers on other machines may join: start this command there, in a project
with the same code, parameters and data, and with the same MLFLOW_TRACKING_URI. That connection has neither encryption
nor passwords: use trusted networks only.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import psutil

from pipeline.core import command, config
from pipeline.core.config import Params
from pipeline.core.errors import ConfigError, TrainingError
from pipeline.core.paths import Paths
from pipeline.runtime.startup import load_tensorflow

SILENCE = 120.0  # seconds without a heartbeat after which a worker is abandoned
POLL = 0.2
LIVES = 2  # deaths of its workers after which a trial is abandoned
MEMORY = 2 * 2**30  # bytes of free memory for each worker of the default number


@dataclass(frozen=True)
class Settings:
    """The number of workers that the stage starts, and the address at which others may join."""

    count: int
    listen: str | None = None  # HOST:PORT

    @property
    def alone(self) -> bool:
        """True if the stage's own process runs all trials."""
        return self.count == 1 and self.listen is None


def settings(params: Params) -> Settings:
    """Read TUNE_WORKERS and TUNE_LISTEN. The distribution of a search is environment, not parameters.

    Raises:
        ConfigError: a value is invalid, or nothing can listen at that address.
    """
    count = os.environ.get("TUNE_WORKERS") or str(_default_count(params))
    if not re.fullmatch(r"[1-9]\d{0,3}", count, re.ASCII):
        raise ConfigError(f"TUNE_WORKERS: found {count}; allowed: a whole number from 1 to 9999")
    listen = os.environ.get("TUNE_LISTEN") or None
    if listen:
        _check_free(listen)
    return Settings(int(count), listen)


def _check_free(address: str) -> None:
    """Listen at an address for a moment: the server would say late, and without a reason, that it cannot."""
    host, port = _host_and_port("TUNE_LISTEN", address)
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(place)
            tried.listen()
    except (socket.gaierror, UnicodeError):
        raise ConfigError(
            f"TUNE_LISTEN: the host {host} is unknown; allowed: one of this machine, or 0.0.0.0"
        ) from None
    except OSError as error:
        reason = f"cannot listen at {address}: {error.strerror}"
        raise ConfigError(f"TUNE_LISTEN: {reason}; allowed: another port, or another address of this machine") from None


def _host_and_port(name: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"{name}: found {address}; allowed: HOST:PORT, for example 0.0.0.0:7000, a port up to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _default_count(params: Params) -> int:
    """One worker per core, limited by trials and memory; one, where more would share a GPU or change what is tried."""
    tune = params.search
    gpu = params.runtime.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    if gpu or params.runtime.threads != 1 or tune.tuner in ("bayesian", "hyperband"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, tune.trials, psutil.virtual_memory().available // MEMORY))


class Team:
    """The workers of this machine. They start, and load TensorFlow, while the stage does so itself."""

    def __init__(self, wanted: Settings) -> None:
        self._wanted = wanted
        self._workers = [_Worker(f"worker{number}", wanted.count) for number in range(wanted.count)]

    def run(self, oracle: Any) -> None:
        """Run the trials of an oracle until none are left.

        Raises:
            TrainingError: a worker exited with an error of its own, which the next one would meet as well.
            ConfigError: the server cannot listen at the address for others.
        """
        from pipeline.tune import oracle_server  # loads TensorFlow, which is not to delay the start of the workers

        with oracle_server.serve(oracle, self._wanted.listen) as address:
            more = f"; more may join at {self._wanted.listen}" if self._wanted.listen else ""
            print(f"running trials in {self._wanted.count} workers{more}", flush=True)
            for worker in self._workers:
                worker.send(address)
            monitor(oracle, self._workers, address)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()


@contextmanager
def team(wanted: Settings) -> Iterator[Team | None]:
    """A team of workers, stopped at the end; None if the stage is to run all trials itself."""
    if wanted.alone:
        yield None
        return
    started = Team(wanted)
    try:
        yield started
    finally:
        started.stop()


class _Worker:
    """A worker process on this machine. It reads the addresses of searches from its standard input, and exits when the
    stage does: the input is closed then."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        threads = {"TF_NUM_INTEROP_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        self._command = [sys.executable, "-m", "pipeline.tune.workers", "--attended", "--name", name]
        self._environment = os.environ | threads
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE, text=True)

    def send(self, address: str) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # the worker died; the monitor restarts it
            print(address, file=self.process.stdin, flush=True)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def monitor(oracle: Any, team: Sequence[Any], address: str) -> None:
    """Wait for the end of a search; restart workers that were killed, and abandon those without a heartbeat.

    Args:
        oracle: the `Oracle` that is served at the address.
        team: the workers that this process started.
    """
    deaths: dict[str | None, int] = {}
    own = {worker.name for worker in team}
    while oracle.tuner_ids or oracle.ongoing_trials or own - oracle.dismissed:
        for worker in team:
            status = worker.process.poll()
            if status is None or worker.name in oracle.dismissed:
                continue
            if 0 <= status <= 128:
                raise TrainingError(f"tune: {worker.name} exited with status {status}; see its messages above")
            signal = -status if status < 0 else status - 128  # after SIGTERM it closes its run and exits by itself
            trial = oracle.ongoing_trials[worker.name].trial_id if worker.name in oracle.ongoing_trials else None
            deaths[trial] = deaths.get(trial, 0) + 1
            print(f"warning: {worker.name} was killed (signal {signal}); restarting it", flush=True)
            if deaths[trial] == LIVES:
                if trial is None:
                    raise TrainingError(f"tune: {worker.name} was killed (signal {signal}) before it had a trial")
                oracle.abandon(worker.name, f"its worker was killed {LIVES} times, by signal {signal}")
            worker.start()
            worker.send(address)
        for name in [name for name in oracle.tuner_ids - own if time.monotonic() - oracle.last_seen[name] > SILENCE]:
            print(f"warning: {name}: no heartbeat for {SILENCE:.0f} s; abandoning it", flush=True)
            if name in oracle.ongoing_trials:
                oracle.abandon(name, f"no heartbeat from its worker {name}")
            oracle.tuner_ids.discard(name)
        time.sleep(POLL)


def _addresses_from_stage() -> Iterator[str]:
    """The addresses that the stage sends. This process exits at once when the stage has exited."""
    lines: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        unread = b""
        while read := os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter exits
            *complete, unread = (unread + read).split(b"\n")
            for line in complete:
                lines.put(line.decode())
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield lines.get()


def run(arguments: argparse.Namespace) -> None:
    """Run the trials of one search, or of all searches of the stage that started this worker."""
    stopwatch, paths = command.Stopwatch(), Paths()
    if arguments.attended:
        addresses = _addresses_from_stage()
    else:
        _host_and_port("the address of the search", arguments.address)
        addresses = [arguments.address]
    params = config.load(paths)
    with stopwatch("imports"):  # after the parameters are known to be valid
        load_tensorflow()
        from pipeline.runtime import device
        from pipeline.tune import oracle_server, trial_runner

        with redirect_stdout(None if arguments.attended else sys.stdout):  # the stage prints the device too
            used = device.start(params.runtime)
    for address in addresses:
        runner = trial_runner.start(params, paths, used, stopwatch)
        oracle_server.run_remote_trials(address, arguments.name, runner)


def main() -> None:
    parser = command.parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("address", nargs="?", metavar="HOST:PORT", help="as the stage tune prints it")
    source.add_argument("--attended", action="store_true", help="read addresses from standard input; used by the stage")
    parser.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="unique among the workers")
    command.main(run, parser)


if __name__ == "__main__":
    main()
