"""The saved view of an experiment in MLflow's UI: networks with pooling, dropout and metrics, the best one first.

MLflow's UI keeps shared views as tags of the experiment. A link that names the key of such a tag opens its view.
"""

import json
from contextlib import suppress

import mlflow
from mlflow.entities import Experiment

from pipeline.tracking import store
from pipeline.tracking.description import KIND, NOTE
from pipeline.tracking.store import StoreError

KEY = "compare"
TAG = f"mlflow.sharedViewState.{KEY}"
SORTED_BY = "metrics.`validation_accuracy`"
COLUMNS = {  # widths in pixels; a window of 1,280 shows those up to test_accuracy
    "attributes.`Run Name`": 170,
    "runDateAndNestInfo": 40,  # the icon of the status; its date is cut
    "params.`pooling`": 75,
    "params.`dropout`": 105,
    SORTED_BY: 135,
    "metrics.`test_accuracy`": 100,
    "metrics.`test_accuracy_low`": 130,  # the 95 % interval
    "metrics.`test_accuracy_high`": 135,
    "metrics.`parameters`": 95,
    "metrics.`test_loss`": 90,
    "duration": 80,
    "params.`summary`": 420,
}
STATE = {
    "searchFilter": f"tags.`{KIND}` = 'network'",
    "orderByKey": SORTED_BY,
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "datasetsFilter": [],
    "modelVersionFilter": "All Runs",
    "selectedColumns": [name for name in COLUMNS if name.startswith(("params.", "metrics."))],
    "columnOrder": list(COLUMNS),
    "columnWidths": COLUMNS,
}
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # which of its faces the UI shows
    NOTE: "One run for each trained network; trials are nested under their search.",
    TAG: json.dumps(STATE),
}


def link(experiment_id: str, server: str = "") -> str:
    """The address of the view; without a server, relative to any page of the UI."""
    return f"{server}#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"


def update(client: mlflow.MlflowClient, name: str, experiment: Experiment) -> None:
    """Set the tags that an experiment lacks, and an outdated view. Where that fails, the UI shows its default view.

    Args:
        name: of the store.
    """
    present = experiment.tags
    for key, value in EXPERIMENT_TAGS.items():
        if key not in present or (key == TAG and present[key] != value):  # a note may have been edited
            with suppress(StoreError):
                store.attempt(name, client.set_experiment_tag, experiment.experiment_id, key, value)
