"""All access to MLflow. No other package imports it.

The store is MLFLOW_TRACKING_URI, by default mlflow.db in the project's folder (in the parent repository's, where DVC
runs an experiment in a copy). A store that fails does not stop a stage, and is not tried again in the same process. Its
parameters, metrics and tags are kept in .cache/tracking and sent by the next stage that reaches the store; files and
models are lost. At the end of a run, a warning lists both.

Mark the runs of killed processes as KILLED, send what was kept, and link to the networks in MLflow's UI:
python -m pipeline.tracking
"""

import os

for _name, _value in {  # read when MLflow is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # at the end of a run, with the password of a server's address
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # MLflow's default, 7, takes minutes where a server hangs
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

from pipeline.tracking.description import Description, Kind
from pipeline.tracking.logged_model import ModelToLog
from pipeline.tracking.runs import Run, Tracker, catch_up

__all__ = ["Description", "Kind", "ModelToLog", "Run", "Tracker", "catch_up"]
