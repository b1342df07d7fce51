"""Everything that MLflow is told and asked. No other part of the project imports it.

The store is MLFLOW_TRACKING_URI, or else mlflow.db in the project's folder (in the parent repository's, where DVC runs
an experiment elsewhere). A store that cannot be reached stops no stage: the work goes on, and at the end it is said
what was not recorded.

Mark the runs whose process was killed as such:  python -m pipeline.tracking
"""

import os

for _name, _value in {  # read when MLflow is loaded
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own 7 wait for minutes before they give up
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

from pipeline.tracking.runs import Run, close_killed_runs, ended_run, run

__all__ = ["Run", "close_killed_runs", "ended_run", "run"]
