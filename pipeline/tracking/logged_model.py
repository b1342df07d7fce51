"""Trained networks as MLflow models, with signature, input example, requirements and the code that loads them."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from models.own_code import FOLDER as OWN
from models.own_code import OwnCode
from pipeline.core import provenance
from pipeline.core.dataset import DatasetInfo

FORBIDDEN = r"[/:.%\"']"  # in names of logged models
LOADER = Path(__file__).with_name("pyfunc_loader.py")
MODELS = LOADER.parents[2] / "models"


@dataclass(frozen=True)
class ModelToLog:
    """A trained network to log.

    file: the saved network.
    images: an example of its input, uint8 of shape (n, height, width, channels).
    info: the dataset whose classes it tells apart.
    code: the builder's file of a network of the user's own code.
    """

    name: str
    file: Path
    images: np.ndarray
    info: DatasetInfo
    code: OwnCode | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """Properties for users of the model."""
        return {"dataset": self.info.dataset, "classes": self.info.classes}

    def save_model(self, path: str, mlflow_model: Model, validate_serving_input: bool) -> None:
        """Write the MLflow model to a folder. `Model.log` calls this with all of its options, as it does a flavor's."""
        with tempfile.TemporaryDirectory() as folder:
            code = [LOADER, MODELS]
            if self.code:
                code.append(Path(folder) / OWN)
                code[-1].mkdir()
                (code[-1] / self.code.name).write_bytes(self.code.content)
            mlflow.pyfunc.save_model(
                path,
                mlflow_model=mlflow_model,
                loader_module=LOADER.stem,
                data_path=str(self.file),
                code_paths=list(map(str, code)),
                signature=ModelSignature(_tensor(self.info.image), _tensor((len(self.info.classes),))),
                input_example=self.images.astype(np.float32) / 255,
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
        metadata=model.metadata,
        validate_serving_input=False,
    )
    return logged.model_uri


def _tensor(shape: tuple[int, ...]) -> Schema:
    """Any number of float32 arrays of this shape."""
    return Schema([TensorSpec(np.dtype(np.float32), (-1, *shape))])
