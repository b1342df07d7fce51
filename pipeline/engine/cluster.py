"""The engine that runs tasks side by side on Dask workers: processes of this machine, or those of any cluster."""

import asyncio
import logging
import pickle
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import dask.config
from distributed import Client, Future, Nanny, Scheduler, Security, SpecCluster
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.scheduler import KilledWorker

from pipeline.core import machine
from pipeline.core.errors import ClusterError, TrainingError
from pipeline.core.records import Device
from pipeline.core.sections import Runtime
from pipeline.engine import code
from pipeline.engine.engine import Engine, OnMessage

QUIET: Any = logging.ERROR  # SpecCluster takes a level, although it declares a boolean
POLL = 1.0  # seconds between counts of a cluster's workers
DEATHS = 2  # of the workers that ran a task, after which it has failed
ATTEMPTS = 3  # to run a task whose workers died before or while they ran it
KILLED = f"its worker was killed {DEATHS} times"
LOCAL = {
    "distributed.scheduler.allowed-failures": DEATHS - 1,
    "distributed.scheduler.http.routes": [],  # pages that anybody on the machine could read
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,  # interrupts fits 100 times a second, for a page that is not served
    "distributed.deploy.lost-worker-timeout": "1 hour",  # after which one that restarts slowly is given up
    "distributed.nanny.pre-spawn-environ": {},  # the environment of fits is that of the stage
    "distributed.admin.large-graph-warning-threshold": "100 GB",  # the data are part of it, so that none can get lost
}


class Cluster(Engine):
    """Runs tasks on the workers of a Dask cluster, each in a process with one thread."""

    def __init__(self, client: Any, runtime: Runtime, name: str, local: bool) -> None:
        self._threads = _threads(client)
        super().__init__(runtime, self._threads)
        self._client, self._name, self.local = client, name, local
        self._topic = f"convpipe-{uuid.uuid4().hex}"
        self._receivers: dict[str, Callable[[object], object]] = {}
        self._growing: asyncio.Task | None = None
        self._resources = {"GPU": 1} if runtime.device != "cpu" and _gpus(client) else None
        self._data: Future | None = None
        self.shipped: str | None = None  # the code that the workers must have
        client.subscribe_topic(self._topic, self._received)
        # TensorFlow is loaded while the stage goes on.
        self._devices = [self._submit("pipeline.engine.task:device", runtime) for _ in range(max(1, self._threads))]

    @property
    def device(self) -> Device:
        found = [self._repeated(future) for future in self._devices]
        if len({device.precision for device in found}) > 1:
            names = ", ".join(sorted({f"{device.name}: {device.precision}" for device in found}))
            raise ClusterError(f"{self._name}: the workers differ in precision ({names}); set runtime.precision")
        return found[0]

    def share(self, data: object) -> None:
        # A task rather than scattered data, which Dask cannot restore when the workers that hold them die.
        self._data = self._client.submit(_loads, pickle.dumps(data, protocol=5))

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        if self._growing is None and not self.local:
            self._growing = asyncio.create_task(self._grow())
        async with super().slot():
            yield

    async def run(self, function: str, argument: object, on_message: OnMessage) -> Any:
        begun = 0

        def on_event(message: Any) -> bool:
            nonlocal begun
            if message is not None:
                return on_message(message)
            begun += 1
            if begun > DEATHS:  # a scheduler may be set to try more often
                raise TrainingError(KILLED)
            return True

        for _ in range(ATTEMPTS):
            with suppress(KilledWorker):
                return await self._run(function, argument, on_event)
            if begun >= DEATHS:
                break
            # Otherwise it was never begun on the workers that died, or only once: all of them may have been killed.
        raise TrainingError(KILLED)

    async def _run(self, function: str, argument: object, on_event: OnMessage) -> Any:
        loop, inbox, key = asyncio.get_running_loop(), asyncio.Queue[object](), f"fit-{uuid.uuid4().hex}"

        def receive(message: object) -> None:
            with suppress(RuntimeError):  # the stage's loop has ended
                loop.call_soon_threadsafe(inbox.put_nowait, message)

        self._receivers[key] = receive
        parts = function, argument, self.runtime, self._topic, self.shipped
        if self._data is not None and self._data.status == "error":  # workers were killed while they loaded the data
            self._data.retry()
        future = self._submit("pipeline.engine.worker:run", *parts, data=self._data, key=key)
        future.add_done_callback(lambda _: receive(future))
        try:
            while (message := await inbox.get()) is not future:
                if not on_event(message):
                    return None
            return await asyncio.to_thread(self._result, future)
        finally:
            del self._receivers[key]
            if not future.done():
                future.cancel()

    def _submit(self, function: str, *arguments: object, data: Future | None = None, key: str | None = None) -> Future:
        """Submit a function of the project by name, with pickled arguments: a scheduler does not have the code."""
        shared = [] if data is None else [data]
        content = pickle.dumps(arguments)
        return self._client.submit(_call, function, content, *shared, key=key, pure=False, resources=self._resources)

    def _result(self, future: Future) -> Any:
        try:
            return future.result()
        except CancelledError:
            raise _gone(self._name) from None

    def _repeated(self, future: Future) -> Any:
        """The result of a task that kills no workers, although they may have been killed while they ran it."""
        for _ in range(ATTEMPTS):
            try:
                return self._result(future)
            except KilledWorker:
                future.retry()
        raise ClusterError(f"{self._name}: the workers are killed while they start")

    def _received(self, event: tuple[float, dict[str, Any]]) -> None:
        receive = self._receivers.get(event[1]["key"])
        if receive:
            receive(event[1]["message"])

    async def _grow(self) -> None:
        """Use workers that join later."""
        while self._client.status == "running":
            with suppress(OSError):  # the scheduler has just died, which its fits report
                count = await asyncio.to_thread(_threads, self._client)
                for _ in range(count - self._threads):
                    self._slots.release()
                self._threads = max(count, self._threads)
            await asyncio.sleep(POLL)


@contextmanager
def local(count: int, gpus: list[str], runtime: Runtime) -> Iterator[Cluster]:
    """Processes of this machine, each with one thread, and one GPU if there are any.

    They are reached through TLS with certificates that are never written to disk: whoever reaches a Dask scheduler can
    run code. They end with the stage, even if it is killed.
    """
    security = Security.temporary()
    common = {"security": security, "protocol": "tls://", "host": "127.0.0.1"}
    with (
        dask.config.set(LOCAL),
        tempfile.TemporaryDirectory(prefix="convpipe-", ignore_cleanup_errors=True) as folder,
    ):
        workers = {}
        for number in range(count):
            gpu = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
            own = {
                "env": machine.threads(count) | gpu,
                "resources": {"GPU": 1} if gpus else None,
                "local_directory": folder,
            }
            options = common | own | {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}
            workers[number] = {"cls": Nanny, "options": options}
        scheduler = {"cls": Scheduler, "options": common | {"dashboard": False, "dashboard_address": "127.0.0.1:0"}}
        with _started(workers, scheduler, security) as cluster, Client(cluster) as client:
            print(f"{count} fits at a time", flush=True)
            yield Cluster(client, runtime, "the Dask cluster of this stage", True)


def _started(workers: dict[int, Any], scheduler: dict[str, Any], security: Security) -> SpecCluster:
    """Dask restarts workers that die later, but gives up where one dies before it has started."""
    for _ in range(ATTEMPTS):
        with suppress(RuntimeError):
            return SpecCluster(workers, scheduler, security=security, silence_logs=QUIET)
    raise ClusterError(
        "the worker processes of this stage end while they start; with FIT_WORKERS=1 it runs its fits itself"
    )


@contextmanager
def remote(address: str, runtime: Runtime) -> Iterator[Cluster]:
    """The cluster of a scheduler. Certificates, where it wants them, are those of Dask's configuration.

    Raises:
        ClusterError: the cluster cannot be reached, or its workers have other packages or several threads.
    """
    name = f"the Dask cluster at {address}"
    try:
        client = Client(address, set_as_default=False, timeout="5s")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = (str(error.__cause__ or "") or str(error)).partition("\n")[0]
        raise ClusterError(
            f"DASK_SCHEDULER_ADDRESS: {name} cannot be reached: {reason}; see docs/scale.md for how to start one"
        ) from None
    with client, _reported_gone(client, name):
        if not address.startswith("tls://"):
            print(f"warning: {name}: without TLS, whoever reaches it can run code on its workers", flush=True)
        _require_workers(client, name)
        shipped = code.ship(client, name)
        print(f"fits run on {name}, {_threads(client)} workers now", flush=True)
        engine = Cluster(client, runtime, name, False)
        engine.shipped = shipped
        yield engine


@contextmanager
def _reported_gone(client: Any, name: str) -> Iterator[None]:
    """Report a scheduler that has died as such, without the tracebacks that Dask logs."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        yield
    except (ClosedClientError, CommClosedError):
        raise _gone(name) from None
    except OSError:
        if client.status == "running":  # an error of this machine
            raise
        raise _gone(name) from None


def _gone(name: str) -> ClusterError:
    return ClusterError(f"{name} is gone; finished fits are kept: start it, and run the stage again")


def _require_workers(client: Any, name: str) -> None:
    """Wait for the first worker, and refuse workers that run several fits in one process."""
    if not client.nthreads():
        print(f"waiting for workers of {name}", flush=True)
    while not (threads := client.nthreads()):
        time.sleep(POLL)
    if wrong := sorted(worker for worker, count in threads.items() if count != 1):
        raise ClusterError(f"{name}: the worker {wrong[0]} has {threads[wrong[0]]} threads; start it with --nthreads 1")


def _threads(client: Any) -> int:
    return sum(client.nthreads().values())


def _gpus(client: Any) -> bool:
    """Return whether workers offer GPUs as Dask resources."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker["resources"].get("GPU") for worker in workers)


# Pickled by value: a scheduler does not have the code of the project.
_call = lambda function, content, *data: __import__("pkgutil").resolve_name(function)(  # noqa: E731
    *__import__("pickle").loads(content), *data
)
_loads = lambda content: __import__("pickle").loads(content)  # noqa: E731
