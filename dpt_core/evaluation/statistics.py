"""Shares, means, paired differences and separation, each with its 95% interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 9999
AREA_RESAMPLES = 2000


class Estimate(NamedTuple):
    """A figure and its 95% interval.

    Attributes:
        value: the figure; NaN where there is nothing to count.
        low, high: ends of the interval.
        number: how many it rests on.
    """

    value: float
    low: float
    high: float
    number: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


def proportion(held: np.ndarray) -> Estimate:
    """Share of trues, with Wilson's interval.

    Args:
        held: `[N]` bool.
    """
    from scipy.stats import binomtest

    held = np.asarray(held, bool)
    if not held.size:
        return NOTHING
    result = binomtest(int(held.sum()), held.size)
    low, high = result.proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(float(held.mean()), float(low), float(high), held.size)


def average(values: np.ndarray) -> Estimate:
    """Mean, with Student's interval.

    Args:
        values: `[N]` numbers.
    """
    from scipy.stats import ttest_1samp

    values = np.asarray(values, float)
    if not values.size:
        return NOTHING
    mean = float(values.mean())
    if values.size == 1 or np.ptp(values) == 0:
        return Estimate(mean, mean, mean, values.size)
    low, high = ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return Estimate(mean, float(low), float(high), values.size)


def paired_difference(values: np.ndarray, base: np.ndarray) -> Estimate:
    """Mean of `values - base` over the same prompts, with its bootstrap interval.

    Pairs are resampled, by a fixed seed; the interval is that of percentiles, which also exists
    where all pairs differ alike.

    Args:
        values, base: `[N]` numbers or bool, of the same prompts in the same order.

    Raises:
        ValueError: lengths differ.
    """
    from scipy.stats import bootstrap

    values, base = np.asarray(values, float), np.asarray(base, float)
    if values.shape != base.shape:
        raise ValueError(f"pairs need equal lengths; got {len(values)} and {len(base)}")
    difference = values - base
    if not difference.size:
        return NOTHING
    if difference.size == 1 or np.ptp(difference) == 0:
        return Estimate(*[float(difference[0])] * 3, difference.size)
    found = bootstrap(
        (difference,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile",
        confidence_level=CONFIDENCE, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return Estimate(float(difference.mean()), float(found.low), float(found.high), difference.size)


def separation(scores: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC curve: how often a right picture scores above a wrong one.

    Args:
        scores: `[N]`.
        right: `[N]` bool.

    Returns:
        In [0, 1]; ties count half. NaN where all pictures are right, or all wrong.
    """
    from scipy.stats import mannwhitneyu

    scores, right = np.asarray(scores, float), np.asarray(right, bool)
    good, bad = scores[right], scores[~right]
    if not good.size or not bad.size:
        return math.nan
    return float(mannwhitneyu(good, bad).statistic / (good.size * bad.size))


def separation_estimate(
    scores: np.ndarray, right: np.ndarray, over: np.ndarray | None = None
) -> Estimate:
    """Area under the ROC curve with its bootstrap interval, or what it is above another's.

    Pictures are resampled, by a fixed seed.

    Args:
        scores, right: see :func:`separation`.
        over: `[N]` scores of the same pictures, whose area is subtracted.

    Returns:
        Nothing to count where all pictures are right, or all wrong.
    """
    right = np.asarray(right, bool)
    if right.all() or not right.any():
        return NOTHING
    compared = [np.asarray(scores, float)] + ([] if over is None else [np.asarray(over, float)])
    chosen = np.random.default_rng(0).integers(0, len(right), (AREA_RESAMPLES, len(right)))
    resampled = _areas([each[chosen] for each in compared], right[chosen])
    value = _areas([each[None] for each in compared], right[None])[0]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(resampled, (tail, 1 - tail))
    return Estimate(float(value), float(low), float(high), len(right))


def _areas(scores: Sequence[np.ndarray], right: np.ndarray) -> np.ndarray:
    """Areas `[R]` of the first of scores `[R, N]`, less those of the second if there is one."""
    from scipy.stats import rankdata

    good = right.sum(1)
    pairs = np.where(good * (right.shape[1] - good) > 0, good * (right.shape[1] - good), np.nan)
    first, *others = (
        ((rankdata(each, axis=1) * right).sum(1) - good * (good + 1) / 2) / pairs for each in scores
    )
    return first - others[0] if others else first
