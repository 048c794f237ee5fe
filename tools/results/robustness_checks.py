"""Second looks at an aggregate, which decide nothing: without the first expert set, without one cell, by ranks, and beside another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from policyopt.reporting.tables import decimals_of, number, signed, trajectories
from policyopt.reproduction.aggregate import pooled_between, row_of
from policyopt.reproduction.report import interval, p_said
from policyopt.util import UserError

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Analysis
    from policyopt.reporting.reference import CellKey
    from policyopt.reproduction.aggregate import Pair, Row
    from policyopt.reproduction.study import Study


def looks(analysis: Study) -> list[str]:
    """Sentences on all cells: what is left without the first set and without the cell furthest off, and where the reference ranks."""
    if analysis.aggregate is None:
        raise UserError('second looks need a reference, and this file has none')
    pairs = analysis.aggregate.pairs
    said = []
    first = min(int(p.set_N.min()) for p in pairs)
    others = [_kept(p, p.set_N != first) for p in pairs if (p.set_N != first).any()]
    if others:
        said.append(f'Without the first expert set: {_said(_row(others))}.')
    worst = max(pairs, key=lambda p: abs(p.diff))
    if len(pairs) > 1:
        cell, d = analysis.cells[worst.key], decimals_of(analysis, worst.key.task)
        ours = ' to '.join(dict.fromkeys(number(y, d) for y in (cell.y_N.min(), cell.y_N.max())))
        theirs = number(analysis.reference[worst.key].mean, d)
        name = f'{worst.key.alg} on {worst.key.task} with {trajectories(worst.key.num_trajs)}'
        left = _said(_row([p for p in pairs if p is not worst]))
        said.append(f'Without the cell furthest off, {name} (reference {theirs}; ours {ours}): {left}.')
    return said + _ranks([p for p in pairs if p.m == 1 and p.y_N.size > 1])


def _kept(pair: Pair, of_N: np.ndarray) -> Pair:
    return dataclasses.replace(pair, y_N=pair.y_N[of_N], set_N=pair.set_N[of_N])


def _row(pairs: Sequence[Pair]) -> Row:
    """The row of these cells, with the variance between the sets that they have themselves."""
    own = pooled_between([{p.key: (p.y_N, p.set_N) for p in pairs}], dict.fromkeys(p.block for p in pairs))
    algs = {p.key.alg for p in pairs}
    return row_of(pairs, own, algs.pop() if len(algs) == 1 else '')


def _said(row: Row) -> str:
    return f'{signed(row.diff)}, 95% interval {interval(*row.interval(0.95))}, {row.verdict}'


def _ranks(pairs: Sequence[Pair]) -> list[str]:
    """Where single runs of the reference stand among N of ours.

    Were both from one distribution: above all N with probability 1/(N + 1), above their median with 1/2 (binomial tests, two-sided).
    """
    sizes = {p.y_N.size for p in pairs}
    if len(sizes) != 1:
        return []
    n, num = sizes.pop(), len(pairs)
    above, half = (sum(p.x_mean > f(p.y_N) for p in pairs) for f in (np.max, np.median))
    below = sum(p.x_mean < p.y_N.min() for p in pairs)
    ends = (f'{word} all {n} of ours in {k} ({_p(k, num, 1 / (n + 1))})' for word, k in (('above', above), ('below', below)))
    return [
        f"Of {num} cells the reference's one run lies {', '.join(ends)}, above our median in {half} ({_p(half, num, 0.5)}), "
        f'by binomial tests; were both from one distribution, {num / (n + 1):.1f}, {num / (n + 1):.1f} and {num / 2:g} would be expected.'
    ]


def _p(k: int, num: int, rate: float) -> str:
    return p_said(float(stats.binomtest(int(k), num, rate).pvalue))


def beside(analysis: Analysis, other: Analysis) -> str:
    """A sentence on the same cells and expert sets in two files: the mean difference over pairs of task and set, with its t test.

    A set is the same where its expert's episodes are: one seed gives other sets on another kind of processor.
    """
    gains: dict[tuple[str, int], list[float]] = {}
    others = set()
    for key in (k for k in analysis.cells if k in other.cells):
        ours, theirs = _by_set(analysis, key), _by_set(other, key)
        for s in (s for s in ours if s in theirs):
            if np.array_equal(ours[s][0], theirs[s][0]):
                gains.setdefault((key.task, s), []).append(ours[s][1] - theirs[s][1])
            else:
                others.add((key.task, s))
    mean_of = {block: float(np.mean(some)) for block, some in gains.items()}
    found = np.array(list(mean_of.values()))
    if not found.size:
        raise UserError('the two files have no cell with an expert set in common; expected the same sets')
    tasks = [
        f'{t} {signed(float(np.mean([m for (task, _), m in mean_of.items() if task == t])))}' for t in dict.fromkeys(t for t, _ in mean_of)
    ]
    about = f'one pair of task and expert set: {", ".join(tasks)}'
    if found.size > 1:
        test = stats.ttest_1samp(found, 0)
        known = f'95% interval {interval(*test.confidence_interval(0.95))}, {p_said(float(np.asarray(test)[1]))}'
        about = f'{known} over {found.size} pairs of task and expert set: {", ".join(tasks)}'
    said = f'Mean difference {signed(found.mean())} ({about}).'
    if others:
        said += f' Left out: {len(others)} sets that are not the same in both ({", ".join(dict.fromkeys(t for t, _ in sorted(others)))}).'
    return said


def _by_set(analysis: Analysis, key: CellKey) -> dict[int, tuple[np.ndarray, float]]:
    """{expert set: (returns of its episodes, mean normalised return of the runs on it)} of a cell."""
    cell, score = analysis.cells[key], analysis.scales[key.task].score
    experts = {row.dataset: row.ex_traj_returns for row in cell.rows}
    return {s: (ex_E, float(score(cell.y_N[cell.set_N == s].mean()))) for s, ex_E in experts.items()}


def run_by_run(analysis: Analysis, other: Analysis, margin: float = 0.02) -> list[str]:
    """A sentence per algorithm on the same runs (sets and seeds) in two files: the mean difference, and whether it is within ±margin.

    d = mean over K cells of mean_i(y_i − y'_i),  V = Σ_c var_c(y_i − y'_i)/N_c/K²: expert sets are the same on both sides and drop out.
    d ± t(ν)·√V with Satterthwaite's ν; within the margin when the 90% interval is (two one-sided tests at 5%).
    """
    gains: dict[str, list[np.ndarray]] = {}
    for key in (k for k in analysis.cells if k in other.cells):
        ours, theirs = ({r.run: (r, y) for r, y in zip(a.cells[key].rows, a.cells[key].y_N, strict=True)} for a in (analysis, other))
        both = [(*ours[i], *theirs[i]) for i in ours if i in theirs]
        score = analysis.scales[key.task].score
        gain_N = np.array([score(y) - score(x) for r, y, q, x in both if np.array_equal(r.ex_traj_returns, q.ex_traj_returns)])
        if gain_N.size > 1:
            gains.setdefault(key.alg, []).append(gain_N)
    return [f'{alg}: {_paired(found, margin)}.' for alg, found in gains.items()]


def _paired(gains: Sequence[np.ndarray], margin: float) -> str:
    mean, num = float(np.mean([x.mean() for x in gains])), sum(x.size for x in gains)
    v_K = np.array([x.var(ddof=1) / x.size / len(gains) ** 2 for x in gains])
    df = v_K.sum() ** 2 / np.sum(v_K**2 / np.array([x.size - 1 for x in gains])) if v_K.any() else 1.0
    half = float(stats.t.ppf(0.95, df) * np.sqrt(v_K.sum()))
    inside = 'within' if abs(mean) + half < margin else 'not shown to be within'
    return f'{signed(mean)}, 90% interval {interval(mean - half, mean + half)}, {inside} ±{margin:.2f} ({num} pairs of runs)'
