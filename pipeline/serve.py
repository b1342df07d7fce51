"""Serve a registered network over HTTP:  python -m pipeline.serve [--model models:/mnist@champion]

GET /: a page to draw on. POST /predict with a picture, as a form's field `image` or as the body: its classes, with
warnings. POST /invocations with {"inputs": images}: images of shape (n, height, width, channels), values from 0 to 1;
the response is {"predictions": probabilities} of shape (n, classes).
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

    address = server.Address(arguments.host, arguments.port, tuple(arguments.allow_host))
    server.serve(paths, uri, params.runtime, address)


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text}: not a port; allowed: 1 to 65535")
    return int(text)


def main() -> None:
    parser = command.parser(__doc__)
    parser.add_argument("--model", help="a URI of the model registry; default: the champion of data.dataset")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; 127.0.0.1: this machine alone")
    parser.add_argument("--port", type=port, default=5001)
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name by which clients may address the server",
    )
    command.main(run, parser)


if __name__ == "__main__":
    main()
