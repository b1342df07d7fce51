"""Where a training step goes: milliseconds of each kind of TensorFlow operation, by its profiler.

  python benchmarks/operations.py [--model model_2] [--longest 12]

Trains on data/validated (`dvc repro validate`) with one operation at a time on one thread, so that times add up, and
looks at an epoch after two others. Prints the kinds of operation that take longest, and the longest single ones.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from pipeline import config, runtime  # noqa: E402
from pipeline.paths import Paths  # noqa: E402

import tensorflow as tf  # isort: skip  # noqa: E402  quietly, by runtime
from tensorflow.tsl.profiler.protobuf import xplane_pb2  # noqa: E402


def profiled(model: str) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step without the profiler, and of each operation in it by its name and kind."""
    paths = Paths(ROOT)
    params = config.load(paths)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    used = runtime.start(params.runtime.model_copy(update={"threads": 1}))
    from benchmarks.compiled import compiled
    from pipeline import dataset

    card, train = dataset.load_card(paths), dataset.load(paths, "train")
    built, batches = compiled(params.model(model), card, train, params.seed, used.precision)
    built.fit(batches.dataset, epochs=2, shuffle=False, verbose=0)
    began = time.perf_counter()
    built.fit(batches.dataset, shuffle=False, verbose=0)
    step = 1000 * (time.perf_counter() - began) / batches.steps
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            built.fit(batches.dataset, shuffle=False, verbose=0)
        [file] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    spent: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name  # of an operation: "path/name:kind"
                if "while/body" in name and ":" in name:
                    spent[name.rpartition("StatefulPartitionedCall/")[2]] += event.duration_ps / 1e9 / batches.steps
    return step, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="model_2", help="a network of params.yaml")
    parser.add_argument("--longest", type=int, default=12, help="how many of each to print")
    arguments = parser.parse_args()
    step, spent = profiled(arguments.model)
    kinds: Counter[str] = Counter()
    for name, milliseconds in spent.items():
        kinds[name.rpartition(":")[2]] += milliseconds
    print(f"\n{arguments.model}: a step takes {step:.1f} ms, all operations {sum(kinds.values()):.1f} ms")
    for title, counted in (("kind of operation", kinds), ("operation", Counter(spent))):
        print(f"\n| {title} | ms |\n|---|---|")
        for name, milliseconds in counted.most_common(arguments.longest):
            print(f"| `{name}` | {milliseconds:.2f} |")


if __name__ == "__main__":
    main()
