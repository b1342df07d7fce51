"""The ranking of networks and its sentences, from comparisons of made-up predictions."""

from itertools import combinations, product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.core import config, search_space
from pipeline.core.config import AnyNetwork
from pipeline.core.paths import Paths
from pipeline.core.provenance import Origin
from pipeline.core.records import Counts, Device, Scores, TrainingRecord
from pipeline.evaluate import significance
from pipeline.report import network_effects, ranking, terminal, verdicts
from pipeline.report.effects import MATTERS, Analysis
from pipeline.report.ranking import BEST, WITHIN_NOISE, WORSE, Ranking
from tests.conftest import ROOT

IMAGES = 1000
POOLING, DROPOUT = ("max", "average", "lp"), (0.2, 0.5)
BASELINES = ("majority class", "linear classifier")
Networks = dict[str, TrainingRecord]
Accuracies = dict[str, list[float]]


@pytest.fixture(scope="module")
def base() -> AnyNetwork:
    return config.load(Paths(ROOT)).models["model_2"]


def record(name: str, network: AnyNetwork, base: str | None = None) -> TrainingRecord:
    return TrainingRecord(
        name=name,
        network=network,
        base=base,
        seed=42,
        dataset="digits",
        data_digest="",
        settings_digest="",
        key="",
        device=Device(kind="cpu", name="a processor", precision="float32", threads=1),
        origin=Origin(stage="train", experiment=None, baseline=None, commit=None, changed=None),
        sha256="",
        counts=Counts(parameters=1, trainable_parameters=1, non_trainable_parameters=0, multiply_adds=1),
        validation=Scores(accuracy=0.9, loss=0.1),
        run_id=None,
        model_uri=None,
    )


def variant(base: AnyNetwork, pooling: str = "max", dropout: float = 0.2, **head: Any) -> AnyNetwork:
    changes: dict[str, Any] = {f"blocks.{block}.pooling.kind": pooling for block in range(3)}
    changes |= {f"blocks.{block}.dropout": dropout for block in (1, 2)} | {"head.dropout": dropout}
    changes |= {f"head.{key}": value for key, value in head.items()}
    return config.network_from(search_space.apply(base.model_dump(mode="json"), changes))


def grid(base: AnyNetwork) -> Networks:
    """The first one is their base."""
    names = {(pooling, dropout): f"{pooling}-{dropout}" for pooling, dropout in product(POOLING, DROPOUT)}
    return {
        name: record(name, variant(base, *levels), None if name == "max-0.2" else "max-0.2")
        for levels, name in names.items()
    }


def noisy(networks: Networks, seeds: int, **planted: float) -> Accuracies:
    """Accuracies with the planted effects of parts of the names, and noise that networks share for each seed."""
    rng = np.random.default_rng(1)
    shared = 0.005 * rng.normal(size=seeds)
    return {
        name: (0.97 + sum(planted.get(part, 0) for part in name.split("-")) + shared + 5e-4 * rng.normal(size=seeds))
        .clip(0, 1)
        .tolist()
        for name in networks
    }


def ranked(networks: Networks, accuracies: Accuracies, unbeaten: tuple[str, ...] = ()) -> Ranking:
    """Predictions are equal where accuracies are."""
    seeds = len(next(iter(accuracies.values())))
    rows = [
        {"model": name, "seed": 42 + k, "accuracy": value, "loss": 1 - value, "predictions": value}
        for name, values in accuracies.items()
        for k, value in enumerate(values)
    ]
    first = {name: values[0] for name, values in accuracies.items()}
    labels = np.zeros(IMAGES, int)
    predicted = {name: (np.arange(IMAGES) >= round(IMAGES * value)).astype(int) for name, value in first.items()}
    against = [
        {
            "a": name,
            "b": baseline,
            "only_a": 90,
            "only_b": 0,
            "same": False,
            "difference": 9.0,
            "low": 8.0,
            "high": 10.0,
        }
        | {"pair": "x", "p": 0.001, "p_adjusted": 0.2 if name in unbeaten else 0.001}
        for name, baseline in product(networks, BASELINES)
    ]
    tables = {
        "comparisons": significance.compare(predicted, labels),
        "baselines": pd.DataFrame({"baseline": BASELINES, "validation_accuracy": 0.1, "accuracy": 0.1, "loss": 2.3}),
        "baseline_comparisons": pd.DataFrame(against),
        "cost": pd.DataFrame({"model": list(networks), "images_per_second": 7.0}),
    }
    if seeds > 1:
        scores = pd.DataFrame(rows)
        over = scores.groupby("model", sort=False)["accuracy"].agg(seeds="size", mean="mean", std="std").reset_index()
        comparisons = significance.compare_seeds(scores)
        tables |= {"seeds": scores, "replicates": over, "seed_comparisons": comparisons}
    metrics = {
        name: {"accuracy": value, "accuracy_low": value - 0.01, "accuracy_high": value + 0.01, "loss": 1 - value}
        | {"validation_accuracy": 0.9, "parameters": 10, "multiply_adds": 100}
        for name, value in first.items()
    }
    return ranking.rank(networks, metrics, tables, IMAGES)


def test_networks_are_ranked_by_their_mean_over_seeds(base: AnyNetwork):
    networks = grid(base)
    networks["tuned"] = record("tuned", networks["lp-0.5"].network, "max-0.2")
    accuracies = noisy(networks, 5, average=-0.02)
    accuracies |= {"max-0.5": [0.985] * 5, "lp-0.5": [0.9849, 0.9851, 0.985, 0.9846, 0.9853]}
    found = ranked(networks, accuracies | {"tuned": accuracies["lp-0.5"]})
    table = {str(row["name"]): row for row in found.table.to_dict("records")}
    assert found.table["score"].is_monotonic_decreasing
    assert list(table)[:3] == ["max-0.5", "lp-0.5", "tuned"]
    assert found.headline.startswith("best: max-0.5 (98.50 %, 5 seeds); within noise: lp-0.5, tuned; worse: ")
    assert (found.best, found.names(WITHIN_NOISE), len(found.names(WORSE))) == ("max-0.5", ["lp-0.5", "tuned"], 4)
    assert table["lp-0.5"]["low"] < 0.98498 < table["lp-0.5"]["high"] < 0.9854
    assert np.isnan(table["max-0.5"]["low"])
    assert (found.seeds, found.factors) == (5, ("pooling", "dropout"))
    row = table["average-0.5"]
    assert row["images_per_second"] == 7
    assert (row["pooling"], row["dropout"], row["base"]) == ("average", "0·0.5·0.5·0.5", "max-0.2")
    assert row["differences"] == "pooling average, dropout 0.5"
    assert row["summary"].startswith("pooling average·average·average → flatten | dropout ")
    assert table["max-0.2"]["base"] == table["max-0.2"]["differences"] == ""
    assert found.warnings == (
        "lp-0.5 and tuned have the same prediction for every image, with every seed; they count as one network in "
        "corrections.",
    )


def test_networks_with_the_predictions_of_the_best_are_best_too(base: AnyNetwork):
    networks = grid(base)
    names = list(networks)
    found = ranked(
        networks, {name: [0.9] for name in names} | {names[1]: [0.98], names[4]: [0.98]}, (names[4], "lp-0.5")
    )
    assert found.names(BEST) == [names[1], names[4]]
    assert found.headline.startswith(f"best: {names[1]} (98.00 %, one seed), the same as {names[4]}; worse: ")
    assert found.table["group"].tolist() == [BEST] * 2 + [WORSE] * 4
    assert found.baselines["baseline"].tolist() == list(BASELINES)
    assert found.baselines["sentence"].iloc[0].startswith(f"{names[1]} is better than majority class by 9.00 pp, ")
    one, twins, others, *unbeaten, tips = found.warnings
    assert one.startswith("One seed: ")
    assert twins.startswith(f"{names[1]} and {names[4]} have the same prediction for every image; ")
    assert others.startswith("max-0.2, average-0.2, average-0.5 and lp-0.5 have the same prediction")
    assert unbeaten == [f"Not shown to beat the baseline {name}: {names[4]}, lp-0.5." for name in BASELINES]
    assert tips.startswith(f"For {names[4]}, try more epochs than {base.fit.epochs}, a batch_size below ")


def test_few_seeds_come_with_the_difference_that_they_can_show(base: AnyNetwork):
    networks = grid(base)
    found = ranked(networks, noisy(networks, 3), unbeaten=tuple(networks))
    half = float(((found.pairs["high"] - found.pairs["low"]) / 2).median())
    assert f"3 seeds are few: the simultaneous 95 % interval of a difference is ±{half:.2f} pp" in found.warnings[0]
    assert f"Not shown to beat the baseline majority class: the best network, {found.best}, " in found.warnings[1]
    assert found.warnings[1].endswith(" and 1 more.")


@pytest.mark.parametrize("seeds", [1, 5])
def test_pairs_are_in_the_order_of_the_ranks(base: AnyNetwork, seeds: int):
    networks = grid(base)
    accuracies = noisy(networks, seeds, average=-0.01, lp=0.01)
    found, turned = (ranked(dict(each), {name: accuracies[name] for name, _ in each}) for each in _orders(networks))
    names = found.table["name"].tolist()
    assert found.pairs["pair"].tolist() == [f"{a} - {b}" for a, b in combinations(names, 2)]
    assert (found.pairs["difference"] >= 0).all()
    assert (
        (found.pairs["low"] <= found.pairs["difference"]) & (found.pairs["difference"] <= found.pairs["high"])
    ).all()
    if seeds == 1:
        assert (found.pairs["only_a"] >= found.pairs["only_b"]).all()
    pd.testing.assert_frame_equal(found.pairs, turned.pairs)
    assert found.headline == turned.headline


def _orders(networks: Networks) -> list[list[tuple[str, TrainingRecord]]]:
    return [list(networks.items()), list(reversed(networks.items()))]


def test_equal_scores_are_ranked_by_loss_and_differ_by_0(base: AnyNetwork):
    networks = {name: record(name, variant(base, dropout=rate)) for name, rate in (("a", 0.2), ("b", 0.5))}
    seeds = {"a": [0.97, 0.98, 0.99, 0.94], "b": [0.94, 0.97, 0.99, 0.98]}
    found = ranked(networks, seeds)
    assert (
        found.pairs["sentence"].iloc[0].startswith("no difference can be shown between a and b over 4 seeds (+0.00 pp")
    )
    table = found.table.assign(score=0.97, loss=[0.2, 0.1])
    assert ranking.by_score(table)["name"].tolist() == ["b", "a"]
    turned = ranking.oriented(found.pairs.assign(difference=0.0), ["b", "a"], IMAGES)
    assert (turned["pair"].iloc[0], f"{turned['difference'].iloc[0]:+.2f}") == ("b - a", "+0.00")


def test_a_single_network_has_no_pairs(base: AnyNetwork):
    found = ranked({"alone": record("alone", base)}, {"alone": [0.9]})
    assert (found.headline, len(found.pairs)) == ("best: alone (90.00 %, one seed)", 0)


ROW = {"a": "x", "b": "y", "only_a": 9, "only_b": 3, "same": False, "seeds": 5}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.6, 0.1, 1.2, 0.02), "x is better than y by 0.60 pp, simultaneous 95 % interval 0.10 to 1.20, p = 0.02"),
        ((-0.6, -1.2, -0.1, 1e-9), "y is better than x by 0.60 pp, simultaneous 95 % interval 0.10 to 1.20, p < 0.001"),
        (
            (0.6, -0.1, 1.2, 0.3),
            "no difference can be shown between x and y (+0.60 pp, simultaneous 95 % interval -0.10 to 1.20, p = 0.3)",
        ),
        (
            (0.6, -0.1, 1.2, 0.04),
            "x is better than y by 0.60 pp, simultaneous 95 % interval -0.10 to 1.20, p = 0.04; the test decides, "
            "although the interval contains 0",
        ),
        (
            (0.6, 0.1, 1.2, 0.06),
            "no difference can be shown between x and y (+0.60 pp, simultaneous 95 % interval 0.10 to 1.20, p = 0.06; "
            "the test decides, although the interval excludes 0)",
        ),
    ],
)
def test_sentences_follow_the_test_and_state_a_conflict_with_the_interval(values: tuple[float, ...], sentence: str):
    row = ROW | dict(zip(("difference", "low", "high", "p_adjusted"), values, strict=True))
    assert verdicts.over_images(row, IMAGES) == sentence
    over = sentence.replace("by 0.60 pp", "by 0.60 pp over 5 seeds").replace("x and y", "x and y over 5 seeds")
    assert verdicts.over_seeds(row) == over


def test_sentences_of_special_cases():
    row = ROW | {"difference": 0.5, "low": float("nan"), "high": float("nan"), "p_adjusted": 0.25}
    assert verdicts.over_seeds(row) == (
        "no difference can be shown between x and y over 5 seeds (+0.50 pp, the same for every seed, so without an "
        "interval; exact test of the signs, p = 0.25)"
    )
    assert verdicts.over_images(ROW | {"same": True}, IMAGES) == "x and y have the same prediction for every image"
    neither = ROW | {"only_a": 0, "only_b": 0}
    assert verdicts.over_images(neither, IMAGES).endswith("between x and y (both are right on the same images)")
    exact = ROW | {"difference": 0.0017, "low": -0.001, "high": 0.002, "p_adjusted": 0.3}
    assert "+0.0017 pp, simultaneous 95 % interval -0.0010 to 0.0020" in verdicts.over_images(exact, 600_000)


def effects_of(networks: Networks, accuracies: Accuracies) -> Analysis:
    return network_effects.analyze(networks, pd.DataFrame.from_dict(accuracies, orient="index"))


def test_effects_of_a_grid_over_seeds_are_those_planted(base: AnyNetwork):
    networks = grid(base)
    found = effects_of(networks, noisy(networks, 3, average=-0.004, **{"0.5": 0.002}))
    effects = found.effects
    assert (effects["dimension"] + " " + effects["change"]).tolist() == ["pooling average", "pooling lp", "dropout 0.5"]
    assert effects["reference"].tolist() == ["max", "max", "0.2"]
    assert pd.Series([-0.004, 0, 0.002]).between(effects["low"], effects["high"]).all()
    # The seeds differ by ten times the noise: only as blocks do they leave it as small as this.
    assert (effects["high"] - effects["low"]).max() < 0.003
    assert found.importance["dimension"].tolist() == ["pooling", "dropout"]
    assert (found.importance["verdict"] == MATTERS).all()
    assert "estimated jointly from 18 trainings, each seed a block of 6 networks." in found.summary[0]
    assert found.scale.text(-0.004) == "-0.40 pp"


def test_the_effect_between_two_networks_is_that_of_students_paired_test(base: AnyNetwork):
    networks = {
        name: record(name, variant(base, dropout=rate)) for name, rate in (("a", 0.2), ("b", 0.5), ("copy", 0.5))
    }
    accuracies = noisy(networks, 5)
    accuracies["copy"] = accuracies["b"]
    [row] = effects_of(networks, accuracies).effects.to_dict("records")
    expected = stats.ttest_rel(accuracies["b"], accuracies["a"])
    interval = expected.confidence_interval(0.95)
    assert (row["dimension"], row["change"], row["reference"], row["trials"]) == ("dropout", "0.5", "0.2", 5)
    assert (row["low"], row["high"], row["p"]) == pytest.approx((interval.low, interval.high, expected.pvalue))


def test_factors_that_change_together_are_not_estimated(base: AnyNetwork):
    levels = [(kind, rate, rate == 0.5) for kind, rate in product(POOLING, DROPOUT)]
    networks = {f"{kind}-{rate}": record("", variant(base, kind, rate, batch_norm=norm)) for kind, rate, norm in levels}
    networks["model_1"] = record("", config.load(Paths(ROOT)).models["model_1"])
    found = effects_of(networks, noisy(networks, 3, lp=0.01, **{"0.5": 0.01}))
    assert found.importance[["dimension", "verdict"]].to_numpy().tolist() == [["pooling", MATTERS]]
    assert found.effects["change"].tolist() == ["average", "lp"]
    assert found.summary[1:] == (
        "Left out, different from all others in several factors: model_1.",
        "Aliased, and not estimated: dropout and head batch normalization always change together.",
    )


def test_levels_that_occur_only_together_are_not_identifiable(base: AnyNetwork):
    levels = [("max", 0.2), ("max", 0.3), ("average", 0.5), ("average", 0.6), ("lp", 0.7), ("lp", 0.8)]
    networks = {f"{kind}-{rate}": record("", variant(base, kind, rate)) for kind, rate in levels}
    found = effects_of(networks, noisy(networks, 3))
    assert found.effects.empty
    assert "differ in several factors at once (pooling, dropout)" in found.summary[0]


@pytest.mark.parametrize(
    ("networks", "seeds", "reason"),
    [
        (2, 5, "The networks differ in several factors at once (dropout, filters, "),
        (
            6,
            1,
            "6 networks with 1 seed are too few to estimate the effects of pooling, dropout; set evaluate.seeds to 2 ",
        ),
        (1, 5, "Effects of single factors need two different networks or more."),
    ],
)
def test_a_reason_is_given_where_no_effect_is_identifiable(base: AnyNetwork, networks: int, seeds: int, reason: str):
    configured = {name: record(name, network) for name, network in config.load(Paths(ROOT)).models.items()}
    chosen = {1: {"model_2": configured["model_2"], "tuned": configured["model_2"]}, 2: configured, 6: grid(base)}[
        networks
    ]
    found = effects_of(chosen, noisy(chosen, seeds))
    assert found.effects.empty
    assert found.importance.empty
    assert found.summary[0].startswith(reason)


def test_the_suggested_variant_changes_a_network_of_the_configuration(base: AnyNetwork):
    networks = grid(base)
    assert terminal.variant(networks, "lp-0.5") == "++models.max-0.2.blocks.0.pooling.kind=average"
    networks["alone"] = record("alone", variant(base, "average"))
    assert terminal.variant(networks, "alone") == "++models.alone.blocks.0.pooling.kind=max"
    networks["dense"] = record("dense", base.model_copy(update={"blocks": ()}))
    assert terminal.variant(networks, "dense") == "++models.dense.head.dropout=0.5"
