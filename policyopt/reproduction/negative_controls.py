"""Negative controls: the same verdict put to experiments that do differ, to see how often it says so.

Experiments are made from the data: runs are redrawn around a mean that we choose, expert sets are drawn anew with the variance that was
measured, and the measured variance is itself uncertain. R counts experiments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

from policyopt.provenance import derive_seed
from policyopt.reporting.statistics import LEVEL
from policyopt.reproduction.aggregate import Aggregate, Between, Pair, Row

SHIFT = 0.15
NUM_CAMPAIGNS = 1000


class Control:
    """An experiment that differs from its reference by `truth` on average; how often the verdict finds that, or claims sameness.

    sets: as in Row, what the verdict's variance holds. found, same: as in `rates`. verdict_now: what the data themselves say.
    """

    def __init__(self, pairs: list[Pair], between: Mapping[tuple[str, str], Between], row: Row, ref_alg: str, truth: float):
        self.alg, self.ref_alg, self.truth, self.sets = row.alg, ref_alg, truth, row.sets
        self.found, self.same = rates(pairs, between, row, truth, derive_seed('control', row.alg, ref_alg, round(truth, 6)))
        self.verdict_now = 'found' if row.p < LEVEL else 'not found'


def shifted(pairs: list[Pair], shift: float) -> list[Pair]:
    """The same pairs with every run of ours moved by `shift`."""
    return [dataclasses.replace(p, y_N=p.y_N + shift) for p in pairs]


def swapped(pairs: list[Pair], alg: str, other: str) -> list[Pair]:
    """Our cells of `alg` beside the reference's cells of `other`, where both have the same task and size."""
    theirs = {(p.key.task, p.key.num_trajs): p for p in pairs if p.key.alg == other}
    mine = [p for p in pairs if p.key.alg == alg and (p.key.task, p.key.num_trajs) in theirs]
    refs = [theirs[p.key.task, p.key.num_trajs] for p in mine]
    return [dataclasses.replace(p, ref=r.ref, ref_alg=other) for p, r in zip(mine, refs, strict=True)]


def rates(
    pairs: list[Pair], between: Mapping[tuple[str, str], Between], row: Row, truth: float, seed: int, num: int = NUM_CAMPAIGNS
) -> tuple[float, float]:
    """(found, same): shares of `num` experiments with that true mean difference in which the verdict of `row` says so.

    d* = truth + Σ_c (ē*_c − ē'*_c)/K + set luck, with e* the runs' deviations redrawn with replacement and scaled by √(N/(N − 1)), and the
    luck normal with the row's variance between sets. se* follows from the redrawn runs and from that variance times χ²(ν)/ν. The variance
    that the row does not know is not in the experiments either.
    """
    rng = np.random.default_rng(seed)
    error_R, runs_R, v_runs = np.zeros(num), np.zeros(num), 0.0
    for p in pairs:
        groups = [p.y_N[p.set_N == s] - p.y_N[p.set_N == s].mean() for s in np.unique(p.set_N)]
        sides = [(np.concatenate(groups), 1, p.sets.df_within), (p.ref.y_M - p.ref.y_M.mean(), -1, p.ref.m - 1)]
        for e_N, sign, df in sides:
            if df < 1 or not np.ptp(e_N):
                continue
            e_R_N = rng.choice(e_N, size=(num, e_N.size)) * np.sqrt(e_N.size / df)
            error_R += sign * e_R_N.mean(axis=1) / len(pairs)
            runs_R += e_R_N.var(axis=1, ddof=1) / e_N.size / len(pairs) ** 2
            v_runs += float(np.sum(e_N**2)) / df / e_N.size / len(pairs) ** 2
    v_sets = max(0.0, row.se**2 - v_runs) if between else 0.0
    sets_R = v_sets * rng.chisquare(row.df, num) / row.df
    d_R = truth + error_R + rng.normal(0, 1, num) * np.sqrt(v_sets)
    se_R = np.sqrt(runs_R + sets_R)
    found = np.abs(d_R) > stats.t.isf(LEVEL / 2, row.df) * se_R
    return float(found.mean()), float(np.mean(np.abs(d_R) + stats.t.isf(LEVEL, row.df) * se_R < row.margin))


def controls(aggregate: Aggregate) -> list[Control]:
    """Per algorithm: no difference, and a shift of SHIFT; then our runs of each algorithm beside the reference's of every other.

    Algorithms whose variance no run tells (single runs), or whose reference has no runs, are left out.
    """
    out = []
    rows = {r.alg: r for r in aggregate.algs if r.sets in ('measured', 'runs') and r.se > 0}
    usable = [p for p in aggregate.pairs if p.key.alg in rows and p.ref.y_M is not None]
    for alg, row in rows.items():
        mine = [p for p in usable if p.key.alg == alg]
        for truth in (0.0, SHIFT) if mine else ():
            now = Row(shifted(mine, truth - row.diff), aggregate.between, alg, margins=aggregate.margins)
            out.append(Control(mine, aggregate.between, now, alg, truth))
    for alg in rows:
        for other in rows:
            pairs = swapped(usable, alg, other) if alg != other else []
            if pairs:
                row = Row(pairs, aggregate.between, alg, margins=aggregate.margins)
                out.append(Control(pairs, aggregate.between, row, other, row.diff))
    return out
