"""What a search is said to show: against cases worked by hand, and against effects that were planted."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline import effects, evidence, evidence_plots
from pipeline.space import Choice, Dimension, Range

POOLING = Choice("head.pooling", "head.pooling", "flatten", ("flatten", "global_average", "global_max"))
DROPOUT = Range("head.dropout", "head.dropout", 0.2, 0.0, 0.5, 0.1, False)
RATE = Range("fit.learning_rate", "fit.learning_rate", 1e-3, 1e-4, 1e-2, None, True)
BLOCKS = [
    dimension
    for block in range(3)
    for dimension in (
        Choice(f"blocks.{block}.pooling.kind", "blocks.pooling.kind", "max", ("max", "average")),
        Range(f"blocks.{block}.dropout", "blocks.dropout", 0.2, 0.0, 0.5, 0.1, False),
    )
]
SPACE: list[Dimension] = [*BLOCKS, POOLING, DROPOUT]
NO_CURVES = pd.DataFrame(columns=["trial", "epoch", "loss", "accuracy", "val_loss", "val_accuracy"])
FILES = ("effects.csv", "importance.csv", "evidence.md", "effects.png", "importance.png", "curves.png", "parallel.png")


def table(rows: list[dict[str, Any]], **common: Any) -> pd.DataFrame:
    return pd.DataFrame([{"trial": i, "status": "COMPLETED", "epochs": 8} | common | row for i, row in enumerate(rows)])


def drawn(count: int, rng: np.random.Generator, dimensions: list[Dimension] = SPACE) -> pd.DataFrame:
    """A random search without figures: the base, then values drawn at random."""
    rows: list[dict[str, Any]] = [{dimension.name: dimension.default for dimension in dimensions}]
    for _ in range(count - 1):
        row = {}
        for dimension in dimensions:
            if isinstance(dimension, Choice):
                row[dimension.name] = dimension.values[rng.integers(len(dimension.values))]
            elif dimension.log:
                row[dimension.name] = float(np.exp(rng.uniform(np.log(dimension.low), np.log(dimension.high))))
            else:
                row[dimension.name] = dimension.low + effects.step(dimension) * int(rng.integers(6))
        rows.append(row)
    return table(rows)


def with_loss(trials: pd.DataFrame, rng: np.random.Generator, planted: float = 0.0, noise: float = 0.1) -> pd.DataFrame:
    """Losses that global_max and average pooling multiply, by exp(planted) and exp(planted / 4), and noise."""
    average = (trials[[d.name for d in BLOCKS if isinstance(d, Choice)]] == "average").sum(axis=1)
    logs = planted * (trials["head.pooling"] == "global_max") + planted / 4 * average
    return trials.assign(val_loss=0.1 * np.exp(logs + noise * rng.normal(size=len(trials))))


def row(found: pd.DataFrame, dimension: str, change: str) -> pd.Series:
    [(_, only)] = found[(found["dimension"] == dimension) & (found["change"] == change)].iterrows()
    return only


def test_two_levels_are_the_student_test():
    figures = {"flatten": [0.97, 0.98, 0.96, 0.97], "global_max": [0.93, 0.95, 0.94]}
    rows = [{"head.pooling": "flatten", "val_accuracy": 0.99}]  # the base, which nobody drew
    rows += [{"head.pooling": level, "val_accuracy": value} for level, values in figures.items() for value in values]
    trials = table([row | {"head.dropout": (2 + i) % 6 / 10} for i, row in enumerate(rows)])
    found = evidence.assess(trials, NO_CURVES, [POOLING, DROPOUT], "val_accuracy")
    expected = stats.ttest_ind(figures["global_max"], figures["flatten"])
    interval = expected.confidence_interval(0.95)
    change = row(found.effects, "head.pooling", "global_max")
    assert change["effect"] == pytest.approx(0.94 - 0.97)
    assert (change["low"], change["high"]) == pytest.approx((interval.low, interval.high))
    assert change["p"] == pytest.approx(expected.pvalue)
    assert (change["reference"], change["trials"], change["unit"]) == ("flatten", 3, "difference")
    assert "each dimension is looked at by itself" in found.text
    assert (found.best, found.base) == (0, 0)


def test_share_of_variance_of_a_balanced_comparison():
    """Means 2, 3, 7 of two figures each, one to either side: sum of squares 28 between, 6 within, 3 degrees each."""
    levels = [level for level in POOLING.values for _ in range(2)]
    figures = np.array([1.0, 3.0, 2.0, 4.0, 6.0, 8.0])
    [factor] = effects.factors([POOLING], pd.DataFrame({"head.pooling": levels}), share_blocks=False)
    [found] = effects.estimate(figures, [factor], observed=6)
    point, low, high = found.share
    variance = (28 - 2 * 2) / 6
    assert point == pytest.approx(variance / (variance + 2))
    assert found.p_all == pytest.approx(stats.f_oneway(*figures.reshape(3, 2)).pvalue)
    for end, probability in ((low, 0.975), (high, 0.025)):  # of an F as large as this one
        noncentrality = 6 * end / (1 - end)
        assert low == 0 if end == 0 else stats.ncf.cdf(7, 2, 3, noncentrality) == pytest.approx(probability)


def test_a_slope_is_per_step_or_doubling_and_a_loss_is_a_ratio():
    rng = np.random.default_rng(0)
    trials = drawn(12, rng, [DROPOUT, RATE])
    steps, doublings = trials["head.dropout"] / 0.1, np.log2(trials["fit.learning_rate"])
    trials["val_loss"] = 0.1 * 1.1**steps * 0.9**doublings * np.exp(1e-3 * rng.normal(size=12))
    found = evidence.assess(trials, NO_CURVES, [DROPOUT, RATE], "val_loss").effects
    assert row(found, "head.dropout", "+0.1")["effect"] == pytest.approx(0.1, abs=2e-3)
    assert row(found, "fit.learning_rate", "x2")["effect"] == pytest.approx(-0.1, abs=2e-3)
    assert set(found["unit"]) == {"relative"}


def test_what_is_inactive_is_left_to_what_makes_it_so():
    kind = Choice("blocks.0.pooling.kind", "k", "max", ("max", "lp"))
    power = Range("blocks.0.pooling.p", "p", 2, 1, 4, 1, False)
    rows: list[dict[str, Any]] = [{kind.name: "max", power.name: np.nan} for _ in range(8)]
    rows += [{kind.name: "lp", power.name: p} for p in (1, 2, 3, 4) for _ in range(3)]
    accuracy = [0.9 if row[kind.name] == "max" else 0.95 + 0.01 * (row[power.name] - 2.5) for row in rows]
    trials = table(rows).assign(val_accuracy=accuracy)
    factors = effects.factors([kind, power], trials, share_blocks=True)
    by_kind, by_power = effects.estimate(trials["val_accuracy"].to_numpy(), factors, observed=20)
    assert by_kind.effects[0, 0] == pytest.approx(0.05)  # at the mean power
    assert by_power.effects[0, 0] == pytest.approx(0.01)
    assert factors[1].trials == (12,)


def test_intervals_cover_what_was_planted():
    """Of 400 searches each; 95 % less or more three standard errors is 91.7 to 98.3 %."""
    rng = np.random.default_rng(1)
    trials = drawn(30, rng)
    factors = effects.factors(SPACE, trials, share_blocks=True)
    design = np.hstack([factor.columns for factor in factors])
    truth = np.linspace(-0.2, 0.2, design.shape[1]).round(2)
    covered, share_covered = [], []
    alone = factors[2].columns @ np.array([0.1, 0.3])
    share = alone.var() / (alone.var() + 0.15**2)
    for _ in range(400):
        noise = 0.15 * rng.normal(size=30)
        found = np.vstack([each.effects for each in effects.estimate(design @ truth + noise, factors, observed=30)])
        covered.append((found[:, 1] <= truth) & (truth <= found[:, 2]))
        [single] = effects.estimate(alone + noise, [factors[2]], observed=30)
        share_covered.append(single.share[1] <= share <= single.share[2])
    assert np.mean(covered, axis=0) == pytest.approx(0.95, abs=0.033)
    assert np.mean(share_covered) == pytest.approx(0.95, abs=0.033)


@pytest.mark.parametrize("count", [8, 24])
def test_chance_is_rarely_said_to_matter(count: int):
    rng = np.random.default_rng(2)
    false = []
    for _ in range(40):
        found = evidence.assess(with_loss(drawn(count, rng), rng), NO_CURVES, SPACE, "val_loss").importance
        false.append((found["verdict"] == evidence.MATTERS).any())
    assert np.mean(false) <= 0.125


def test_what_was_planted_comes_first():
    rng = np.random.default_rng(3)
    for _ in range(5):
        found = evidence.assess(with_loss(drawn(24, rng), rng, planted=0.5), NO_CURVES, SPACE, "val_loss")
        first = found.importance.iloc[0]
        assert (first["dimension"], first["verdict"]) == ("head.pooling", evidence.MATTERS)
        assert "- `head.pooling`: " in found.text.split("Not shown")[0]


def test_blocks_are_told_apart_when_there_are_trials_enough():
    rng = np.random.default_rng(4)
    few, many = (
        evidence.assess(with_loss(drawn(count, rng), rng, planted=0.4), NO_CURVES, SPACE, "val_loss")
        for count in (14, 40)
    )
    assert {factor.name for factor in few.factors if "blocks" in factor.name} == {
        "blocks.*.pooling.kind",
        "blocks.*.dropout",
    }
    assert "to tell blocks apart takes 19 trials" in few.text
    assert {factor.name for factor in many.factors} == {dimension.name for dimension in SPACE}


def test_null_may_be_a_level():
    stopping = Choice("fit.early_stopping", "k", 3, (None, 3, 5))
    trials = table([{"fit.early_stopping": value} for value in (None, 3, 5, None, 3, 5)])
    [factor] = effects.factors([stopping], trials, share_blocks=True)
    assert (factor.reference, factor.changes, factor.trials) == ("3", ("null", "5"), (2, 2))
    found = evidence.assess(trials.assign(val_loss=0.1 + 0.01 * trials["trial"]), NO_CURVES, [stopping], "val_loss")
    assert found.base == 1


def test_dimensions_that_move_together_cannot_be_told_apart():
    rng = np.random.default_rng(5)
    twin = Range("head.twin", "head.twin", 0.2, 0.0, 0.5, 0.1, False)
    trials = with_loss(drawn(30, rng), rng).assign(**{"head.twin": lambda t: t["head.dropout"]})
    found = evidence.assess(trials, NO_CURVES, [*SPACE, twin], "val_loss")
    verdicts = found.importance.set_index("dimension")["verdict"]
    assert verdicts["head.dropout"] == verdicts["head.twin"] == evidence.UNKNOWN
    assert (verdicts == evidence.UNKNOWN).sum() == 2
    assert np.isnan(row(found.effects, "head.twin", "+0.1")["effect"])


def stopped(full: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Trials that halve their loss, in logarithms to the power 0.5, from epoch 2 to 8; the last stops at epoch 2."""
    at_two = [0.2 + 0.05 * i for i in range(full)] + [0.9]
    rows = [{"head.dropout": 0.1 * (i % 6), "val_loss": 0.3 * loss**0.5} for i, loss in enumerate(at_two)]
    rows[-1] |= {"val_loss": at_two[-1], "status": "PRUNED", "epochs": 2}
    curves = pd.DataFrame(
        [{"trial": i, "epoch": epoch, "val_loss": loss} for i, loss in enumerate(at_two) for epoch in (1, 2)]
    )
    return table(rows), curves


def test_a_pruned_trial_counts_with_what_it_would_have_come_to():
    trials, curves = stopped(6)
    trials.loc[6, "head.dropout"] = 0.25
    found = evidence.assess(trials, curves, [DROPOUT], "val_loss")
    last = found.trials.iloc[-1]
    assert (last["basis"], last["figure"]) == (evidence.ESTIMATED, pytest.approx(0.3 * 0.9**0.5))
    assert "estimated from the curves of the others: 1 trial (6)" in found.text
    assert found.best == 0


def test_a_pruned_trial_is_left_out_when_too_few_ran_to_the_end():
    found = evidence.assess(*stopped(4), [DROPOUT], "val_loss")
    assert list(found.trials["basis"]) == [evidence.OBSERVED] * 4 + [evidence.UNUSED]
    assert "left out: too few full trials to estimate what they would have come to: 1 trial (4)" in found.text


def test_the_longest_of_equal_trials_counts():
    rows = [{"head.dropout": 0.1 * i, "val_loss": 0.1 + 0.01 * i} for i in range(6)]
    trials = table([*rows, rows[3] | {"epochs": 2, "val_loss": 0.9}])
    curves = pd.DataFrame([{"trial": i, "epoch": 2, "val_loss": 0.5 + 0.1 * i} for i in range(7)])
    found = evidence.assess(trials, curves, [DROPOUT], "val_loss")
    assert list(found.trials["basis"]) == [evidence.OBSERVED] * 6 + [evidence.REPEAT]


def edge(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    trials = with_loss(drawn(200 if name == "200 trials" else 10, rng), rng, planted=0.3)
    match name:
        case "one trial":
            return trials.iloc[:1]
        case "all failed":
            return trials.assign(status="FAILED", val_loss=np.nan)
        case "all failed but the base":
            return trials.assign(
                status=["COMPLETED", *["FAILED"] * 9], val_loss=trials["val_loss"].where(trials["trial"] == 0)
            )
        case "one level":
            return trials.assign(**{"head.pooling": "flatten"})
        case "a level untried":
            return trials.assign(**{"head.pooling": ["flatten", "global_max"] * 5})
        case "equal figures":
            return trials.assign(val_loss=0.2)
        case "no dimension varied":
            return trials.assign(**dict(trials[[d.name for d in SPACE]].iloc[0])).assign(status="COMPLETED")
        case "never active":
            return trials.assign(**{"head.dropout": np.nan})
    return trials


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("one trial", "too few to estimate any effect"),
        ("all failed", "No trial was completed."),
        ("all failed but the base", "Failed, and no part of what follows: 9 trials (1, 2, 3, 4, 5, 6, 7, 8, 9)."),
        ("one level", "Did not vary: `head.pooling`."),
        ("a level untried", "In no trial that counts: `head.pooling`: global_average."),
        ("equal figures", "All trials have the same val_loss"),
        ("no dimension varied", "Left out, as another trial has the same values: 9 trials"),
        ("never active", "Did not vary: `head.dropout`."),
        ("200 trials", "The 9 effects are estimated together from 200 trials."),
    ],
)
def test_edges(name: str, said: str, tmp_path: Path):
    trials = edge(name)
    curves = pd.DataFrame({"trial": trials["trial"], "epoch": 1, "val_loss": 0.5})
    found = evidence.assess(trials, curves, SPACE, "val_loss")
    found.write(tmp_path)
    evidence_plots.write(found, tmp_path)
    assert said in found.text
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert "nan" not in found.text


def test_equal_tables_are_equal_bytes_even_through_a_file(tmp_path: Path):
    """A missing value makes floats of the whole numbers in a file's column: the levels stay what they are."""
    rng = np.random.default_rng(7)
    space = [
        *SPACE,
        Choice("head.batch_norm", "k", True, (True, False)),
        Choice("head.dense", "k", [64], ([64], [128, 64])),
        Choice("head.window", "k", 2, (2, 3)),
    ]
    trials = with_loss(drawn(20, rng, space), rng)
    trials["head.dense"] = trials["head.dense"].map(effects.label)
    active = trials["trial"] != 3
    for name in ("head.window", "head.batch_norm"):
        trials[name] = trials[name].where(active)
    curves = pd.DataFrame([{"trial": i, "epoch": e, "val_loss": 0.3 / e} for i in range(20) for e in (1, 2)])
    trials.to_csv(tmp_path / "trials.csv", index=False)
    again = pd.read_csv(tmp_path / "trials.csv")
    for name, table_of in (("first", trials), ("second", again)):
        (tmp_path / name).mkdir()
        found = evidence.assess(table_of, curves, space, "val_loss")
        found.write(tmp_path / name)
        with mpl.rc_context({"lines.linewidth": 9, "font.size": 20} if name == "second" else {}):
            evidence_plots.write(found, tmp_path / name)
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
