"""Trials in several processes, through Keras Tuner's own chief and workers.

The stage `tune` is the chief: it hands out trials, and starts TUNE_WORKERS workers on its own machine. On another one,
in a project with the same code, parameters and data, and with the same MLFLOW_TRACKING_URI:
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import config, stage
from pipeline.errors import ConfigError, TrainingError
from pipeline.paths import Paths

if TYPE_CHECKING:
    from pipeline.search import Outcome, Stops, Trial

HEARTBEAT = 10.0  # seconds between a busy worker's signs of life
SILENCE = 120.0  # seconds without one after which a worker is given up
POLL = 0.2
LIVES = 2  # deaths of its workers after which a trial is given up


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


def settings() -> Settings:
    """What TUNE_WORKERS and TUNE_LISTEN say. How a search is spread over processes is environment, not parameters.

    Raises:
        ConfigError: they cannot be read.
    """
    count = os.environ.get("TUNE_WORKERS") or "1"
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"TUNE_WORKERS: found {count}; allowed: a whole number from 1")
    listen = os.environ.get("TUNE_LISTEN") or "127.0.0.1:0"
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"TUNE_LISTEN: found {listen}; allowed: HOST:PORT, 0.0.0.0:7000 say")
    return Settings(int(count), host, int(port))


def run(asked: Any, wanted: Settings) -> None:
    """Have an oracle's trials run by workers until none are left.

    Args:
        asked: the oracle, of `search.oracle`.

    Raises:
        TrainingError: a worker ended by an error of its own, which the next one would meet as well.
        ConfigError: the address to listen on is not free.
    """
    with _served(asked, wanted) as address:
        print(f"search: {wanted.count} workers; the address of the search is {address}", flush=True)
        team = [_Worker(f"worker{number}", address, wanted.count) for number in range(wanted.count)]
        try:
            _attend(asked, team)
        finally:
            for worker in team:
                worker.stop()


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
    """A worker on this machine. It ends when the stage does: then nothing holds its standard input open."""

    def __init__(self, name: str, address: str, count: int) -> None:
        self.name = name
        # Threads within an operation stay as many as there are cores: their number decides how sums are rounded, and
        # the figures would follow from the number of workers.
        threads = {"TF_NUM_INTEROP_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
        self._command = [sys.executable, "-m", "pipeline.workers", address, "--name", name, "--attended"]
        self._environment = os.environ | threads
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, env=self._environment, stdin=subprocess.PIPE)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()


def _attend(asked: Any, team: list[_Worker]) -> None:
    """Wait for the end of the search; start a worker again that was killed, and give up those that fell silent."""
    deaths: dict[str | None, int] = {}
    while asked.tuner_ids or asked.ongoing_trials or any(worker.process.poll() is None for worker in team):
        for worker in team:
            status = worker.process.poll()
            if status is None or status == 0:
                continue
            if 0 < status <= 128:
                raise TrainingError(f"tune: {worker.name} ended with status {status}; its messages are above")
            signal = -status if status < 0 else status - 128  # SIGTERM lets it close its run, and leave by itself
            trial = asked.ongoing_trials[worker.name].trial_id if worker.name in asked.ongoing_trials else None
            deaths[trial] = deaths.get(trial, 0) + 1
            print(f"warning: {worker.name} was killed (signal {signal}); starting it again", flush=True)
            if deaths[trial] == LIVES:
                if trial is None:
                    raise TrainingError(f"tune: {worker.name} is killed (signal {signal}) before it has a trial")
                asked.abandon(worker.name, f"its worker was killed {LIVES} times, by signal {signal}")
            asked.seen[worker.name] = time.monotonic()
            worker.start()
        own = {worker.name for worker in team}
        for name in [name for name in asked.tuner_ids - own if time.monotonic() - asked.seen[name] > SILENCE]:
            print(f"warning: {name} is silent for {SILENCE:.0f} s; it is given up", flush=True)
            if name in asked.ongoing_trials:
                asked.abandon(name, f"its worker {name} fell silent")
            asked.tuner_ids.discard(name)
        time.sleep(POLL)


def work(address: str, name: str) -> None:
    """Run trials of the search at an address until there are none left.

    Raises:
        ConfigError: the search has other parameters, data or code.
    """
    stopwatch = stage.Stopwatch()
    params = config.load(Paths())
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"the address of the search: found {address}; allowed: HOST:PORT")
    from pipeline import runtime

    used = runtime.start(params.runtime)
    from keras_tuner.src.distribute.oracle_client import OracleClient

    from pipeline import search, trials

    place = trials.workplace(params, Paths(), used, stopwatch)
    os.environ |= {
        "KERASTUNER_TUNER_ID": name,
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": port,
    }
    base = params.base.model_dump(mode="json")
    client = OracleClient(search.oracle(params.tune, base, params.seed, Paths().unfinished / "none"))

    def run_trial(trial: "Trial", stops: "Stops") -> "Outcome":
        note = trial.note or {}
        if note.get("search") != place.fingerprint:
            raise ConfigError(f"{name} has other parameters, data, code or precision than the search at {address}")
        with _signs_of_life(lambda: client.create_trial(name)):  # it has a trial already, and gets the same one
            return place.trial(trial, stops, note.get("parent"))

    search.work(client, name, params.tune, run_trial)


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


def _end_with_the_stage() -> None:
    """Leave at once when the process that started this one has gone, however it went."""

    def watch() -> None:
        with suppress(OSError):
            os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    arguments = stage.parser(__doc__)
    arguments.add_argument("address", help="HOST:PORT, as the stage tune prints it")
    arguments.add_argument("--name", default=f"{socket.gethostname()}-{os.getpid()}", help="another for each worker")
    arguments.add_argument("--attended", action="store_true", help="end when standard input does")

    def begin(namespace: Any) -> None:
        if namespace.attended:
            _end_with_the_stage()
        work(namespace.address, namespace.name)

    stage.main(begin, arguments)


if __name__ == "__main__":
    main()
