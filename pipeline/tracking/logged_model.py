"""Trained networks as MLflow models, with signature, input example, requirements and the code that loads them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, infer_signature

from pipeline.core import provenance

FORBIDDEN = r"[/:.%\"']"  # in names of logged models
LOADER = Path(__file__).with_name("pyfunc_loader.py")
MODELS = LOADER.parents[2] / "models"


@dataclass(frozen=True)
class ModelToLog:
    """A trained network to log.

    file: the saved network.
    example: images of shape (n, height, width, channels), float32 in [0, 1].
    probabilities: the network's output for them, (n, classes).
    metadata: for users of the model alone, such as the names of the classes.
    """

    name: str
    file: Path
    example: np.ndarray
    probabilities: np.ndarray
    metadata: Mapping[str, Any]

    def save_model(self, path: str, mlflow_model: Model, validate_serving_input: bool) -> None:
        """Write the MLflow model to a folder. `Model.log` calls this with all of its options, as it does a flavor's."""
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=mlflow_model,
            loader_module=LOADER.stem,
            data_path=str(self.file),
            code_paths=[str(LOADER), str(MODELS)],
            signature=infer_signature(self.example, self.probabilities.astype(np.float32)),
            input_example=self.example,
            pip_requirements=provenance.requirements(),
        )


def log_model(run_id: str, model: ModelToLog) -> str:
    """Log a network for a run; returns its URI."""
    client = mlflow.MlflowClient()
    # Created here: Model.log would put it into MLflow's current experiment instead of that of the run.
    run = client.get_run(run_id)
    name = re.sub(FORBIDDEN, "_", model.name)
    entry = client.create_logged_model(run.info.experiment_id, name, run_id, params=run.data.params)
    # mlflow.pyfunc.log_model logs only to the active run, which it would end, and always validates the example: that
    # loads the network again (0.3 s instead of 0.05 s for Model 2) and leaves a deleted folder on sys.path.
    logged = Model.log(
        artifact_path=None,
        flavor=model,
        model_id=entry.model_id,
        run_id=run_id,
        metadata=dict(model.metadata),
        validate_serving_input=False,
    )
    return logged.model_uri
