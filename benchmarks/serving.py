"""Requests per second and latency of `make serve`, which has to run.

python benchmarks/serving.py [--port 5001] [--requests 500] [--clients 4] [--images 1]
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

TEST = Path(__file__).parent.parent / "data" / "validated" / "test" / "images.npy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=4, help="at a time, each with a connection of its own")
    parser.add_argument("--images", type=int, default=1, help="of each request")
    arguments = parser.parse_args()
    images = np.load(TEST).astype(np.float32) / 255
    address = f"http://127.0.0.1:{arguments.port}/invocations"
    share = arguments.requests // arguments.clients

    def client(number: int) -> list[float]:
        seconds = []
        with requests.Session() as session:
            for request in range(share):
                start = (number * share + request) * arguments.images % (len(images) - arguments.images + 1)
                body = {"inputs": images[start : start + arguments.images].tolist()}
                began = time.perf_counter()
                session.post(address, json=body).raise_for_status()
                seconds.append(time.perf_counter() - began)
        return seconds

    began = time.perf_counter()
    with ThreadPoolExecutor(arguments.clients) as pool:
        seconds = np.concatenate(list(pool.map(client, range(arguments.clients))))
    total = time.perf_counter() - began
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99]) * 1000
    print(
        f"{len(seconds)} requests of {arguments.images} image(s), {arguments.clients} clients: "
        f"{len(seconds) / total:.1f} requests/s, {len(seconds) * arguments.images / total:.0f} images/s; "
        f"median {p50:.0f} ms, 95% within {p95:.0f} ms, 99% within {p99:.0f} ms"
    )


if __name__ == "__main__":
    main()
