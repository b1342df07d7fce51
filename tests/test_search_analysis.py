"""The analysis of a search, against cases worked by hand and against planted effects."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.core.search_space import Choice, Dimension, Range
from pipeline.report import effects, markdown, search_analysis, search_figures
from pipeline.report.search_analysis import SearchAnalysis

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


def table(rows: list[dict[str, Any]], **common: Any) -> pd.DataFrame:
    return pd.DataFrame([{"trial": i, "status": "COMPLETED", "epochs": 8} | common | row for i, row in enumerate(rows)])


def sampled(count: int, rng: np.random.Generator, dimensions: list[Dimension] = SPACE) -> pd.DataFrame:
    """A random search without results: the base, then values sampled at random."""
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
    """Noisy losses that global_max multiplies by exp(planted), and average pooling by exp(planted / 4) per block."""
    average = (trials[[d.name for d in BLOCKS if isinstance(d, Choice)]] == "average").sum(axis=1)
    logs = planted * (trials["head.pooling"] == "global_max") + planted / 4 * average
    return trials.assign(val_loss=0.1 * np.exp(logs + noise * rng.normal(size=len(trials))))


def row_of(found: pd.DataFrame, dimension: str, change: str) -> pd.Series:
    [(_, only)] = found[(found["dimension"] == dimension) & (found["change"] == change)].iterrows()
    return only


def said(found: SearchAnalysis) -> str:
    return " ".join(found.summary)


def test_two_levels_give_students_t_test():
    accuracies = {"flatten": [0.97, 0.98, 0.96, 0.97], "global_max": [0.93, 0.95, 0.94]}
    rows = [{"head.pooling": "flatten", "val_accuracy": 0.99}]  # the base, which was not sampled
    rows += [{"head.pooling": level, "val_accuracy": value} for level, values in accuracies.items() for value in values]
    trials = table([row | {"head.dropout": (2 + i) % 6 / 10} for i, row in enumerate(rows)])
    found = search_analysis.analyze(trials, NO_CURVES, [POOLING, DROPOUT], "val_accuracy")
    expected = stats.ttest_ind(accuracies["global_max"], accuracies["flatten"])
    interval = expected.confidence_interval(0.95)
    change = row_of(found.effects, "head.pooling", "global_max")
    assert change["effect"] == pytest.approx(0.94 - 0.97)
    assert (change["low"], change["high"]) == pytest.approx((interval.low, interval.high))
    assert change["p"] == pytest.approx(expected.pvalue)
    assert (change["reference"], change["trials"]) == ("flatten", 3)
    assert not found.scale.relative
    assert "each dimension is estimated marginally" in said(found)
    assert (found.best, found.base) == (0, 0)


def test_share_of_variance_of_a_balanced_comparison():
    """Means 2, 3 and 7 of two values each, at a distance of 1: sums of squares 28 between levels and 6 within."""
    levels = [level for level in POOLING.values for _ in range(2)]
    response = np.array([1.0, 3.0, 2.0, 4.0, 6.0, 8.0])
    [factor] = effects.factors([POOLING], pd.DataFrame({"head.pooling": levels}), share_blocks=False)
    [found] = effects.estimate(response, [factor], observed=6)
    point, low, high = found.share
    variance = (28 - 2 * 2) / 6
    assert point == pytest.approx(variance / (variance + 2))
    assert found.p_all == pytest.approx(stats.f_oneway(*response.reshape(3, 2)).pvalue)
    for end, probability in ((low, 0.975), (high, 0.025)):
        noncentrality = 6 * end / (1 - end)
        assert low == 0 if end == 0 else stats.ncf.cdf(7, 2, 3, noncentrality) == pytest.approx(probability)


def test_a_slope_is_per_step_or_doubling_and_a_loss_is_a_ratio():
    rng = np.random.default_rng(0)
    trials = sampled(12, rng, [DROPOUT, RATE])
    steps, doublings = trials["head.dropout"] / 0.1, np.log2(trials["fit.learning_rate"])
    trials["val_loss"] = 0.1 * 1.1**steps * 0.9**doublings * np.exp(1e-3 * rng.normal(size=12))
    analysis = search_analysis.analyze(trials, NO_CURVES, [DROPOUT, RATE], "val_loss")
    found = analysis.effects
    assert analysis.scale.relative
    assert row_of(found, "head.dropout", "+0.1")["effect"] == pytest.approx(0.1, abs=2e-3)
    assert row_of(found, "fit.learning_rate", "x2")["effect"] == pytest.approx(-0.1, abs=2e-3)


def test_inactivity_counts_for_the_dimension_that_causes_it():
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


def test_intervals_cover_planted_effects():
    """In 400 searches; 95 % plus or minus three standard errors is 91.7 to 98.3 %."""
    rng = np.random.default_rng(1)
    trials = sampled(30, rng)
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


@pytest.mark.parametrize("strength", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("other", [0.3, 2.0])
def test_intervals_of_shares_keep_their_level_among_several_factors(strength: float, other: float):
    """In 150 searches of 24 trials each, with noise of variance 1."""
    rng, covered = np.random.default_rng(8), []
    for _ in range(150):
        trials = sampled(24, rng)
        factors = effects.factors(SPACE, trials, share_blocks=True)
        parts = [factor.columns[:, -1] / (factor.columns[:, -1].std() or 1) for factor in factors]
        sizes = [strength, *[other] * (len(factors) - 1)]
        response = np.sum([size * part for size, part in zip(sizes, parts, strict=True)], axis=0) + rng.normal(size=24)
        share = strength**2 / (strength**2 + (len(factors) - 1) * other**2 + 1)
        _, low, high = effects.estimate(response, factors, observed=24)[0].share
        covered.append(low <= share <= high)
    assert np.mean(covered) > 0.92


@pytest.mark.parametrize("count", [8, 24])
def test_noise_rarely_matters(count: int):
    rng = np.random.default_rng(2)
    false = []
    for _ in range(40):
        found = search_analysis.analyze(with_loss(sampled(count, rng), rng), NO_CURVES, SPACE, "val_loss").importance
        false.append((found["verdict"] == effects.MATTERS).any())
    assert np.mean(false) <= 0.125


def test_the_planted_dimension_is_the_most_important():
    rng = np.random.default_rng(3)
    for _ in range(5):
        found = search_analysis.analyze(with_loss(sampled(24, rng), rng, planted=0.5), NO_CURVES, SPACE, "val_loss")
        first = found.importance.iloc[0]
        assert (first["dimension"], first["verdict"]) == ("head.pooling", effects.MATTERS)
        assert "No dimension is shown to matter." not in said(found)


def test_blocks_are_estimated_separately_where_there_are_enough_trials():
    rng = np.random.default_rng(4)
    few, many = (
        search_analysis.analyze(with_loss(sampled(count, rng), rng, planted=0.4), NO_CURVES, SPACE, "val_loss")
        for count in (14, 40)
    )
    assert set(few.importance["dimension"]) == {
        "blocks.*.pooling.kind",
        "blocks.*.dropout",
        "head.pooling",
        "head.dropout",
    }
    assert "estimates for each block need 19 trials" in said(few)
    assert set(many.importance["dimension"]) == {dimension.name for dimension in SPACE}


def test_null_can_be_a_level():
    stopping = Choice("fit.early_stopping", "k", 3, (None, 3, 5))
    trials = table([{"fit.early_stopping": value} for value in (None, 3, 5, None, 3, 5)])
    [factor] = effects.factors([stopping], trials, share_blocks=True)
    assert (factor.reference, factor.changes, factor.trials) == ("3", ("null", "5"), (2, 2))
    found = search_analysis.analyze(
        trials.assign(val_loss=0.1 + 0.01 * trials["trial"]), NO_CURVES, [stopping], "val_loss"
    )
    assert found.base == 1


def test_dimensions_that_vary_together_are_not_identifiable():
    rng = np.random.default_rng(5)
    twin = Range("head.twin", "head.twin", 0.2, 0.0, 0.5, 0.1, False)
    trials = with_loss(sampled(30, rng), rng).assign(**{"head.twin": lambda t: t["head.dropout"]})
    found = search_analysis.analyze(trials, NO_CURVES, [*SPACE, twin], "val_loss")
    verdicts = found.importance.set_index("dimension")["verdict"]
    assert verdicts["head.dropout"] == verdicts["head.twin"] == effects.UNKNOWN
    assert (verdicts == effects.UNKNOWN).sum() == 2
    assert np.isnan(row_of(found.effects, "head.twin", "+0.1")["effect"])


def stopped(full: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Full trials whose final loss is 0.3 times the square root of that at epoch 2, and one that was pruned there."""
    at_two = [0.2 + 0.05 * i for i in range(full)] + [0.9]
    rows = [{"head.dropout": 0.1 * (i % 6), "val_loss": 0.3 * loss**0.5} for i, loss in enumerate(at_two)]
    rows[-1] |= {"val_loss": at_two[-1], "status": "PRUNED", "epochs": 2}
    curves = pd.DataFrame(
        [{"trial": i, "epoch": epoch, "val_loss": loss} for i, loss in enumerate(at_two) for epoch in (1, 2)]
    )
    return table(rows), curves


def test_the_final_value_of_a_pruned_trial_is_extrapolated():
    trials, curves = stopped(6)
    trials.loc[6, "head.dropout"] = 0.25
    found = search_analysis.analyze(trials, curves, [DROPOUT], "val_loss")
    last = found.trials.iloc[-1]
    assert (last["basis"], last["final"]) == (search_analysis.EXTRAPOLATED, pytest.approx(0.3 * 0.9**0.5))
    assert "extrapolated from the curves of full trials: 1 trial (6)." in said(found)
    assert found.best == 0


def test_a_pruned_trial_is_excluded_where_too_few_trials_are_full():
    found = search_analysis.analyze(*stopped(4), [DROPOUT], "val_loss")
    assert list(found.trials["basis"]) == [search_analysis.OBSERVED] * 4 + [search_analysis.UNUSED]
    assert "excluded: too few full trials to extrapolate: 1 trial (4)." in said(found)


def test_of_trials_with_equal_values_the_longest_counts():
    rows = [{"head.dropout": 0.1 * i, "val_loss": 0.1 + 0.01 * i} for i in range(6)]
    trials = table([*rows, rows[3] | {"epochs": 2, "val_loss": 0.9}])
    curves = pd.DataFrame([{"trial": i, "epoch": 2, "val_loss": 0.5 + 0.1 * i} for i in range(7)])
    found = search_analysis.analyze(trials, curves, [DROPOUT], "val_loss")
    assert list(found.trials["basis"]) == [search_analysis.OBSERVED] * 6 + [search_analysis.REPEAT]


def edge(name: str) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    trials = with_loss(sampled(200 if name == "200 trials" else 10, rng), rng, planted=0.3)
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
        case "a level without trials":
            return trials.assign(**{"head.pooling": ["flatten", "global_max"] * 5})
        case "equal losses":
            return trials.assign(val_loss=0.2)
        case "no dimension varied":
            return trials.assign(**dict(trials[[d.name for d in SPACE]].iloc[0])).assign(status="COMPLETED")
        case "never active":
            return trials.assign(**{"head.dropout": np.nan})
    return trials


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("one trial", "too few to estimate any effect"),
        ("all failed", "No trial was completed."),
        ("all failed but the base", "Failed, and excluded: 9 trials (1, 2, 3, 4, 5, 6, 7, 8, 9)."),
        ("one level", "| `head.pooling` | did not vary |  |  |"),
        ("a level without trials", "Levels without trials: head.pooling: global_average."),
        ("equal losses", "All trials have the same val_loss"),
        ("no dimension varied", "Excluded, same values as another trial: 9 trials"),
        ("never active", "| `head.dropout` | did not vary |  |  |"),
        ("200 trials", "The 9 effects are estimated jointly from 200 trials."),
    ],
)
def test_edge_cases(name: str, text: str):
    trials = edge(name)
    curves = pd.DataFrame({"trial": trials["trial"], "epoch": 1, "val_loss": 0.5})
    found = search_analysis.analyze(trials, curves, SPACE, "val_loss")
    assert text in markdown.search(found)
    assert "nan" not in markdown.search(found)
    for figure in (search_figures.effects(found), search_figures.importance(found), search_figures.curves(found)):
        assert figure is None or (figure.startswith("<svg") and "nan" not in figure)


def test_equal_tables_give_equal_bytes_through_a_file_too(tmp_path: Path):
    """A missing value turns a file's column of integers into floats; the levels stay the same."""
    rng = np.random.default_rng(7)
    space = [
        *SPACE,
        Choice("head.batch_norm", "k", True, (True, False)),
        Choice("head.dense", "k", [64], ([64], [128, 64])),
        Choice("head.window", "k", 2, (2, 3)),
    ]
    trials = with_loss(sampled(20, rng, space), rng)
    trials["head.dense"] = trials["head.dense"].map(effects.label)
    active = trials["trial"] != 3
    for name in ("head.window", "head.batch_norm"):
        trials[name] = trials[name].where(active)
    curves = pd.DataFrame([{"trial": i, "epoch": e, "val_loss": 0.3 / e} for i in range(20) for e in (1, 2)])
    trials.to_csv(tmp_path / "trials.csv", index=False)
    read = pd.read_csv(tmp_path / "trials.csv")
    first, second = (search_analysis.analyze(each, curves, space, "val_loss") for each in (trials, read))
    assert markdown.search(first) == markdown.search(second)
    for draw in (search_figures.effects, search_figures.importance, search_figures.curves):
        assert draw(first) == draw(second)
