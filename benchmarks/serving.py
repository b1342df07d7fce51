"""Measure requests per second and latency of `make serve`, which must be running:  python -m benchmarks.serving"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import requests

from benchmarks.project import ROOT, parser
from pipeline.core import dataset
from pipeline.core.paths import Paths


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--port", type=int, default=5001)
    arguments.add_argument("--requests", type=int, default=500)
    arguments.add_argument("--clients", type=int, default=4, help="at a time, each with its own connection")
    arguments.add_argument("--images", type=int, default=1, help="in each request")
    given = arguments.parse_args()
    images = dataset.load(Paths(ROOT), "test").images.astype(np.float32) / 255
    address = f"http://127.0.0.1:{given.port}/invocations"
    share = given.requests // given.clients

    def client(number: int) -> list[float]:
        seconds = []
        with requests.Session() as session:
            for request in range(share):
                start = (number * share + request) * given.images % (len(images) - given.images + 1)
                body = {"inputs": images[start : start + given.images].tolist()}
                began = time.perf_counter()
                session.post(address, json=body).raise_for_status()
                seconds.append(time.perf_counter() - began)
        return seconds

    began = time.perf_counter()
    with ThreadPoolExecutor(given.clients) as pool:
        seconds = np.concatenate(list(pool.map(client, range(given.clients))))
    total = time.perf_counter() - began
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
    print(
        f"{len(seconds)} requests of {given.images} image(s), {given.clients} clients: "
        f"{len(seconds) / total:.1f} requests/s, {len(seconds) * given.images / total:.0f} images/s; "
        f"median {p50:.0f} ms, 95% within {p95:.0f} ms, 99% within {p99:.0f} ms"
    )


if __name__ == "__main__":
    main()
