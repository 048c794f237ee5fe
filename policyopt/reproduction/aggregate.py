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
from typing import Any

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
    """ω² of a block with its degrees of freedom; `spread` is the variance of z_D that it was taken from."""

    var: float
    spread: float
    df: float
    ceiling: bool = False


def between_of(cells: list[tuple[np.ndarray, np.ndarray]]) -> Between | None:
    """Between of one block from the cells of one file, or None when they do not share two expert sets.

    z_s = mean over sizes of mean over runs, so that what the sizes of a set have in common is in it;
    ω² = var(z_D) − mean_s Σ_k MS_k/n_{k,s} / K²  (method of moments; it may be negative until it is pooled).
    With one run a set, MS is unknown and stays in ω².
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

    Files first: ω² of one block is that of the file with most expert sets of it, because files of one base seed share sets. Then tasks:

    ω̃² = max(0, (f·ω² + f₀·ω̄²)/(f + f₀)),  with f + f₀ degrees of freedom,

    where ω̄² is the mean of the algorithm's blocks, weighted by f. This is the posterior mean of a variance with a scaled inverse χ²
    prior (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3(1), art. 3, eq. 3), so that five sets' four degrees of freedom do not decide
    alone; f₀ is set to PRIOR_DF (at most the other blocks' f) and not estimated, because three tasks cannot tell it. The sum over
    tasks is that of the unpooled estimates when all f are equal. Blocks at the ceiling keep their own: they know nothing of the
    others. A block of which only some sizes were measured is taken to vary as those do, which is too much where the others are larger.

    sources: normalised, one for each file that has several expert sets. blocks: the (alg, task) that are wanted.
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


def standard_error(
    pairs: Sequence[Pair], between: Mapping[tuple[str, str], Between], spare: Mapping[CellKey, Sets]
) -> tuple[str, float, float]:
    """(what it holds, as in Row; standard error; degrees of freedom) of the mean difference of these cells, each with weight 1/K.

    d = mean_c d_c,   V = V_sets + V_runs,   V_runs = Σ_c (s_c²/N_c + s'_c²/M_c)/K²,
    V_sets = Σ_tasks (Σ_blocks (K_b/K)·√(ω̃²·Σ(n_d/N)² + ω̃'²))²:  our mean carries its share of the variance between sets and the
    reference's one set carries all of it; algorithms on one task share their sets, so their errors are added as if they were one.
    d ± t(ν)·√V with Satterthwaite's ν, in which ω̃² counts with the spread it was taken from, kept at or above the smallest f.
    Where single runs tell no variance at all, T > 2 tasks do, because their expert sets are their own and the cells of one share theirs:
    V = T/(T − 1)·Σ_t (K_t/K)²·(d_t − d)² with d_t the mean over task t's K_t cells, ν = T − 1 (Ibragimov & Müller 2010, J. Bus. Econ.
    Stat. 28, 453: not too narrow where tasks vary unequally). With fewer tasks V = var(d_c)/K, ν = K − 1, and nothing is concluded.
    """
    num, sets, df = len(pairs), 'measured', NAN
    blocks, per_task = {}, {}  # per_task: (standard deviation between sets, the spread behind it, degrees of freedom) of every block
    for p in pairs:
        blocks.setdefault((p.block, p.ref_block), []).append(p)
    for (mine, other), cells in blocks.items():
        kappa = float(np.mean([p.sets.sum_sq for p in cells]))
        known = [(x, k) for x, k in ((between.get(mine), kappa), (between.get(other), 1.0)) if x]
        if len(known) < 2 and not all(p.ceiling for p in cells):
            sets = 'runs'
        sds = (len(cells) / num * math.sqrt(sum(getattr(x, name) * k for x, k in known)) for name in ('var', 'spread'))
        per_task.setdefault(mine[1], []).append((*sds, min((x.df for x, _ in known), default=math.inf)))
    sums = [(sum(sds), sum(spreads), min(dfs)) for sds, spreads, dfs in (zip(*found, strict=True) for found in per_task.values())]
    parts = [(sd**2, spread**2, df) for sd, spread, df in sums if spread > 0]  # (variance, the mean square behind it, degrees of freedom)
    least, unknown = min((df for *_, df in parts), default=1.0), False
    for p in pairs:
        own = p.sets if p.sets.df_within else spare.get(p.key, p.sets)
        within = own.ms_within, own.df_within
        ref_within = (p.ref.sd**2, p.ref.m - 1) if math.isfinite(p.ref.sd) else within
        # with one run a set what runs vary is in ω² already
        unknown |= math.isnan(within[0] + ref_within[0]) and p.block not in between and not p.ceiling
        parts += [(v / n / num**2, v / n / num**2, f) for (v, f), n in ((within, p.y_N.size), (ref_within, p.ref.m)) if f and v > 0]
    total = sum(v for v, _, _ in parts)
    if unknown:
        by_task = {}
        for p in pairs:
            by_task.setdefault(p.key.task, []).append(p.diff)
        sets, groups = ('tasks', list(by_task.values())) if len(by_task) > 2 else ('cells', [[p.diff] for p in pairs])
        df, diff = float(len(groups) - 1), np.mean([p.diff for p in pairs])
        apart = sum((len(d) / num) ** 2 * (np.mean(d) - diff) ** 2 for d in groups)
        total = float(len(groups) / df * apart) if df else NAN
    elif total > 0:
        df = max(satterthwaite(total, [part[1:] for part in parts]), least)
    return sets, math.sqrt(total) if total >= 0 else NAN, df


class Row(Difference):
    """The mean difference in scores of some cells, with its equivalence test and its verdict.

    `sets` says what its variance holds: 'measured' (runs and expert sets), 'runs' (the variance between sets was not measured for
    some cell), 'tasks' or 'cells' (single runs: the spread of the tasks' or cells' own differences). `failed` of `num_runs` runs of ours
    got at most FAILED of the way from random to expert, `ref_failed` of `ref_runs` of the reference.
    Equivalence within δ: two one-sided t tests (Schuirmann 1987), p = P(T(ν) > (δ − |d|)/√V); p < .05 is the 90% interval within ±δ.
    """

    improvement: tuple[float, ...] = (NAN, NAN, NAN)
    iqm: tuple[float, ...] = (NAN, NAN, NAN)
    ref_iqm: tuple[float, ...] = (NAN, NAN, NAN)

    def __init__(
        self,
        pairs: Sequence[Pair],
        between: Mapping[tuple[str, str], Between],
        alg: str = '',
        task: str = '',
        spare: Mapping[CellKey, Sets] | None = None,
        margins: Mapping[str, float] = MARGINS,
    ):
        """alg, task: name of the row, empty for all. spare: Sets from other files, for the variance within sets of cells of one run."""
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

    pairs, between: the cells with a reference and a scale, and the variances that the rows came from. free: the rows of the
    algorithms that have cells at the ceiling, without these.

    Args:
        sources: such `cells` of other files, for the variance between sets.
        margins: by the beginning of an algorithm's name.
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
