"""Device and precision: choice by hardware, errors if it is missing."""

import sys

import pytest

from pipeline.runtime import device

from .conftest import Project


def test_missing_gpu_is_an_error(copy_of_validated: Project):
    if device.tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    copy_of_validated.change(runtime={"device": "gpu"})
    done = copy_of_validated.stage("train", "model_1", check=False)
    assert done.returncode == 1
    assert "error: params.yaml: runtime.device: found gpu, but TensorFlow sees none; allowed: auto, cpu" in done.stderr
    assert "Traceback" not in done.stderr
    assert not copy_of_validated.paths.model("model_1").exists()


@pytest.mark.parametrize(
    ("flags", "gpu", "precision"),
    [
        ("fpu avx2 avx512f", {}, "float32"),
        ("fpu avx512f avx512_bf16", {}, "bfloat16"),
        ("fpu amx_bf16", {}, "bfloat16"),
        ("", {}, "float32"),
        ("fpu avx512_bf16", {"compute_capability": (7, 5)}, "float32"),
        ("fpu", {"compute_capability": (9, 0)}, "bfloat16"),
    ],
)
def test_auto_selects_bfloat16_if_the_hardware_supports_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, gpu: dict, precision: str
):
    monkeypatch.setattr(device, "_cpuinfo", {"flags": flags}.get)
    assert device._precision(gpu) == precision


def test_settings_are_applied_and_unused_packages_are_not_loaded(project: Project):
    # In a fresh process: the number of threads can be set only once.
    program = """
import sys
from pipeline.runtime.startup import load_tensorflow
load_tensorflow()
from pipeline.core import sections
from pipeline.runtime import device
from pipeline.train import fit, train
print({"sklearn", "scipy.stats", "matplotlib.pyplot"} & set(sys.modules))
import matplotlib.pyplot, sklearn.metrics
for precision in ("float32", "bfloat16"):
    found = device.start(sections.Runtime(device="cpu", precision=precision, threads=1, replicas=2))
    applied = device.tf.config.threading.get_intra_op_parallelism_threads()
    print(found.kind, found.precision, found.threads, found.replicas, applied)
"""
    lines = project.run(sys.executable, "-c", program).stdout.splitlines()
    said = [line for line in lines if not line.startswith("device:")]
    assert said == ["set()", "cpu float32 1 2 1", "cpu bfloat16 1 2 1"]


def test_number_of_cores_does_not_change_the_bytes(copy_of_validated: Project):
    copy_of_validated.change(runtime={"replicas": 2})
    models = []
    for operations_at_a_time in ("1", "3"):
        copy_of_validated.stage("train", "model_2", TF_NUM_INTEROP_THREADS=operations_at_a_time)
        models.append(copy_of_validated.paths.model("model_2").read_bytes())
    assert models[0] == models[1]
