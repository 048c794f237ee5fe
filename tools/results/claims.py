"""Tables over several results files: the paper's claims with its counts and ours, the agreement with it, and the preregistered tests."""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from policyopt.errors import UserError
from policyopt.reporting.reference import CellKey, read_reference, read_reference_tasks
from policyopt.reporting.tables import decimals_of, number, trajectories
from tools.results.benchmark_tables import efficiency_table, label_table, transfer_table
from tools.results.gail_starts import starts_table
from tools.results.reward_shift import shift_table
from tools.results.robustness_checks import beside, checks, run_by_run
from tools.results.words import difference, table, verdict

if TYPE_CHECKING:
    from policyopt.reproduction.aggregate import Pair
    from tools.results.documents import Blocks

CLASSIC, FIVE = 'classic-2016-experts/results', 'classic-2016-experts/five_sets'
TWENTY, LINEAR = 'classic-2016-experts/bclone_twenty_sets', 'classic-2016-experts/linear_sets'
CLONING = 'modern/bclone_five_sets'
PREREGISTRATION = 'preregistration.csv'
RUNS = 3  # that a row of gail/missed.csv was predicted for


def score(x: float) -> str:
    """A score with two decimals."""
    return f'{x:.2f}'


def means(pair: Pair) -> tuple[float, float]:
    """(the paper's mean score, ours)."""
    return pair.ref.mean, float(pair.y_N.mean())


def above(mine: dict, theirs: dict) -> list[str]:
    """How many cells of `mine` are above those of `theirs`, in the paper and here; ties are named."""
    said = []
    for side in (0, 1):
        gaps = [means(mine[k])[side] - means(theirs[k])[side] for k in theirs if k in mine]
        ties = sum(gap == 0 for gap in gaps)
        said.append(f'{sum(gap > 0 for gap in gaps)} of {len(gaps)}' + (f', {ties} equal' if ties else ''))
    return said


def claims_table(blocks: Blocks) -> str:
    """The paper's qualitative claims, and what else a reader asks first: the paper's count, and ours."""
    mujoco, classic = blocks.pairs('modern/ga'), blocks.pairs(CLASSIC, 'ga')
    good = [f'{sum(means(p)[side] >= 0.7 for p in mujoco.values())} of {len(mujoco)} cells' for side in (0, 1)]
    sides = [np.concatenate([runs for p in classic.values() if (runs := (p.ref.y_M, p.y_N)[side]) is not None]) for side in (0, 1)]
    reach = [f'{(runs >= 0.9).sum()} of {runs.size}' for runs in sides]
    cell = 'reacher', 4
    cloned = means(blocks.pairs('modern/reacher_bclone_five_sets')[cell])
    imitated = [means(blocks.pairs('modern/reacher_ga_sets', f'ga_entreg{weight}')[cell]) for weight in ('0', '-3')]
    few = [
        ('yes' if c > max(g) else 'no') + f': {score(c)}, GAIL {score(g[0])} and {score(g[1])}'
        for c, *g in zip(cloned, *imitated, strict=True)
    ]
    linear = [blocks.pairs('modern/fem_simplex', alg) for alg in ('fem', 'simplex')]
    cheetah = []
    for side in (0, 1):
        best = max(means(p)[side] for pairs in linear for p in pairs.values())
        worst = min(means(mujoco[cell])[side] for pairs in linear for cell in pairs)
        cheetah.append(('yes' if worst > best else 'no') + f': {score(worst)} or more, they {score(best)} or less')
    gail, fem = (next(r for r in blocks.analysis(CLASSIC).aggregate.algs if r.alg == alg) for alg in ('ga', 'fem'))
    cloning = blocks.analysis(TWENTY).aggregate.algs[0]
    known = [row for row in registered(blocks) if row['started']]
    before = f'{sum(row["committed"] < row["started"] for row in known)} of {len(known)}'
    lines = [
        ['MuJoCo: GAIL scores at least 0.7', *good],
        ['MuJoCo: GAIL scores more than cloning (of five sets)', *above(mujoco, blocks.pairs(CLONING))],
        ['Classic control: GAIL scores more than cloning', *above(classic, blocks.pairs(CLASSIC, 'bclone'))],
        ['Classic control: runs of GAIL that score at least 0.9', *reach],
        ['Reacher, 4 demonstrations: cloning scores more than GAIL', *few],
        ['HalfCheetah, 4 and 25 demonstrations: GAIL scores more than the linear rewards', *cheetah],
        ['Classic control: GAIL minus the paper', '–', f'{difference(gail)}, {verdict(gail)}'],
        ['Classic control: FEM minus the paper', '–', f'{difference(fem)}, {verdict(fem)}'],
        ['Classic control: cloning minus the paper', '–', f'{difference(cloning)}, {verdict(cloning)}'],
        ['Tests with dated runs whose statement was committed before', '–', before],
    ]
    return table(['claim', 'paper', 'here'], lines)


def agreement_overview(blocks: Blocks) -> str:
    """Our scores minus the paper's: the mean over cells with its interval, the median and the largest cell, and the verdict."""

    def line(what: str, name: str, alg: str = '', check: str = '') -> list:
        a = blocks.analysis(name).aggregate
        row = next((r for r in a.algs if r.alg == alg), a.whole)
        if check:
            row = next(r for words, r in checks(blocks.analysis(name)) if words.startswith(check))
        gaps = np.abs([p.diff for p in a.pairs if alg in ('', p.key.alg)])
        spread = ['', ''] if check else [f'{np.median(gaps):.3f}', f'{gaps.max():.3f}']
        return [what, row.num_cells, difference(row), *spread, verdict(row)]

    free = next(r for r in blocks.analysis(FIVE).aggregate.free if r.alg == 'ga')
    lines = [
        line('GAIL, classic control', CLASSIC, 'ga'),
        line('… five expert sets', FIVE, 'ga'),
        ['… of these without the cells at the ceiling', free.num_cells, difference(free), '', '', verdict(free)],
        line('FEM, classic control', CLASSIC, 'fem'),
        line('cloning, classic control, twenty expert sets', TWENTY, 'bclone'),
        line('game-theoretic, classic control', CLASSIC, 'simplex'),
        line('all four, classic control', CLASSIC),
        line('GAIL, MuJoCo, one run a cell as in the paper', 'modern/ga', 'ga'),
        line('… without the one run that failed', 'modern/ga', 'ga', 'without walker'),
        line('cloning, MuJoCo, five expert sets', CLONING, 'bclone'),
        line('cloning, Reacher, five expert sets', 'modern/reacher_bclone_five_sets', 'bclone'),
    ]
    heads = ['our score minus the paper’s', 'cells', 'mean [90% interval]', 'median cell', 'largest cell', 'verdict']
    return table(heads, lines)


# --- preregistered tests ----------------------------------------------------------------------------------------------


def registered(blocks: Blocks) -> list[dict[str, str]]:
    """The rows of preregistration.csv, with `started`: when the first run of the files of a row began; empty where none is known."""
    with open(f'{blocks.root}/{PREREGISTRATION}', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f, strict=True))
    for row in rows:
        if None in row or None in row.values():
            raise UserError(f'{blocks.root}/{PREREGISTRATION}: {row["what"]}: its line has not one value a column; quote commas')
        row['started'] = min((blocks.start_of(name) for name in row['files'].split()), default='')[:19]
    return rows


def registration_table(blocks: Blocks) -> str:
    """A line per preregistered test: what, where it was committed, when its runs began, what was predicted, and the outcome."""

    def time(text):
        return text[5:19].replace('T', ' ') or '–'

    lines = [
        [r['what'], r['predicted'], re.sub(r'\{([^{}]+)\}', lambda found: outcome(blocks, found[1]), r['outcome']), f'`{r["commit"]}`',
         time(r['committed']), time(r['started'])]
        for r in registered(blocks)
    ]  # fmt: skip
    return table(['what', 'predicted', 'outcome', 'commit', 'committed (2026, UTC)', 'first run began'], lines, words=4)


def outcome(blocks: Blocks, name: str) -> str:
    """What a word in braces of an outcome stands for.

    FILE:ALG the difference of an algorithm to the paper; FILE:ALG:TASK:SIZE the mean return of a cell; FILE:beside:FILE and
    FILE:run-by-run:ALG:FILE the difference of two files.
    """
    file, *words = name.split(':')
    analysis = blocks.analysis(file)
    if words[0] == 'beside':
        return re.search(r'[+-]\S+ \[.*?\]', beside(analysis, blocks.analysis(words[1])))[0]  # type: ignore[index]
    if words[0] == 'run-by-run':
        said = run_by_run(analysis, blocks.analysis(words[2]))
        return next(s.partition(': ')[2].partition(' over')[0] for s in said if s.startswith(words[1]))
    if len(words) == 1:
        return difference(next(r for r in analysis.aggregate.algs if r.alg == words[0]))
    alg, task, size = words
    key, cell = next((k, c) for k, c in analysis.cells.items() if k == (task, alg, int(size)))
    return number(cell.mean, decimals_of(analysis, key.task))


# --- today's GAIL ------------------------------------------------------------------------------------------------------


def _gail_cells(blocks: Blocks, files: Sequence[str]) -> dict[tuple[str, int], float]:
    """{(task, trajectories): mean score} of `gail` in those files that exist; 1 is the expert that gave the demonstrations."""
    out = {}
    for name in files:
        if name in blocks.between:
            a = blocks.analysis(name)
            out |= {(k.task, k.num_trajs): float(a.baselines[k.task].score(c.y_N).mean()) for k, c in a.cells.items() if k.alg == 'gail'}
    return out


def gail_table(blocks: Blocks, files: Sequence[str]) -> str:
    """A line per task: the mean score of `gail` for each number of demonstrations, in brackets that of the paper's GAIL."""
    cells = _gail_cells(blocks, files)
    if not cells:
        return 'These cells have not been run.'
    published, scales = read_reference(blocks.reference), read_reference_tasks(blocks.reference)
    sizes, lines = sorted({n for _, n in cells}), []
    for task in dict.fromkeys(task for task, _ in cells):
        theirs = {n: float(scales[task].score(ref.mean)) for n in sizes if (ref := published.get(CellKey(task, 'ga', n)))}
        lines.append([task, *(f'{cells[task, n]:.2f} ({theirs[n]:.2f})' if (task, n) in cells and n in theirs else '' for n in sizes)])
    return table(['task', *map(trajectories, sizes)], lines)


def prediction_table(blocks: Blocks) -> str:
    """A line per cell of gail/predictions.csv: its predicted score, the one found, and whether this is as high."""
    with open(f'{blocks.root}/gail/predictions.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    lines = []
    for r in rows:
        found = _gail_cells(blocks, [f'gail/{r["experiment"]}']).get((r['task'], int(r['num_trajs'])))
        outcome = ['not run', ''] if found is None else [score(found), 'yes' if found >= float(r['predicted'].split()[-1]) else 'no']
        lines.append([f'`gail_{r["experiment"]}`', r['task'], r['num_trajs'], r['predicted'], *outcome, f'`{r["commit"]}`'])
    return table(['experiment', 'task', 'trajectories', 'predicted score', 'score', 'reached', 'commit'], lines, words=2)


def causes_table(blocks: Blocks) -> str:
    """A line per setting of gail/causes.csv: the predicted mean return, and what was found in gail/causes.h5."""
    with open(f'{blocks.root}/gail/causes.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    a = blocks.analysis('gail/causes') if 'gail/causes' in blocks.between else None
    cells = {} if a is None else {k.alg: c for k, c in a.cells.items()}
    lines = []
    for r in rows:
        expected = f'{r["from"]} to {r["to"]}' if r['from'] else f'below {r["to"]}'
        found = ['not run', '', '', '']
        if a is not None and (c := cells.get(r['algorithm'])) is not None:
            scores_N = next(iter(a.baselines.values())).score(c.y_N)
            found = [
                f'{number(c.mean, 0)} ({", ".join(number(y, 0) for y in sorted(c.y_N))})',
                score(scores_N.mean()),
                expected,
                outcome_of(r, c.mean),
            ]
        lines.append([r['changed'], *found])
    return table(['changed', 'mean return (runs)', 'score', 'predicted', 'outcome'], lines)


def outcome_of(row: dict[str, str], found: float) -> str:
    """Where a number lies next to the range that a row predicted."""
    return 'lower' if row['from'] and found < float(row['from']) else 'higher' if found > float(row['to']) else 'as predicted'


def missed_table(blocks: Blocks) -> str:
    """A line per row of gail/missed.csv: mean return and runs, mean and lowest score of gail/missed.h5, and the predicted score."""
    with open(f'{blocks.root}/gail/missed.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    a, lines = blocks.analysis('gail/missed'), []
    cells = {(k.task, k.alg): c for k, c in a.cells.items()}
    for r in rows:
        expected = f'{r["from"]} to {r["to"]}'
        if (c := cells.get((r['task'], r['algorithm']))) is None:
            lines.append([r['task'], r['changed'], 'not run', '', '', expected, ''])
            continue
        d = decimals_of(a, r['task'])
        score_N = a.baselines[r['task']].score(c.y_N)
        returns = f'{number(c.mean, d)} ({", ".join(number(y, d) for y in np.sort(c.y_N))})'
        lines.append([r['task'], r['changed'], returns, score(score_N.mean()), score(score_N.min()), expected,
                      outcome_of(r, score_N.mean()) if score_N.size == RUNS else f'{score_N.size} of {RUNS} runs'])  # fmt: skip
    return table(['task', 'changed', 'mean return (runs)', 'score', 'lowest run', 'predicted', 'outcome'], lines, words=2)


def screened_table(blocks: Blocks) -> str:
    """A line per change of gail/missed_screened.csv: the return of each run on each task."""
    with open(f'{blocks.root}/gail/missed_screened.csv', newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    tasks, found = list(dict.fromkeys(r['task'] for r in rows)), {}
    for r in rows:
        found.setdefault(r['changed'], {t: [] for t in tasks})[r['task']].append(number(float(r['return']), 0))
    return table(['changed', *tasks], [[changed, *map(', '.join, by.values())] for changed, by in found.items()])


WHOLE = {
    'gail-causes': causes_table,
    'gail-missed': missed_table,
    'gail-screened': screened_table,
    'sample-efficiency': efficiency_table,
    'gail-mujoco': functools.partial(gail_table, files=('gail/paper', 'gail/ant')),
    'gail-classic': functools.partial(gail_table, files=('gail/classic',)),
    'gail-predictions': prediction_table,
    'gail-from-cloning': functools.partial(starts_table, name='from_cloning'),
    'gail-lander': functools.partial(starts_table, name='lander'),
    'claims': claims_table,
    'agreement': agreement_overview,
    'preregistration': registration_table,
    'labels': label_table,
    'transfer': transfer_table,
    'reward-shift': shift_table,
}
