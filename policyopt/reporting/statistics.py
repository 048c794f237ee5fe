"""The tests of a cell against its reference: Welch, permutation, Holm, one expert set; and the verdict in words.

The unit of observation is the *run*, because episodes of one policy say nothing about the next training. Runs that learned from
one expert set are not independent.

| Symbol | Meaning | Shape |
|---|---|---|
| x_N, y_M | mean returns per run: our cell's, the reference's | (N,), (M,) |
| D, n_d | number of expert sets; runs on set d, Σ n_d = N | |
| σ_w², σ_b² | variance between runs on one set; variance between expert sets | |
| m | runs behind the reference's cell mean, all on one set | |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.05
NUM_RESAMPLES = 9999  # up to this many permutations are enumerated, so 7 against 7 runs (3432) is exact
NAN = float('nan')


def sd(x_N: ArrayLike) -> float:
    """Sample standard deviation (N − 1); exactly 0 for equal values, NaN for fewer than two."""
    x_N = np.asarray(x_N, float)
    return NAN if x_N.size < 2 else 0.0 if np.ptp(x_N) == 0 else float(np.std(x_N, ddof=1))


def t_margin(s: float, n: int) -> float:
    """Half width of the 95% t interval of a mean: t(.975, n − 1)·s/√n; NaN for one value."""
    return Difference(NAN, s / math.sqrt(n), n - 1).half_width(1 - LEVEL) if n > 1 else NAN


@dataclasses.dataclass
class Difference:
    """An estimated difference with its standard error and degrees of freedom, for t tests and intervals; NaN if unknown."""

    diff: float
    se: float = NAN
    df: float = NAN

    @property
    def p(self) -> float:
        """Two-sided p value of no difference; NaN without any variance."""
        return float(2 * stats.t.sf(abs(self.diff) / self.se, self.df)) if self.se > 0 else NAN

    def half_width(self, level: float) -> float:
        """Half the width of the interval: t((1 + level)/2, df)·se."""
        return float(stats.t.ppf((1 + level) / 2, self.df)) * self.se if self.se > 0 else self.se

    def interval(self, level: float) -> tuple[float, float]:
        """The interval around the difference, with this confidence level."""
        half = self.half_width(level)
        return self.diff - half, self.diff + half


def satterthwaite(variance: float, parts: Iterable[tuple[float, float]]) -> float:
    """Degrees of freedom of a variance V = Σ s with parts (s: weighted mean square, f: its degrees of freedom): V²/Σ(s²/f)."""
    return variance**2 / sum(s**2 / f for s, f in parts)


def welch(cell: Any, ref: Any) -> Difference:
    """The difference between the runs of a cell and a Reference, for Welch's t test.

    With one run on either side Welch's variance does not exist; then the t test uses the pooled variance.
    """
    diff, n, m = cell.mean - ref.mean, cell.y_N.size, ref.m
    v, w = np.nan_to_num([cell.sd_runs, ref.sd]) ** 2
    if n + m < 3 or v + w == 0:
        return Difference(diff)
    if min(n, m) == 1:
        return Difference(diff, math.sqrt(((n - 1) * v + (m - 1) * w) / (n + m - 2) * (1 / n + 1 / m)), n + m - 2)
    total = v / n + w / m
    return Difference(diff, math.sqrt(total), satterthwaite(total, [(v / n, n - 1), (w / m, m - 1)]))


def permutation_p(x_N: np.ndarray, y_M: np.ndarray, seed: int) -> float:
    """Two-sided permutation test of equal means over runs: exact up to NUM_RESAMPLES regroupings, else that many seeded draws."""

    def statistic(x, y, axis):
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    return float(stats.permutation_test((x_N, y_M), statistic, n_resamples=NUM_RESAMPLES, rng=np.random.default_rng(seed)).pvalue)


def prob_improvement(x_N: np.ndarray, y_M: np.ndarray) -> float:
    """P(a run of ours returns more than a run of the reference), ties counted half; equal five digits, as in tables, are a tie."""
    d_N_M = np.asarray(x_N, float)[:, None] - np.asarray(y_M, float)
    tie_N_M = np.isclose(d_N_M, 0, atol=1e-5 * max(1e-9, np.max(np.abs(y_M))))
    return float(np.mean(np.where(tie_N_M, 0.5, d_N_M > 0)))


def holm(p_K: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p values: max over smaller p of (K − rank)·p, capped at 1; NaN entries are not counted."""
    p_K = np.asarray(p_K, float)
    order = np.argsort(p_K, kind='stable')[: np.isfinite(p_K).sum()]  # NaN sorts behind all numbers
    out_K = np.full(p_K.shape, NAN)
    out_K[order] = np.minimum(1, np.maximum.accumulate(np.arange(order.size, 0, -1) * p_K[order]))
    return out_K


def verdict_of(low: float, high: float, margin: float, differs: bool, diff: float) -> str:
    """The verdict, in words, from the 90% interval of ours − reference and a margin m; NaN ends stand for an unknown interval.

    The first that applies: same within m (the interval is within ±m: two one-sided tests at 5%); better or worse (a test has found a
    difference); no worse by m (the lower end is above −m); too few data.
    """
    text = f'{margin:.2f}' if round(margin, 2) == margin else f'{margin:g}'
    if -margin < low and high < margin:
        return f'same within {text}'
    if differs:
        return 'better' if diff > 0 else 'worse'
    return f'no worse by {text}' if low > -margin else 'too few data'


class Sets:
    """One-way analysis of variance of the runs of one cell over its expert sets (unequal sizes allowed).

    sum_sq: Σ (n_d/N)², the share of σ_b² that stays in the mean over all runs; n0: (N − Σ n_d²/N)/(D − 1), the mean set size of the
    method of moments. Mean squares without degrees of freedom are NaN.
    """

    def __init__(self, y_N: ArrayLike, set_N: ArrayLike):
        y_N, set_N = np.asarray(y_N, float), np.asarray(set_N)
        groups = [y_N[set_N == s] for s in np.unique(set_N)]
        n_D = np.array([g.size for g in groups], float)
        self.num_runs, self.num_sets = y_N.size, len(groups)
        self.df_between, self.df_within = self.num_sets - 1, self.num_runs - self.num_sets
        between = sum(g.size * (g.mean() - y_N.mean()) ** 2 for g in groups) if np.ptp(y_N) > 0 else 0.0
        self.ss_within = sum(float(np.sum((g - g.mean()) ** 2)) for g in groups if np.ptp(g) > 0)
        self.ms_between = float(between) / self.df_between if self.df_between else NAN
        self.ms_within = self.ss_within / self.df_within if self.df_within else NAN
        self.sum_sq = float(np.sum((n_D / y_N.size) ** 2))
        self.n0 = (y_N.size - float(np.sum(n_D**2)) / y_N.size) / self.df_between if self.df_between else NAN

    @property
    def margin(self) -> float:
        """Half width of the 95% interval of the mean over expert sets: t(.975, D − 1)·√V; NaN for one set.

        V = c·MS_b + (1/N − c)·MS_w with c = Σ(n_d/N)²/n0, which is MS_b/N, exactly, when all sets have equally many runs.
        """
        c = self.sum_sq / self.n0
        v = c * self.ms_between + (1 / self.num_runs - c) * np.nan_to_num(self.ms_within)
        return Difference(NAN, math.sqrt(np.maximum(v, 0.0)), self.df_between).half_width(1 - LEVEL)


@dataclasses.dataclass
class Prediction:
    """The spread of a prediction for the mean of one expert set of m runs: centre ± t(.975, df)·se; NaN and 0 sets if unknown."""

    sd_within: float = NAN
    sd_between: float = NAN
    num_sets: int = 0
    se: float = NAN
    df: float = NAN


def predict_one_set(ours: Sets, m: int, between: Sets | None = None, ref_sd: float = NAN) -> Prediction:
    """The spread of (mean of ONE new expert set of m runs) − (our mean), under one-way random effects.

    y[d,r] = μ + b[d] + e[d,r],  b ~ N(0, σ_b²), e ~ N(0, σ_w²).  Method of moments, unequal set sizes:
    σ_w² = MS_w,  σ_b² = max(0, (MS_b − MS_w)/n0),  n0 = (N − Σ n_d²/N)/(D − 1);
    V = σ_b²·(1 + Σ(n_d/N)²) + σ_w²·(1/m + 1/N) = c_b·MS_b + c_w·MS_w,  c_b = (1 + Σ(n_d/N)²)/n0,  c_w = 1/m + 1/N − c_b.
    Degrees of freedom (Satterthwaite): ν = V² / ((c_b·MS_b)²/(D − 1) + (c_w·MS_w)²/ν_w), kept within [D − 1, D − 1 + ν_w] because c_w
    may be negative, where the approximation fails; ν = ν_w when σ_b² is floored. D equal sets of m runs: V = MS_b·(1 + 1/D)/m,
    ν = D − 1, exactly.

    MS_w pools the runs of both sides, (ref_sd, m) included: the reference's runs share one set, so under the tested hypothesis their
    spread is within-set spread. Otherwise a cell whose runs on our side are equal would differ from every other mean.
    Coverage of the 95% interval in simulations over σ_b/σ_w from 0 to 5, m = 7: 93–98% with 5 sets of 3 runs, 95–97% with 5 sets of 7,
    but down to 86% with 2 sets.

    Args:
        ours: Sets of our cell (N, Σ(n_d/N)²).
        m: runs behind the mean that is predicted.
        between: Sets with D > 1 that supply MS_b, n0 and D − 1; default `ours`.
        ref_sd: standard deviation of the reference's m runs, NaN when unknown.
    Returns:
        Prediction, of no sets when neither has more than one expert set: σ_b² is then not identifiable.
    """
    source = ours if ours.num_sets > 1 else between
    if source is None or source.num_sets < 2:
        return Prediction()
    ss, df_w = ours.ss_within, ours.df_within
    if source is not ours:
        ss, df_w = ss + source.ss_within, df_w + source.df_within
    if math.isfinite(ref_sd):
        ss, df_w = ss + (m - 1) * ref_sd**2, df_w + m - 1
    ms_w = ss / df_w if df_w else 0.0
    var_b = max(0.0, (source.ms_between - ms_w) / source.n0)
    v = var_b * (1 + ours.sum_sq) + ms_w * (1 / m + 1 / ours.num_runs)
    df = float(df_w)
    if var_b > 0:
        c_b = (1 + ours.sum_sq) / source.n0
        c_w = 1 / m + 1 / ours.num_runs - c_b
        parts = [(c_b * source.ms_between, source.num_sets - 1), *([(c_w * ms_w, df_w)] if df_w else [])]
        df = float(np.clip(satterthwaite(v, parts), source.num_sets - 1, source.num_sets - 1 + df_w))
    return Prediction(math.sqrt(ms_w), math.sqrt(var_b), source.num_sets, math.sqrt(v), df)
