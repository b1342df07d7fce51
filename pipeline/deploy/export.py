"""Convert a trained network to LiteRT, and compare the two before the file is written."""

from pathlib import Path

import numpy as np

from models import inference
from pipeline.core import atomic, dataset
from pipeline.core.errors import DataError
from pipeline.core.paths import Paths
from pipeline.core.records import TrainingRecord
from pipeline.core.sections import Runtime
from pipeline.deploy import litert
from pipeline.runtime import device, saved_model

TOLERANCE = 1e-4  # of a probability, between the file and the network in float32


def export(record: TrainingRecord, output: Path, runtime: Runtime, paths: Paths) -> None:
    """Convert a network, compare its predictions for the test images, and write the file.

    Raises:
        DataError: the network cannot be converted, or the predictions differ.
    """
    device.start(runtime)
    name = record.name
    network = saved_model.load(paths.model(name), record.sha256, record.code(paths))
    test = dataset.load(paths, "test").images
    content, precise = litert.convert(network), litert.in_float32(network)
    size = inference.batch_size(test.shape[1:])
    parts = []
    for start in range(0, len(test), size):
        images = test[start : start + size].astype(np.float32) / 255
        parts.append(
            (litert.run(content, images), *(inference.probabilities(each, images) for each in (precise, network)))
        )
    exported, expected, as_trained = (np.concatenate(each) for each in zip(*parts, strict=True))
    difference = np.abs(exported - expected).max()
    if not difference <= TOLERANCE or (exported.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise DataError(
            f"{name}: not exported: the LiteRT file's predictions differ from the network's, probabilities by up to "
            f"{difference:.2g}; no file was written"
        )
    same = int((exported.argmax(axis=1) == as_trained.argmax(axis=1)).sum())
    with atomic.file(output) as part:
        part.write_bytes(content)
    print(
        f"{output}: {len(content):,} bytes; same class as {name} for {same:,} of {len(test):,} test images; "
        f"probabilities differ by at most {difference:.1g} from {name} in float32, "
        f"{np.abs(exported - as_trained).max():.1g} in {record.device.precision}"
    )
