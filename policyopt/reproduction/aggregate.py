"""Whole algorithms next to published results: mean score difference per algorithm and per task, with every variance in it.

A cell says little, because its test has to allow for all the others; their mean says more. Scores are normalised by the reference's
own expert and random returns (ours, for a task that it has none of): 0 is the random policy, 1 the expert.

| Symbol | Meaning | Shape |
|---|---|---|
| y_N, x_M | normalised means per run: our cell's, the reference's | (N,), (M,) |
| K | cells of a row; d_c = mean(y) − mean(x) of cell c | |
| block | the cells of one algorithm on one task: all sizes learn from prefixes of the same D expert sets | |
| z_D | mean over a block's sizes of the mean over runs, per expert set | (D,) |
| ω² | variance between expert sets of a block's mean over sizes | |
| R | resamples | |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from policyopt.provenance import derive_seed
from policyopt.reporting.analysis import MARGINS, margin_of
from policyopt.reporting.reference import CEILING, FAILED, Baseline, CellKey, Reference, at_ceiling
from policyopt.reporting.statistics import LEVEL, NAN, Difference, Sets, prob_improvement, satterthwaite, verdict_of

Cells = Mapping[CellKey, tuple[np.ndarray, np.ndarray]]  # (y_N, set_N), mean returns per run and their expert sets

PRIOR_DF = 4  # what the other tasks' variance between sets counts, in degrees of freedom: as much as five sets of one's own
NUM_BOOTSTRAP = 2000


@dataclasses.dataclass
class Pair:
    """One cell as scores: our runs and their expert sets, and the reference."""

    key: CellKey
    y_N: np.ndarray
    set_N: np.ndarray
    ref: Reference
    ref_alg: str = ''  # the reference's algorithm where it is another one (negative controls)

    @property
    def sets(self) -> Sets:
        return Sets(self.y_N, self.set_N)

    @property
    def diff(self) -> float:
        return float(self.y_N.mean() - self.ref.mean)

    @property
    def ceiling(self) -> bool:
        return at_ceiling(self.y_N, self.ref.runs)

    @property
    def block(self) -> tuple[str, str]:
        return self.key.alg, self.key.task

    @property
    def ref_block(self) -> tuple[str, str]:
        return self.ref_alg or self.key.alg, self.key.task


@dataclasses.dataclass
class Between:
    """ω² of a block (var) with its degrees of freedom; `spread` is the variance of z_D, from which ω² was computed."""

    var: float
    spread: float
    df: float
    ceiling: bool = False


def between_of(cells: list[tuple[np.ndarray, np.ndarray]]) -> Between | None:
    """Between of one block from the cells of one file, or None when they do not share two expert sets.

    z_s is the mean over sizes of the mean over the runs of set s, so an effect that a set has on all sizes stays in it.
    ω² = var(z_D) − mean_s Σ_k MS_k/n_{k,s} / K²  (method of moments; it may be negative until it is pooled).
    With one run per set, the variance within sets (MS) is unknown, and ω² includes it.
    """
    cells = [c for c in cells if np.unique(c[1]).size > 1]
    common = sorted(set.intersection(*(set(s.tolist()) for _, s in cells))) if cells else []
    if len(common) < 2:
        return None
    z_K_D = np.array([[y[s == d].mean() for d in common] for y, s in cells])
    noise = [[np.nan_to_num(Sets(y, s).ms_within) / np.sum(s == d) for d in common] for y, s in cells]
    spread = float(np.var(z_K_D.mean(axis=0), ddof=1))
    var = spread - float(np.sum(np.mean(noise, axis=1))) / len(cells) ** 2
    return Between(var, spread, len(common) - 1, at_ceiling(*(y for y, _ in cells)))


def pooled_between(sources: Sequence[Cells], blocks: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Between]:
    """{(alg, task): Between} for `blocks`, partially pooled over the tasks of each algorithm; blocks of unmeasured algorithms are absent.

    Each block takes ω² from the one file with most expert sets, because files of one base seed share sets. Then tasks are pooled:

    ω̃² = max(0, (f·ω² + f₀·ω̄²)/(f + f₀)),  with f + f₀ degrees of freedom,

    where ω̄² is the mean over the algorithm's blocks, weighted by f. This is the posterior mean of a variance with a scaled inverse χ²
    prior (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3(1), art. 3, eq. 3): five sets give ω² only four degrees of freedom.
    f₀ is PRIOR_DF, at most the f of the other blocks together; three tasks are too few to estimate it. When all f are equal, pooling
    does not change the sum over tasks. A block at the ceiling is not pooled: its ω² says nothing about other tasks.
    A block with only some sizes measured uses these for all sizes. This overstates ω² if the other sizes are larger.

    sources: normalised cells, one mapping for each file with several expert sets. blocks: the (alg, task) to return.
    """
    own = {}
    for cells in sources:
        for block in dict.fromkeys((k.alg, k.task) for k in cells):
            found = between_of([c for k, c in cells.items() if (k.alg, k.task) == block])
            if found and (block not in own or found.df > own[block].df):
                own[block] = found
    out = {}
    for block in blocks:
        mine = own.get(block)
        pool = [v for (alg, _), v in own.items() if alg == block[0] and not v.ceiling]
        if mine and (mine.ceiling or len(pool) < 2):
            out[block] = dataclasses.replace(mine, var=max(0.0, mine.var))
        elif mine:
            prior = _weighted(pool)
            prior.df = min(PRIOR_DF, prior.df - mine.df)
            out[block] = _weighted([mine, prior])
            out[block].var = max(0.0, out[block].var)
        elif pool:
            prior = _weighted(pool)
            out[block] = Between(max(0.0, prior.var), prior.spread, min(PRIOR_DF, prior.df))
    return out


def _weighted(items: list[Between]) -> Between:
    df = sum(i.df for i in items)
    var, spread = (sum(i.df * getattr(i, name) for i in items) / df for name in ('var', 'spread'))
    return Between(var, spread, df, all(i.ceiling for i in items))


Blocks = Mapping[tuple[str, str], Between]  # by (alg, task)


class Part(NamedTuple):
    """One part of a variance. mean_square: the mean square, with its weight, of which df is the number of degrees of freedom."""

    variance: float
    mean_square: float
    df: float


def _variance_between_sets(pairs: Sequence[Pair], between: Blocks) -> tuple[list[Part], str]:
    """Return V_sets, a Part for each task, and 'measured', or 'runs' where ω̃² of a block is unknown.

    V_sets = Σ_tasks (Σ_blocks (K_b/K)·√(ω̃²·Σ(n_d/N)² + ω̃'²))². Our mean has its share of the variance between sets; the reference has
    one set, and so all of it. Algorithms on one task share their sets, so their errors are added as fully correlated ones.
    """
    blocks, errors, sets = {}, {}, 'measured'
    for p in pairs:
        blocks.setdefault((p.block, p.ref_block), []).append(p)
    for (mine, other), cells in blocks.items():
        kappa = float(np.mean([p.sets.sum_sq for p in cells]))
        known = [(x, share) for x, share in ((between.get(mine), kappa), (between.get(other), 1.0)) if x]
        if len(known) < 2 and not all(p.ceiling for p in cells):
            sets = 'runs'
        error = len(cells) / len(pairs) * math.sqrt(sum(x.var * share for x, share in known))
        spread = len(cells) / len(pairs) * math.sqrt(sum(x.spread * share for x, share in known))
        errors.setdefault(mine[1], []).append((error, spread, min((x.df for x, _ in known), default=math.inf)))
    of_tasks = [zip(*found, strict=True) for found in errors.values()]
    parts = [Part(sum(found) ** 2, sum(spreads) ** 2, min(dfs)) for found, spreads, dfs in of_tasks if sum(spreads) > 0]
    return parts, sets


def _variance_within_sets(pairs: Sequence[Pair], between: Blocks, spare: Mapping[CellKey, Sets]) -> list[Part] | None:
    """V_runs = Σ_c (s_c²/N_c + s'_c²/M_c)/K², a Part for each term that is known and not 0; None where single runs leave it unknown."""
    parts = []
    for p in pairs:
        own = p.sets if p.sets.df_within else spare.get(p.key, p.sets)
        within = own.ms_within, own.df_within
        ref_within = (p.ref.sd**2, p.ref.m - 1) if math.isfinite(p.ref.sd) else within
        # with one run per set, ω² includes the variance of the runs
        if math.isnan(within[0] + ref_within[0]) and p.block not in between and not p.ceiling:
            return None
        sides = (*within, p.y_N.size), (*ref_within, p.ref.m)
        known = [(mean_square / n / len(pairs) ** 2, df) for mean_square, df, n in sides if df and mean_square > 0]
        parts += [Part(variance, variance, df) for variance, df in known]
    return parts


def _error_from_differences(pairs: Sequence[Pair]) -> tuple[str, float, float]:
    """As standard_error, from the differences d_c alone.

    With T > 2 tasks: V = T/(T − 1)·Σ_t (K_t/K)²·(d_t − d)², where d_t is the mean over the K_t cells of task t, and ν = T − 1. The tasks
    have independent expert sets; the cells of one task share theirs. The interval is not too narrow if the tasks vary unequally
    (Ibragimov & Müller 2010, J. Bus. Econ. Stat. 28, 453). With fewer tasks, V = var(d_c)/K and ν = K − 1, which give no verdict.
    """
    by_task = [[p.diff for p in pairs if p.key.task == task] for task in dict.fromkeys(p.key.task for p in pairs)]
    sets, groups = ('tasks', by_task) if len(by_task) > 2 else ('cells', [[p.diff] for p in pairs])
    df, diff = float(len(groups) - 1), np.mean([p.diff for p in pairs])
    apart = sum((len(d) / len(pairs)) ** 2 * (np.mean(d) - diff) ** 2 for d in groups)
    return sets, math.sqrt(len(groups) / df * apart) if df else NAN, df


def standard_error(pairs: Sequence[Pair], between: Blocks, spare: Mapping[CellKey, Sets]) -> tuple[str, float, float]:
    """(what it holds, as in Row; standard error; degrees of freedom) of the mean difference d of these cells, each with weight 1/K.

    V = V_sets + V_runs, and the interval is d ± t(ν)·√V with Satterthwaite's ν, at least the smallest f of a task. In ν, ω̃² counts with
    the spread that it was computed from. Where single runs leave V_runs unknown, `_error_from_differences` takes their place.
    """
    set_parts, sets = _variance_between_sets(pairs, between)
    run_parts = _variance_within_sets(pairs, between, spare)
    if run_parts is None:
        return _error_from_differences(pairs)
    parts = set_parts + run_parts
    total, df = sum(part.variance for part in parts), NAN
    if total > 0:
        least = min((part.df for part in set_parts), default=1.0)
        df = max(satterthwaite(total, [(part.mean_square, part.df) for part in parts]), least)
    return sets, math.sqrt(total) if total >= 0 else NAN, df


class Row(Difference):
    """The mean difference in scores of some cells, with its equivalence test and its verdict.

    `sets` says what its variance holds: 'measured' (runs and expert sets), 'runs' (the variance between sets was not measured for
    some cell), 'tasks' or 'cells' (single runs: the spread of the tasks' or cells' own differences). `failed` is the number of our
    `num_runs` runs that score at most FAILED; `ref_failed` is that number among the `ref_runs` of the reference.
    Equivalence within δ: two one-sided t tests (Schuirmann 1987), p = P(T(ν) > (δ − |d|)/√V); p < .05 is the 90% interval within ±δ.
    """

    improvement: tuple[float, ...] = (NAN, NAN, NAN)
    iqm: tuple[float, ...] = (NAN, NAN, NAN)
    ref_iqm: tuple[float, ...] = (NAN, NAN, NAN)

    def __init__(
        self,
        pairs: Sequence[Pair],
        between: Blocks,
        alg: str = '',
        task: str = '',
        spare: Mapping[CellKey, Sets] | None = None,
        margins: Mapping[str, float] = MARGINS,
    ):
        """alg, task: name of the row, empty for all. spare: Sets of other files, used for cells with one run per expert set."""
        self.alg, self.task, self.margin = alg, task, margin_of(alg, margins)
        self.num_cells, self.num_ceiling = len(pairs), sum(p.ceiling for p in pairs)
        self.sets, se, df = standard_error(pairs, between, spare or {})
        super().__init__(float(np.mean([p.diff for p in pairs])), se, df)
        ours = np.concatenate([p.y_N for p in pairs])
        theirs = np.concatenate([np.empty(0), *(p.ref.y_M for p in pairs if p.ref.y_M is not None)])
        self.failed, self.num_runs = int(np.sum(ours <= FAILED)), ours.size
        self.ref_failed, self.ref_runs = int(np.sum(theirs <= FAILED)), theirs.size

    @property
    def tost_p(self) -> float:
        """p value of two one-sided tests that the difference lies within the margin."""
        if self.se > 0:
            return float(stats.t.sf((self.margin - abs(self.diff)) / self.se, self.df))
        return float(abs(self.diff) >= self.margin) if self.se == 0 else NAN

    @property
    def verdict(self) -> str:
        """In words, by `verdict_of`: never more than the variance in it allows."""
        if self.num_ceiling == self.num_cells and 2 * CEILING <= self.margin:
            return verdict_of(0.0, 0.0, self.margin, False, 0.0)  # no difference above 2·CEILING can be
        (low, high), (lo95, hi95) = (self.interval(0.9) if self.sets == 'measured' else (NAN, NAN)), self.interval(0.95)
        return verdict_of(low, high, self.margin, self.sets in ('measured', 'tasks') and (lo95 > 0 or hi95 < 0), self.diff)


def resampled(y_N: np.ndarray, set_N: np.ndarray, rng: np.random.Generator, num: int) -> np.ndarray:
    """num bootstrap samples of a cell's runs, (R, N): runs within their set, and sets too where there are several."""
    order_N = np.argsort(set_N, kind='stable')
    _, first_D, size_D = np.unique(set_N[order_N], return_index=True, return_counts=True)
    slot_N = np.repeat(np.arange(size_D.size), size_D)
    set_R_N = rng.integers(size_D.size, size=(num, size_D.size))[:, slot_N]
    return y_N[order_N[first_D[set_R_N] + (rng.random((num, y_N.size)) * size_D[set_R_N]).astype(int)]]


def bootstrap(pairs: Sequence[Pair], seed: int, num: int = NUM_BOOTSTRAP) -> tuple[tuple[float, ...], ...]:
    """(probability of improvement, our IQM, the reference's IQM), each with its 95% interval, as rliable reports them.

    Percentile bootstrap of runs, stratified by cell (Agarwal et al. 2021, arXiv:2108.13264); our expert sets are redrawn too where
    there are several. The interquartile mean is that of all runs of all cells together; the
    probability of improvement is the mean over cells of P(our run > theirs), ties half. Single runs have no intervals (NaN).
    """
    pairs = [p for p in pairs if p.ref.y_M is not None]
    if not pairs:
        return ((NAN,) * 3,) * 3
    rng = np.random.default_rng(seed)
    ours = [resampled(p.y_N, p.set_N, rng, num) for p in pairs]
    theirs = [resampled(p.ref.y_M, np.zeros(p.ref.m, int), rng, num) for p in pairs]
    better_R = np.zeros(num)
    for y_R_N, x_R_M in zip(ours, theirs, strict=True):
        d_R_N_M = y_R_N[:, :, None] - x_R_M[:, None, :]
        better_R += ((d_R_N_M > 1e-5).mean(axis=(1, 2)) + 0.5 * (np.abs(d_R_N_M) <= 1e-5).mean(axis=(1, 2))) / len(pairs)

    def iqm(runs):
        return stats.trim_mean(np.concatenate(runs, axis=-1), 0.25, axis=-1)

    values = np.mean([prob_improvement(p.y_N, p.ref.y_M) for p in pairs]), iqm([p.y_N for p in pairs]), iqm([p.ref.y_M for p in pairs])
    ends = np.quantile([better_R, iqm(ours), iqm(theirs)], [LEVEL / 2, 1 - LEVEL / 2], axis=1)
    if all(p.y_N.size == p.ref.m == 1 for p in pairs):
        ends *= NAN  # drawing one run of one gives that run: no spread, and not a narrow one
    return tuple(zip(map(float, values), *ends.tolist(), strict=True))


class Aggregate:
    """Rows over a results table beside its reference: per algorithm, per algorithm and task, per task, and over all.

    pairs: the cells with a reference and a scale. between: the variances between sets that the rows use. free: for each
    algorithm with some cells at the ceiling, its row without these cells.

    Args:
        sources: the cells of other files, to estimate the variance between sets.
        margins: the margin of an algorithm, by the beginning of its name.
    """

    def __init__(
        self,
        cells: Cells,
        reference: Mapping[CellKey, Reference],
        scales: Mapping[str, Baseline],
        sources: Sequence[Cells] = (),
        margins: Mapping[str, float] = MARGINS,
    ):
        self.pairs, self.margins = [], margins
        for key, (y_N, set_N) in cells.items():
            scale = scales.get(key.task)
            if key in reference and scale is not None and math.isfinite(scale.width):
                ref = reference[key].mapped(scale.score, 1 / scale.width)
                self.pairs.append(Pair(key, scale.score(y_N), np.asarray(set_N), ref))
        others = [s for s in sources if s.keys() != cells.keys() or not all(np.array_equal(s[k], cells[k]) for k in s)]
        scaled = [{k: (scales[k.task].score(y), np.asarray(s)) for k, (y, s) in c.items() if k.task in scales} for c in [cells, *others]]
        algs, tasks = (list(dict.fromkeys(getattr(p.key, f) for p in self.pairs)) for f in ('alg', 'task'))
        blocks = [(a, t) for a in algs for t in tasks if any(p.block == (a, t) for p in self.pairs)]
        self.between = pooled_between(scaled, blocks)
        self.spare = {k: w for c in reversed(scaled[1:]) for k, (y, s) in c.items() if (w := Sets(y, s)).df_within}
        self.algs = [self._row(True, alg=a) for a in algs]
        self.blocks = [self._row(False, *block) for block in blocks]
        self.tasks = [self._row(True, task=t) for t in tasks]
        self.whole: Any = self._row(True) if self.pairs else None
        self.free = [self._row(False, r.alg, free=True) for r in self.algs if 0 < r.num_ceiling < r.num_cells]

    def _row(self, full: bool, alg: str = '', task: str = '', free: bool = False) -> Row:
        """The row of the cells of an algorithm and a task; `full` with its bootstrap, `free` without those at the ceiling."""
        mine = [p for p in self.pairs if alg in ('', p.key.alg) and task in ('', p.key.task) and not (free and p.ceiling)]
        out = Row(mine, self.between, alg, task, spare=self.spare, margins=self.margins)
        if full:
            out.improvement, out.iqm, out.ref_iqm = bootstrap(mine, derive_seed('aggregate bootstrap', alg, task))
        return out
