"""An oracle shared by several processes: Keras Tuner's gRPC server, and the loop of a worker connected to it."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from keras_tuner.src import protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer
from keras_tuner.src.distribute.oracle_client import OracleClient

from pipeline.core.errors import ConfigError
from pipeline.tune.oracles import Oracle
from pipeline.tune.search import run_trials
from pipeline.tune.trial import Outcome, ShouldStop, Trial
from pipeline.tune.trial_runner import TrialRunner

HEARTBEAT = 10.0  # seconds between the heartbeats of a busy worker


@contextmanager
def serve(oracle: Oracle, listen: str | None = None) -> Iterator[str]:
    """Serve an oracle; yields its address for the processes of this user: a socket in a folder that only they can open.

    Args:
        listen: HOST:PORT, at which everybody may connect as well.

    Raises:
        ConfigError: the server cannot listen there.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    with tempfile.TemporaryDirectory(prefix="convpipe-") as folder:  # its permissions are 0700
        address = f"unix:{folder}/oracle"
        try:
            server.add_insecure_port(address)
        except RuntimeError:
            raise ConfigError(f"TMPDIR: cannot listen in {folder}; allowed: a folder with a shorter path") from None
        try:
            if listen:
                server.add_insecure_port(listen)
        except RuntimeError:
            raise ConfigError(f"TUNE_LISTEN: {listen} is not free; allowed: another port") from None
        server.start()
        try:
            yield address
        finally:
            server.stop(grace=1).wait()


def connect(address: str, worker_name: str) -> OracleClient:
    """The client of a served oracle. Keras Tuner puts host and port together again, also unix and a path."""
    host, _, port = address.rpartition(":")
    os.environ |= {"KERASTUNER_TUNER_ID": worker_name, "KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    return OracleClient(None)  # the oracle would be asked for attributes that are not used here


def run_remote_trials(address: str, worker_name: str, runner: TrialRunner) -> None:
    """Run trials of the oracle at an address until none are left.

    Raises:
        ConfigError: the search has other parameters, data, code or precision.
    """
    client = connect(address, worker_name)

    def run(trial: Trial, should_stop: ShouldStop) -> Outcome:
        note = trial.note or {}
        if note.get("search") != runner.fingerprint:
            raise ConfigError(
                f"{worker_name}: the search at {address} has other parameters, data, code or precision; "
                "make both projects the same"
            )
        with _heartbeat(lambda: client.create_trial(worker_name)):  # for a busy worker, that returns its current trial
            return runner.run(trial, should_stop, note.get("parent"))

    run_trials(client, worker_name, runner.trainer.params.search, run)


@contextmanager
def _heartbeat(send: Callable[[], object]) -> Iterator[None]:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            send()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
