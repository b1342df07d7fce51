"""The networks of params.yaml before the changes of a DVC experiment."""

import os
import tempfile
from pathlib import Path

from pipeline.core import atomic, config, provenance, summary
from pipeline.core.config import AnyNetwork
from pipeline.core.errors import ConfigError
from pipeline.core.paths import Paths


def changes(paths: Paths, name: str, network: AnyNetwork) -> str:
    """List the changes of a DVC experiment to a network of `models`: dropout 0.5.

    Returns "" outside of experiments, and if the commit that the experiment started from has no such network, or
    parameters that are not valid.
    """
    revision = os.environ.get("DVC_EXP_BASELINE_REV")
    if not revision:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        before = Paths(Path(folder))
        for path in (before.params, before.catalog):
            text = provenance.file_at(paths.home, revision, path.relative_to(before.root))
            if text is None:
                return ""
            atomic.write_text(path, text)
        try:
            models = config.load(before, own=False).models
        except ConfigError:
            return ""
    return summary.differences(network, models[name]) if name in models else ""
