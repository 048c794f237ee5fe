"""Tables from the CSV files of benchmarks: labels of DAgger and cloning, rewards on another body, ours beside the package imitation."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.dagger_labels import ALGORITHMS, KEPT, needed
from policyopt.reporting.tables import number
from tools.results.words import table

if TYPE_CHECKING:
    from tools.results.documents import Blocks


def _rows(path: str) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def label_table(blocks: Blocks) -> str:
    """Median labels over seeds from which on a policy stays at 0.95 of the expert, in brackets the seeds that never do."""
    rows, lines = _rows(f'{blocks.root}/dagger/labels.csv'), []
    for task, kept in KEPT.items():
        for every in kept:
            by = {a: np.array(needed(rows, task, a, every)) for a in ALGORITHMS}
            some = {a: float(np.median(x)) for a, x in by.items() if x.size}
            cloning, dagger = (min(m for a, m in some.items() if a.startswith(kind)) for kind in ('bclone', 'dagger'))
            ratio = f'{dagger / cloning:.2f}' if np.isfinite(dagger) else '–'
            lines.append([task, 'each' if every == 1 else f'every {every}th', by['dagger'].size, *map(_needed, by.values()), ratio])
    heads = ['task', 'pairs kept', 'seeds', 'cloning, best weights', 'cloning, last weights', 'DAgger', 'DAgger, fitted anew', 'ratio']
    return table(heads, lines, words=2)


def _needed(found: np.ndarray) -> str:
    if not found.size:
        return ''
    lost, median = int((~np.isfinite(found)).sum()), float(np.median(found))
    return (f'{median:.0f}' if np.isfinite(median) else '–') + (f' ({lost} never)' if lost else '')


def transfer_table(blocks: Blocks) -> str:
    """Mean and lowest score over worlds of a new policy for each reward on each body, and the mean of the imitated policy."""
    rows, lines = _rows(f'{blocks.root}/transfer/transfer.csv'), []
    for reward, body in dict.fromkeys((r['reward'], r['body']) for r in rows):
        mine = [r for r in rows if (r['reward'], r['body']) == (reward, body)]
        new, own = (np.array([float(r[f'score_of_{who}_policy']) for r in mine]) for who in ('new', 'imitated'))
        lines.append([reward.replace('airl', 'AIRL'), body, f'{new.mean():.2f}', f'{new.min():.2f}', f'{own.mean():.2f}'])
    return table(['reward', 'body', 'new policy', 'lowest of ten worlds', 'imitated policy'], lines, words=2)


# (side, algorithm) of a CSV file of peers.py: what it is called
COMPARED = {
    ('ours', 'gail'): '`gail`',
    ('peer', 'gail'): 'GAIL of imitation 1.0.1',
    ('ours', 'ga'): '`ga`, settings of 2016',
    ('ours', 'bc'): '`bclone`',
    ('peer', 'bc'): 'cloning of imitation 1.0.1',
    ('ours', 'dagger'): '`dagger`',
    ('peer', 'dagger'): 'DAgger of imitation 1.0.1',
}
HALFWAY = 100_000  # environment steps


def efficiency_table(blocks: Blocks) -> str:
    """Environment steps, mean return and CPU seconds of what peers.py compared, ± standard deviation over seeds."""
    rows = _rows(f'{blocks.root}/peers/halfcheetah.csv')
    demonstrated = next(float(r['return_mean']) for r in rows if r['side'] == 'expert')
    lines: list[list] = [['expert, the demonstrations', '', '', '', number(demonstrated, 0), '']]
    for key, name in COMPARED.items():
        runs: dict[str, list] = {}  # by seed, the final policy last
        for r in rows:
            if (r['side'], r['algorithm']) == key:
                runs.setdefault(r['seed'], []).append(r)
        if not runs:
            continue
        final = [points[-1] for points in runs.values()]
        half = [p for points in runs.values() for p in points[:-1] if HALFWAY <= int(p['steps']) < 1.05 * HALFWAY]
        seconds = np.mean([float(r['cpu_seconds']) for r in final])
        lines.append([name, len(final), final[0]['steps'], _return(half), _return(final), f'{seconds:.0f}'])
    return table(['algorithm', 'runs', 'steps', f'return after {HALFWAY} steps', 'final return', 'CPU seconds'], lines)


def _return(rows: list[dict[str, str]]) -> str:
    means_S = np.array([float(r['return_mean']) for r in rows])
    spread = f' ± {number(means_S.std(ddof=1), 0)}' if means_S.size > 1 else ''
    return number(means_S.mean(), 0) + spread if means_S.size else ''
