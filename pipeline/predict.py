"""Classify pictures:  python -m pipeline.predict digit.png photo.jpg [--model artifacts/models/model_2.keras]

Takes PNG and JPEG files of any size; digits may be dark on light or light on dark. The network is the registered
champion of data.dataset unless --model names a .keras file or another version in the model registry.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import command, config
from pipeline.core.paths import Paths
from pipeline.deploy import model_source, pictures
from pipeline.runtime.startup import load_tensorflow


def run(arguments: argparse.Namespace) -> None:
    """Classify the pictures that can be read, print the predictions, and exit with 1 if a picture was refused."""
    paths = Paths()
    params = config.load(paths)
    source = model_source.find(arguments.model, arguments.sha256, params, paths)
    files = [file for file in arguments.files if pictures.accepted(file)]
    predictions = []
    if files:
        with redirect_stdout(sys.stderr):  # stdout is for the predictions alone
            load_tensorflow()
            from pipeline.deploy import predict

            predictions = predict.predict(files, source, params.runtime, paths)
    if arguments.json:
        print(json.dumps([vars(prediction) for prediction in predictions], indent=2))
    elif predictions:
        table = Table("file", "class", "probability", "runner-up", "probability")
        for found in predictions:
            probabilities = f"{found.probability:.1%}", f"{found.runner_up_probability:.1%}"
            file = found.file.encode(errors="backslashreplace").decode()  # a name may be no text at all
            row = (file, found.label, probabilities[0], found.runner_up, probabilities[1])
            table.add_row(*map(Text, row))  # Text: a plain string would be read as markup
        Console().print(table)
    if len(predictions) < len(arguments.files):
        sys.exit(1)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="a PNG or JPEG file")
    parser.add_argument("--model", help="a .keras file or models:/NAME@ALIAS; default: the champion")
    parser.add_argument("--sha256", help="the checksum of a .keras file that was not trained here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.main(run, parser)


if __name__ == "__main__":
    main()
