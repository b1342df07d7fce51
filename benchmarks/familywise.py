"""Simulate comparisons of networks: family-wise error rate without true differences, and power with one.

  python -m benchmarks.familywise [--simulations 2000]

Every image has a difficulty, the probability that a network gets it wrong, so errors are correlated between networks
and between seeds: networks get 2 % of the images wrong, and two of them differ on 2.8 %. A better network makes 40 %
of the errors. Copies are networks with the predictions of another one. Prints a table in Markdown: the share of
simulations with any false claim among equal networks, and that in which the better one is called better than another.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.project import parser
from pipeline.evaluate import significance

IMAGES, SEEDS = 1000, 5
DIFFICULTY = (0.05, 2.45)  # of a beta distribution
BETTER = 0.4  # errors of the better network, relative to the others
CASES = ((3, 0), (3, 1), (10, 0), (10, 4))  # networks, and those of them that are copies
HEAD = "| compared over | networks | copies | false claims, % (95 % interval) | power, % | without the copies, % |"
BEST, OTHER = "0", "1"


def wrong(networks: int, seeds: int, rng: np.random.Generator, better: bool = False) -> np.ndarray:
    """Draw the errors of equal networks, or of one better and other equal ones: bool (networks, seeds, images)."""
    share = np.ones((networks, 1, 1))
    share[0] = BETTER if better else 1
    return rng.random((networks, seeds, IMAGES)) < share * rng.beta(*DIFFICULTY, IMAGES)


def compared(errors: np.ndarray, copies: int) -> pd.DataFrame:
    """Compare the networks, and copies of all but the first: over images if there is one seed, else over seeds."""
    numbers = [*range(len(errors)), *(1 + copy % (len(errors) - 1) for copy in range(copies))]
    named = {str(name): errors[number] for name, number in enumerate(numbers)}
    if errors.shape[1] == 1:
        return significance.compare({name: each[0].astype(int) for name, each in named.items()}, np.zeros(IMAGES, int))
    rows = [
        {"model": name, "seed": seed, "accuracy": 1 - each[seed].mean(), "predictions": each[seed].tobytes()}
        for name, each in named.items()
        for seed in range(SEEDS)
    ]
    return significance.compare_seeds(pd.DataFrame(rows))


def any_difference(table: pd.DataFrame) -> bool:
    """A difference is claimed between some pair."""
    return bool((table["p_adjusted"] < significance.ALPHA).any())


def better_found(table: pd.DataFrame) -> bool:
    """The better network is called better than the first of the others."""
    pair = table[(table["a"] == BEST) & (table["b"] == OTHER)]
    return bool(((pair["p_adjusted"] < significance.ALPHA) & (pair["difference"] > 0)).all())


def simulate(networks: int, copies: int, seeds: int, simulations: int) -> tuple[int, int, int]:
    """Count false claims among equal networks, and the better network found: with the copies, and without them."""
    rng, counts = np.random.default_rng(0), np.zeros(3, int)
    for _ in range(simulations):
        equal = wrong(networks - copies, seeds, rng)
        unequal = wrong(networks - copies, seeds, rng, better=True)
        found = better_found(compared(unequal, copies))
        alone = better_found(compared(unequal, 0)) if copies else found
        counts += any_difference(compared(equal, copies)), found, alone
    errors, with_copies, without = counts.tolist()
    return errors, with_copies, without


def interval(count: int, simulations: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion (Clopper and Pearson 1934)."""
    found = binomtest(count, simulations).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def row(case: tuple[tuple[str, int], tuple[int, int]], simulations: int) -> str:
    """Simulate one case, and format its row of the table."""
    (over, seeds), (networks, copies) = case
    errors, found, alone = simulate(networks, copies, seeds, simulations)
    low, high = interval(errors, simulations)
    rate = f"{100 * errors / simulations:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    power = [f"{100 * count / simulations:.1f}" for count in (found, alone)]
    return f"| {over} | {networks} | {copies} | {rate} | {power[0]} | {power[1] if copies else ''} |"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--simulations", type=int, default=2000)
    print(HEAD, "|---|---|---|---|---|---|", sep="\n")
    simulations = arguments.parse_args().simulations
    cases = product((("images", 1), (f"{SEEDS} seeds", SEEDS)), CASES)
    with ProcessPoolExecutor() as pool:
        for text in pool.map(partial(row, simulations=simulations), cases):
            print(text, flush=True)


if __name__ == "__main__":
    main()
