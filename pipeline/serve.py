"""Serve a registered network over HTTP:  python -m pipeline.serve [--model models:/mnist@champion]

POST /invocations with {"inputs": images}: images of shape (n, height, width, channels), values from 0 to 1. The
response is {"predictions": probabilities} of shape (n, classes).
"""

import argparse

from pipeline.core import command, config
from pipeline.core.paths import Paths
from pipeline.deploy import model_source
from pipeline.runtime.startup import load_tensorflow


def run(arguments: argparse.Namespace) -> None:
    """Serve until stopped."""
    paths = Paths()
    params = config.load(paths)
    uri = model_source.registered(arguments.model, params)
    load_tensorflow()
    from pipeline.deploy import server

    server.serve(paths, uri, params.runtime, arguments.host, arguments.port)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--model", help="a URI of the model registry; default: the champion of data.dataset")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1: this machine alone")
    parser.add_argument("--port", type=int, default=5001)
    command.main(run, parser)


if __name__ == "__main__":
    main()
