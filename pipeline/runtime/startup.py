"""Load TensorFlow quickly and quietly. Commands call `load_tensorflow` before they import what needs it."""

import gc
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def load_tensorflow() -> None:
    """Import TensorFlow without the messages of its libraries, and without packages that Keras would load unused."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is loaded; 2 leaves its errors
    gc.disable()  # what is imported stays: collections in between would find nothing
    try:
        with quiet(), _without("sklearn", "matplotlib.pyplot"):
            importlib.import_module("tensorflow")
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what TensorFlow's libraries print while they look for hardware, unless they fail at it.

    They write to the file descriptor itself, before any level of logging is in force.
    """
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(original, held.read())
            raise
        finally:
            os.dup2(original, 2)
            os.close(original)


@contextmanager
def _without(*modules: str) -> Iterator[None]:
    """Let imports of these modules fail, unless they are loaded already.

    Keras imports scikit-learn and pyplot where they are installed, for wrappers and galleries that are not used here.
    They would take a third of the time that TensorFlow takes to load.
    """
    hidden = [name for name in modules if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # None: the import system raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
