"""Trials in several processes, through Keras Tuner's own chief and workers.

The stage `tune` is the chief: it hands out trials, and starts the workers of its own machine, a core for each, or as
many as TUNE_WORKERS says. On another one, in a project with the same code, parameters and data, and with the same
MLFLOW_TRACKING_URI:
  python -m pipeline.workers ADDRESS
where ADDRESS is the chief's, which takes workers from elsewhere with TUNE_LISTEN=HOST:PORT. The connection has neither
encryption nor passwords: only for networks that are trusted.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import psutil

from pipeline import config, stage
from pipeline.config import Params
from pipeline.errors import ConfigError, TrainingError
from pipeline.paths import Paths

if TYPE_CHECKING:
    from pipeline.search import Outcome, RunTrial, Stops, Trial
    from pipeline.trials import Workplace

HEARTBEAT = 10.0  # seconds between a busy worker's signs of life
SILENCE = 120.0  # seconds without one after which a worker is given up
POLL = 0.2
LIVES = 2  # deaths of its workers after which a trial is given up
MEMORY = 2 * 2**30  # bytes that must be free for each worker, where their number is not given


@dataclass(frozen=True)
class Settings:
    """How many workers the stage starts, and where it takes others from."""

    count: int
    host: str
    port: int  # 0: any that is free

    @property
    def alone(self) -> bool:
        """Whether the stage's own process runs all trials."""
        return self.count == 1 and self.port == 0


def settings(params: Params) -> Settings:
    """What TUNE_WORKERS and TUNE_LISTEN say. How a search is spread over processes is environment, not parameters.

    Raises:
        ConfigError: they cannot be read.
    """
    count = os.environ.get("TUNE_WORKERS") or str(_default(params))
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"TUNE_WORKERS: found {count}; allowed: a whole number from 1")
    listen = os.environ.get("TUNE_LISTEN") or "127.0.0.1:0"
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"TUNE_LISTEN: found {listen}; allowed: HOST:PORT, 0.0.0.0:7000 say")
    return Settings(int(count), host, int(port))


def _default(params: Params) -> int:
    """A worker for each core, as far as there are trials and memory; one, where more would change what is tried."""
    tune = params.tune
    gpu = params.runtime.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    if gpu or params.runtime.threads != 1 or tune.tuner in ("bayesian", "hyperband"):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, tune.trials, psutil.virtual_memory().available // MEMORY))


class Team:
    """The workers of this machine. They start, and load what they need, while the stage does so itself."""

    def __init__(self, wanted: Settings) -> None:
        self._wanted = wanted
        self._workers = [_Worker(f"worker{number}", wanted.count) for number in range(wanted.count)]

    def run(self, asked: Any) -> None:
        """Have an oracle's trials run until none are left.

        Args:
            asked: the oracle, of `search.oracle` or `search.finals`.

        Raises:
            TrainingError: a worker ended by an error of its own, which the next one would meet as well.
            ConfigError: the address to listen on is not free.
        """
        with _served(asked, self._wanted) as address:
            print(f"trials by {self._wanted.count} workers; others may join at {address}", flush=True)
            for worker in self._workers:
                worker.send(address)
            _attend(asked, self._workers, address)

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()


@contextmanager
def team(wanted: Settings) -> Iterator[Team | None]:
    """The workers that are wanted; None where the stage is to run all trials itself."""
    if wanted.alone:
        yield None
        return
    workers = Team(wanted)
    try:
        yield workers
    finally:
        workers.stop()


@contextmanager
def _served(asked: Any, wanted: Settings) -> Iterator[str]:
    # Not at the top: a worker's options are read, and its help is shown, without them.
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(asked), server)
    try:
        port = server.add_insecure_port(f"{wanted.host}:{wanted.port}")
    except RuntimeError:
        raise ConfigError(f"TUNE_LISTEN: {wanted.host}:{wanted.port} is not free; allowed: another port") from None
    server.start()
    try:
        yield f"{wanted.host}:{port}"
    finally:
        server.stop(grace=1).wait()


class _Worker:
    """A worker on this machine, which is told addresses of searches. It ends when the stage does: then nothing holds
    its standard input open."""

    def __init__(self, name: str, count: int) -> None:
        self.name = name
        threads = {"TF_NUM_INTEROP_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        self._command = [sys.executable, "-m", "pipeline.workers", "--attended", "--name", name]
        self._environment = os.environ | threads
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE, text=True)

    def send(self, address: str) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it is dead, which is seen to by who attends to it
            print(address, file=self.process.stdin, flush=True)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()


def _attend(asked: Any, team: Sequence[Any], address: str) -> None:
    """Wait for the end of a search; start a worker again that was killed, and give up those that fell silent."""
    deaths: dict[str | None, int] = {}
    own = {worker.name for worker in team}
    while asked.tuner_ids or asked.ongoing_trials or own - asked.dismissed:
        for worker in team:
            status = worker.process.poll()
            if status is None or worker.name in asked.dismissed:
                continue
            if 0 <= status <= 128:
                raise TrainingError(f"tune: {worker.name} ended with status {status}; its messages are above")
            signal = -status if status < 0 else status - 128  # SIGTERM lets it close its run, and leave by itself
            trial = asked.ongoing_trials[worker.name].trial_id if worker.name in asked.ongoing_trials else None
            deaths[trial] = deaths.get(trial, 0) + 1
            print(f"warning: {worker.name} was killed (signal {signal}); starting it again", flush=True)
            if deaths[trial] == LIVES:
                if trial is None:
                    raise TrainingError(f"tune: {worker.name} is killed (signal {signal}) before it has a trial")
                asked.abandon(worker.name, f"its worker was killed {LIVES} times, by signal {signal}")
            worker.start()
            worker.send(address)
        for name in [name for name in asked.tuner_ids - own if time.monotonic() - asked.seen[name] > SILENCE]:
            print(f"warning: {name} is silent for {SILENCE:.0f} s; it is given up", flush=True)
            if name in asked.ongoing_trials:
                asked.abandon(name, f"its worker {name} fell silent")
            asked.tuner_ids.discard(name)
        time.sleep(POLL)


def work(addresses: Iterable[str], name: str, aloud: bool) -> None:
    """Run trials of the searches at some addresses, one after the other, until there are none left.

    Args:
        aloud: whether to say which device is used.

    Raises:
        ConfigError: a search has other parameters, data or code.
    """
    stopwatch = stage.Stopwatch()
    params = config.load(Paths())
    from pipeline import runtime

    with redirect_stdout(sys.stdout if aloud else None):  # the stage has said the same
        used = runtime.start(params.runtime)
    from keras_tuner.src.distribute.oracle_client import OracleClient

    from pipeline import search, trials

    for address in addresses:
        host, port = _host_and_port(address)
        os.environ |= {
            "KERASTUNER_TUNER_ID": name,
            "KERASTUNER_ORACLE_IP": host,
            "KERASTUNER_ORACLE_PORT": port,
        }
        place = trials.workplace(params, Paths(), used, stopwatch)
        base = params.base.model_dump(mode="json")
        client = OracleClient(search.oracle(params.tune, base, params.seed, Paths().unfinished / "none"))
        search.work(client, name, params.tune, _run_of(place, client, address, name))


def _host_and_port(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"the address of the search: found {address}; allowed: HOST:PORT")
    return host, port


def _run_of(place: "Workplace", client: Any, address: str, name: str) -> "RunTrial":
    def run(trial: "Trial", stops: "Stops") -> "Outcome":
        note = trial.note or {}
        if note.get("search") != place.fingerprint:
            raise ConfigError(f"{name} has other parameters, data, code or precision than the search at {address}")
        with _signs_of_life(lambda: client.create_trial(name)):  # it has a trial already, and gets the same one
            return place.run(trial, stops, note.get("parent"))

    return run


@contextmanager
def _signs_of_life(sign: Callable[[], object]) -> Iterator[None]:
    done = threading.Event()

    def give() -> None:
        while not done.wait(HEARTBEAT):
            sign()

    thread = threading.Thread(target=give, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _told() -> Iterator[str]:
    """The addresses that the stage tells this process, which leaves at once when the stage has gone."""
    lines: SimpleQueue[str] = SimpleQueue()

    def listen() -> None:
        unread = b""
        while read := os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
            *complete, unread = (unread + read).split(b"\n")
            for line in complete:
                lines.put(line.decode())
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield lines.get()


def main() -> None:
    arguments = stage.parser(__doc__)
    arguments.add_argument("address", nargs="?", help="HOST:PORT, as the stage tune prints it")
    arguments.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="another for each worker")
    arguments.add_argument("--attended", action="store_true", help="take addresses from standard input, for the stage")

    def begin(namespace: Any) -> None:
        if not namespace.attended:
            _host_and_port(namespace.address or "nothing")  # before much is loaded
        addresses = _told() if namespace.attended else [namespace.address]
        work(addresses, namespace.name, aloud=not namespace.attended)

    stage.main(begin, arguments)


if __name__ == "__main__":
    main()
