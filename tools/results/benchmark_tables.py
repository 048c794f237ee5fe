"""Tables from the CSV files of benchmarks: the labels that DAgger and cloning need, and rewards on another body."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.dagger_labels import ALGORITHMS, KEPT, needed
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
