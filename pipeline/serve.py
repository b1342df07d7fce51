"""Answer HTTP requests with a registered network:  python -m pipeline.serve [--model models:/mnist@champion]

POST /invocations with {"inputs": images}: images of shape (n, height, width, channels), values from 0 to 1. The answer
is {"predictions": probabilities} of shape (n, classes).
"""

import argparse

from pipeline import config, stage
from pipeline.paths import Paths


def serve(model: str | None, host: str, port: int, paths: Paths) -> None:
    """Serve the champion of the configured dataset, or the given model, until stopped."""
    params = config.load(paths)
    uri = model or f"models:/{params.data.dataset}@champion"
    from pipeline import runtime

    runtime.start(params.runtime)
    from pipeline.tracking import server

    print(f"{uri} at http://{host}:{port}/invocations", flush=True)
    server.serve(paths, uri, host, port)


def main() -> None:
    parser = stage.parser(__doc__)
    parser.add_argument("--model", help="a URI of the registry; the champion of data.dataset unless given")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; 127.0.0.1: this machine alone")
    parser.add_argument("--port", type=int, default=5001)

    def run(arguments: argparse.Namespace) -> None:
        serve(arguments.model, arguments.host, arguments.port, Paths())

    stage.main(run, parser)


if __name__ == "__main__":
    main()
