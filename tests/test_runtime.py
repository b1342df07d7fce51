"""Device and precision: chosen from what the hardware says, refused when it is not there."""

import sys

import pytest

from pipeline import runtime

from .conftest import Project


def test_a_gpu_that_is_not_there_is_an_error_and_no_silent_run_on_the_cpu(copy_of_validated: Project):
    if runtime.tf.config.list_physical_devices("GPU"):
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
def test_bfloat16_only_where_the_hardware_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: str, gpu: dict, precision: str
):
    monkeypatch.setattr(runtime, "_cpuinfo", {"flags": flags}.get)
    assert runtime._precision(gpu) == precision


def test_what_is_wanted_is_taken_and_what_training_does_not_need_is_not_loaded(project: Project):
    # In a process of its own: TensorFlow's threads are settled once.
    program = """
import sys
from pipeline import config, runtime, training, training_run
print({"sklearn", "scipy.stats", "matplotlib.pyplot"} & set(sys.modules))
import matplotlib.pyplot, sklearn.metrics
for precision in ("float32", "bfloat16"):
    found = runtime.start(config.Runtime(device="cpu", precision=precision, threads=1))
    print(found.device, found.precision, found.threads, runtime.tf.config.threading.get_intra_op_parallelism_threads())
"""
    lines = project.run(sys.executable, "-c", program).stdout.splitlines()
    said = [line for line in lines if not line.startswith("device:")]
    assert said == ["set()", "cpu float32 1 1", "cpu bfloat16 1 1"]


def test_the_number_of_cores_does_not_change_the_bytes(copy_of_validated: Project):
    models = []
    for operations_at_a_time in ("1", "3"):
        copy_of_validated.stage("train", "model_2", TF_NUM_INTEROP_THREADS=operations_at_a_time)
        models.append(copy_of_validated.paths.model("model_2").read_bytes())
    assert models[0] == models[1]
