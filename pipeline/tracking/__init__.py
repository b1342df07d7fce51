"""All access to MLflow. No other package imports it.

The store is MLFLOW_TRACKING_URI, by default mlflow.db in the project's folder (in the parent repository's, where DVC
runs an experiment in a copy). An unreachable store does not stop a stage: at its end, a warning lists what was not
recorded.

Mark the runs of killed processes as KILLED:  python -m pipeline.tracking
"""

import os

for _name, _value in {  # read when MLflow is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's default, 7, takes minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

from pipeline.tracking.logged_model import ModelToLog
from pipeline.tracking.runs import Run, Tracker, close_killed_runs

__all__ = ["ModelToLog", "Run", "Tracker", "close_killed_runs"]
