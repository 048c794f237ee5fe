"""Runs that learned nothing: how many per algorithm and task, ours and the reference's, and how much that depends on the expert set.

A run has failed when its mean return is the random policy's: within FAILED of the way from random to expert, or below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from policyopt.reporting.statistics import NAN

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from policyopt.reproduction.aggregate import Cells, Pair

FAILED = 0.01
MIN_SETS = 3  # fewer expert sets say nothing of how sets differ


@dataclasses.dataclass
class Failures:
    """Failed runs of one algorithm on one task; `by_set` holds (failed, runs) per expert set of the file that has most sets."""

    alg: str
    task: str
    ours: tuple
    ref: tuple
    by_set: list
    one_set_p: float  # P(one expert set of the reference's runs shows as many failures as the reference), by `one_set_p`


def count(scores: ArrayLike) -> tuple[int, int]:
    """(failed, all) of normalised run means."""
    scores = np.asarray(scores, float)
    return int(np.sum(scores <= FAILED)), int(scores.size)


def one_set_p(by_set: list[tuple[int, int]], k: int, n: int) -> float:
    """P(at least k of n runs on ONE new expert set fail), when sets have failure rates of their own.

    Beta-binomial by moments (Kleinman 1973, JASA 68:46): p = Σk_d/Σn_d, and ρ = (MS_b − MS_w)/(MS_b + (n₀ − 1)·MS_w), the
    intraclass correlation of the 0/1 outcomes, kept within [0, .99]; a = p(1 − ρ)/ρ, b = (1 − p)(1 − ρ)/ρ. Binomial at ρ = 0.
    NaN with fewer than MIN_SETS sets, or with fewer than two failed runs, which cannot tell whether failures come together.
    """
    k_D, n_D = (np.array(x, float) for x in zip(*by_set, strict=True)) if by_set else (np.empty(0),) * 2
    if k_D.size < MIN_SETS or k_D.sum() < 2:
        return NAN
    num, p, rate_D = n_D.sum(), k_D.sum() / n_D.sum(), k_D / n_D
    ms_b = float(np.sum(n_D * (rate_D - p) ** 2)) / (k_D.size - 1)
    ms_w = float(np.sum(k_D * (1 - rate_D))) / max(num - k_D.size, 1)
    n0 = (num - float(np.sum(n_D**2)) / num) / (k_D.size - 1)
    rho = float(np.clip((ms_b - ms_w) / (ms_b + (n0 - 1) * ms_w), 0, 0.99)) if ms_b > 0 else 0.0
    if rho == 0 or p == 1:
        return float(stats.binom.sf(k - 1, n, p))
    return float(stats.betabinom.sf(k - 1, n, p * (1 - rho) / rho, (1 - p) * (1 - rho) / rho))


def failures_of(pairs: Sequence[Pair], sources: Sequence[Cells]) -> list[Failures]:
    """Failures of every algorithm and task where some run failed, ours, theirs or in `sources` ([{CellKey: (y_N, set_N)}], normalised)."""
    out = []
    for block in dict.fromkeys(p.block for p in pairs):
        mine = [p for p in pairs if p.block == block]
        ours = count(np.concatenate([p.y_N for p in mine]))
        known = [p.x_M for p in mine if p.x_M is not None]
        ref = count(np.concatenate(known)) if known else (0, 0)
        tables = [[c for k, c in cells.items() if (k.alg, k.task) == block] for cells in sources]
        by_set = max((_by_set(t) for t in tables if t), key=len, default=[])
        by_set = by_set if len(by_set) > 1 else []
        if ours[0] or ref[0] or any(k for k, _ in by_set):
            alg, task = block
            out.append(Failures(alg, task, ours, ref, by_set, one_set_p(by_set, *ref) if ref[0] else NAN))
    return out


def _by_set(cells: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[int, int]]:
    y, sets = (np.concatenate(x) for x in zip(*cells, strict=True))
    return [count(y[sets == s]) for s in np.unique(sets)]
