"""JSON among the hyperparameters of Keras Tuner's trials: nothing else travels between an oracle and its workers.

An oracle attaches the trial to run, and a worker the outcome.
"""

import json
from dataclasses import asdict
from typing import Any

from keras_tuner.engine.trial import Trial as KerasTunerTrial

from pipeline.tune.trial import Outcome, Trial

TRIAL, OUTCOME, FINALIST = "tuner/job", "tuner/outcome", "tuner/finalist"  # named like Keras Tuner's own tuner/epochs


def attach(offered: KerasTunerTrial, trial: Trial) -> None:
    offered.hyperparameters.values[TRIAL] = json.dumps(asdict(trial))


def attached(offered: KerasTunerTrial) -> Trial:
    return Trial(**json.loads(offered.hyperparameters.values[TRIAL]))


def finish(offered: KerasTunerTrial, outcome: Outcome) -> None:
    """Attach the outcome, ready for `end_trial`."""
    offered.status = outcome.status
    offered.hyperparameters.values[OUTCOME] = json.dumps(asdict(outcome))


def outcome_of(offered: KerasTunerTrial) -> Outcome | None:
    values = offered.hyperparameters.values
    return Outcome(**json.loads(values[OUTCOME])) if OUTCOME in values else None


def values_of(offered: KerasTunerTrial) -> dict[str, Any]:
    """The values without what is attached."""
    return {name: value for name, value in offered.hyperparameters.values.items() if name not in (TRIAL, OUTCOME)}
