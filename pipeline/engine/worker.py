"""Running a task on a Dask worker."""

from typing import Any

from distributed import get_worker

from pipeline.core.sections import Runtime
from pipeline.engine import task


class EndedError(Exception):
    """The stage has ended the task, or is gone."""


def run(function: str, argument: object, runtime: Runtime, topic: str, data: object) -> Any:
    """Run a task. Its messages are events of a topic; it ends when the stage has cancelled it, or is gone."""
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
