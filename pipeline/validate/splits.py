"""Assignment of images to the splits: train, validation and test."""

import pandas as pd

from pipeline.core.sections import Data


def assign(rows: pd.DataFrame, data: Data, seed: int) -> pd.Series:
    """The split of every row, stratified by class; None for rows beyond `data.limit`.

    A published test set stays the test set. Copies of one image stay in one split.
    """
    split = rows["published"].astype(object)
    if data.limit is not None and data.limit < len(rows):
        split[~_stratified(rows, data.limit, seed)] = None
    if "test" not in set(split):
        split = _moved(rows, split, "test", data.test_fraction, seed)
    return _moved(rows, split, "validation", data.validation_fraction, seed)


def _stratified(rows: pd.DataFrame, limit: int, seed: int) -> pd.Series:
    """Mask of a random subset of `limit` rows with the same shares of every split and class."""
    strata = [rows["published"], rows["label"]]
    exact = rows.groupby(strata).size() * limit / len(rows)
    quota = exact.astype(int)
    largest_remainders = (exact - quota).sort_values(ascending=False, kind="stable").index[: limit - quota.sum()]
    quota[largest_remainders] += 1
    rank = rows.sample(frac=1, random_state=seed).groupby(["published", "label"]).cumcount()
    return rank.sort_index() < quota.reindex(pd.MultiIndex.from_arrays(strata)).to_numpy()


def _moved(rows: pd.DataFrame, split: pd.Series, to: str, fraction: float, seed: int) -> pd.Series:
    """Move a random share of the training images of every class to another split."""
    unique = rows[split == "train"].drop_duplicates("sha256")
    drawn = unique.groupby("label").sample(frac=fraction, random_state=seed)["sha256"]
    return split.mask((split == "train") & rows["sha256"].isin(drawn), to)
