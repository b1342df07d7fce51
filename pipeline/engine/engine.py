"""The interface of all engines, and the engine that runs one task after another in the stage's own process."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pipeline.core.records import Device
from pipeline.core.sections import Runtime
from pipeline.engine import task

OnMessage = Callable[[Any], bool]  # whether the task that sent the message goes on
T = TypeVar("T")


class Engine(ABC):
    """Runs tasks on the data of a stage.

    A task is a function `f(argument, data, report)`, given by name as module:function, so that the stage's process need
    not import it. `report` hands a message of plain values to the stage. The result must not depend on where it runs.

    local: whether the tasks run on this machine, with its files.
    """

    local = True

    def __init__(self, runtime: Runtime, slots: int) -> None:
        self.runtime = runtime
        self._slots = asyncio.Semaphore(slots)

    @property
    @abstractmethod
    def device(self) -> Device:
        """The device that tasks run on."""

    @abstractmethod
    def share(self, data: object) -> None:
        """Hand over the data that every task is called with."""

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until a task can begin, first come, first served."""
        async with self._slots:
            yield

    @abstractmethod
    async def run(self, function: str, argument: object, on_message: OnMessage) -> Any:
        """Run a task, within a slot; returns its result, or None if `on_message` ended it.

        Raises:
            TrainingError: the processes that ran the task were killed.
            ClusterError: the cluster is gone.
            Exception: what the task raises.
        """


class InProcess(Engine):
    """Runs one task at a time in this process."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, 1)
        self._data: object = None

    @property
    def device(self) -> Device:
        return task.device(self.runtime, True)

    def share(self, data: object) -> None:
        self._data = data

    async def run(self, function: str, argument: object, on_message: OnMessage) -> Any:
        await asyncio.sleep(0)  # lets tasks that were cancelled meanwhile end
        try:
            return task.call(function, argument, self._data, _Report(on_message))
        except _EndedError:
            return None


class _EndedError(Exception):
    pass


class _Report:
    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message

    def __call__(self, message: object) -> None:
        if not self._on_message(message):
            raise _EndedError


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; of the errors of the tasks in a group, the first is raised itself."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
