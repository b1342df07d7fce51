"""Classify pictures:  python -m pipeline.predict digit.png photo.jpg [--model artifacts/train/model_2/model.keras]

Takes PNG, JPEG, WebP and GIF files of any size; digits may be dark on light, light on dark, or on transparency. The
network is the registered champion of data.dataset unless --model names a .keras file or another version in the model
registry.
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
    found = None
    if files:
        with redirect_stdout(sys.stderr):  # stdout is for the predictions alone
            load_tensorflow()
            from pipeline.deploy import predict

            found = predict.predict(files, source, params.runtime, paths)
    predictions = found.predictions if found else []
    if arguments.json:
        print(json.dumps(found.as_json() if found else {"network": None, "predictions": []}, indent=2))
    elif found:
        console, warnings = Console(), []
        console.print(Text(str(found.network)), soft_wrap=True)
        table = Table("file", "class", "probability", "runner-up", "probability")
        for prediction in predictions:
            probabilities = f"{prediction.probability:.1%}", f"{prediction.runner_up_probability:.1%}"
            file = prediction.file.encode(errors="backslashreplace").decode()  # a name may be no text at all
            row = (file, prediction.label, probabilities[0], prediction.runner_up, probabilities[1])
            table.add_row(*map(Text, row))  # Text: a plain string would be read as markup
            warnings += [f"warning: {file}: {warning}" for warning in prediction.warnings]
        if predictions:
            console.print(table)
        for warning in warnings:
            console.print(Text(warning), soft_wrap=True)
    if len(predictions) < len(arguments.files):
        sys.exit(1)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="a PNG, JPEG, WebP or GIF file")
    parser.add_argument("--model", help="a .keras file or models:/NAME@ALIAS; default: the champion")
    parser.add_argument("--sha256", help="the checksum of a .keras file that was not trained here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.main(run, parser)


if __name__ == "__main__":
    main()
