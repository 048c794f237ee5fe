"""Robustness checks of a mean over cells: without the first expert set, without one cell, and next to the same runs of another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from policyopt.errors import UserError
from policyopt.reporting.tables import signed, trajectories
from policyopt.reproduction.aggregate import Row, pooled_between
from policyopt.reproduction.report import interval
from tools.results.words import name_of_algorithm

if TYPE_CHECKING:
    from policyopt.reporting.reference import CellKey
    from policyopt.reproduction.aggregate import Pair
    from policyopt.reproduction.study import Study


def checks(analysis: Study) -> list[tuple[str, Row]]:
    """[(what it is the mean over, Row)]: all cells, without the first expert set, without the cell furthest off, without the ceiling."""
    pairs = analysis.aggregate.pairs
    out = [('all cells', _row(pairs))]
    first = min(int(p.set_N.min()) for p in pairs)
    others = [_kept(p, p.set_N != first) for p in pairs if (p.set_N != first).any()]
    if others:
        out.append(('without the first expert set', _row(others)))
    worst = max(pairs, key=lambda p: abs(p.diff))
    if len(pairs) > 1:
        out.append((f'without {worst.key.task} with {trajectories(worst.key.num_trajs)}', _row([p for p in pairs if p is not worst])))
    free = [p for p in pairs if not p.ceiling]
    if 0 < len(free) < len(pairs):
        out.append(('without the cells at the ceiling', _row(free)))
    return out


def _kept(pair: Pair, of_N: np.ndarray) -> Pair:
    return dataclasses.replace(pair, y_N=pair.y_N[of_N], set_N=pair.set_N[of_N])


def _row(pairs: Sequence[Pair]) -> Row:
    """The row of these cells, with the variance between the sets that they have themselves."""
    own = pooled_between([{p.key: (p.y_N, p.set_N) for p in pairs}], dict.fromkeys(p.block for p in pairs))
    algs = {p.key.alg for p in pairs}
    return Row(pairs, own, algs.pop() if len(algs) == 1 else '')


def beside(analysis: Study, other: Study) -> str:
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
    known = ''
    if found.size > 1:
        known = f' [{", ".join(map(signed, stats.ttest_1samp(found, 0).confidence_interval(0.95)))}] (95% interval)'
    said = f'Mean difference {signed(found.mean())}{known} over {found.size} pairs of task and expert set.\n'
    said += f'By task: {", ".join(tasks)}.'
    if others:
        said += f'\nLeft out: {len(others)} sets that differ between the two ({", ".join(dict.fromkeys(t for t, _ in sorted(others)))}).'
    return said


def _by_set(analysis: Study, key: CellKey) -> dict[int, tuple[np.ndarray, float]]:
    """{expert set: (returns of its episodes, mean normalised return of the runs on it)} of a cell."""
    cell, score = analysis.cells[key], analysis.scales[key.task].score
    experts = {row.dataset: row.ex_traj_returns for row in cell.rows}
    return {s: (ex_E, float(score(cell.y_N[cell.set_N == s].mean()))) for s, ex_E in experts.items()}


def run_by_run(analysis: Study, other: Study, margin: float = 0.02) -> list[str]:
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
    return [f'{name_of_algorithm(alg)}: {_paired(found, margin)}.' for alg, found in gains.items()]


def _paired(gains: Sequence[np.ndarray], margin: float) -> str:
    mean, num = float(np.mean([x.mean() for x in gains])), sum(x.size for x in gains)
    v_K = np.array([x.var(ddof=1) / x.size / len(gains) ** 2 for x in gains])
    df = v_K.sum() ** 2 / np.sum(v_K**2 / np.array([x.size - 1 for x in gains])) if v_K.any() else 1.0
    half = float(stats.t.ppf(0.95, df) * np.sqrt(v_K.sum()))
    inside = 'within' if abs(mean) + half < margin else 'not shown to be within'
    return f'{signed(mean)} {interval(mean - half, mean + half)} over {num} pairs of runs, {inside} {margin:.2f}'
