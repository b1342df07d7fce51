"""The run that `mlflow run` creates, under which the runs of the stages are nested: its name and description.

MLflow puts it into the experiment Default unless --experiment-name is given, so its description links to the experiment
of the stages.
"""

import os

import mlflow
from mlflow.entities import RunTag

from pipeline.tracking import description, journal, view

ENTRY_POINT = "mlflow.project.entryPoint"
NOTHING_LOGGED = "No stage has logged a run: stages that are up to date do not run again."
LOGGED = "The stages that were out of date have logged runs, whose parent is this one."


def run_id() -> str | None:
    """The run that `mlflow run` created, where it started this process."""
    return os.environ.get("MLFLOW_RUN_ID") or None


def describe(client: mlflow.MlflowClient, experiment_id: str | None, note: str) -> None:
    """Describe the run of `mlflow run`, if there is one.

    Args:
        experiment_id: of the experiment to link to; None: there is none yet.
        note: one of the sentences above.
    """
    found = run_id()
    if not found or not journal.exists(client, found):
        return
    run = client.get_run(found)
    link = f"[Comparison of the networks]({view.link(experiment_id)})" if experiment_id else ""
    tags = description.tags("project", note, link)
    if tags.items() <= run.data.tags.items():
        return
    arguments = [f"{key}={value}" for key, value in run.data.params.items()]
    name = " ".join(["mlflow run", run.data.tags.get(ENTRY_POINT, ""), *arguments])
    client.update_run(found, name=name)
    client.log_batch(found, tags=[RunTag(key, value) for key, value in tags.items()])
