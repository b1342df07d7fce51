"""Running a task on a Dask worker."""

from typing import Any

from distributed import get_worker

from pipeline.core.errors import ClusterError
from pipeline.core.sections import Runtime
from pipeline.engine import code, task


class EndedError(Exception):
    """The stage has ended the task, or is gone."""


def run(function: str, argument: object, runtime: Runtime, topic: str, shipped: str | None, data: object) -> Any:
    """Run a task. Its messages are events of a topic; it ends when the stage has cancelled it, or is gone.

    Raises:
        ClusterError: another stage has shipped other code since.
    """
    if shipped and code.loaded() != shipped:
        raise ClusterError("another stage uses the same cluster with other code; run one after the other")
    task.device(runtime)
    worker = get_worker()
    key = worker.get_current_task()
    worker.log_event(topic, {"key": key, "message": None})  # begun

    def report(message: object) -> None:
        worker.log_event(topic, {"key": key, "message": message})
        own = worker.state.tasks.get(key)
        if own is None or own.state != "executing":
            raise EndedError

    return task.call(function, argument, data, report)
