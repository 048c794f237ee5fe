"""How runs of `gail` begin and end, next to the scores that were predicted: starts from cloning, and signs of the reward."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from policyopt.files.names import settings_of
from policyopt.reporting.tables import decimals_of, number
from tools.results.words import NAMES, table

if TYPE_CHECKING:
    from tools.results.documents import Blocks

WINDOW = 5  # iterations, of 2000 steps each, that a return in training is averaged over


def _read(path: str) -> list[dict[str, str]]:
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def _words(alg: str) -> str:
    """An algorithm of a sweep: `gail`, init_iterations 5."""
    base, settings = settings_of(alg)
    return ', '.join([NAMES.get(base, f'`{base}`'), *(f'`{k} {v}`' for k, v in settings.items())])


def ends_of_curves(path: str) -> dict[tuple[str, str], np.ndarray]:
    """{(task, algorithm): mean over runs of the returns (first, lowest, last) of WINDOW iterations} of a CSV file of export_log.py."""
    runs: dict[tuple[str, str], dict[str, list[float]]] = {}
    for r in _read(path):
        if r['trueret']:
            runs.setdefault((r['task'], r['alg']), {}).setdefault(r['run'], []).append(float(r['trueret']))

    def ends(returns):
        y_W = np.convolve(returns, np.full(WINDOW, 1 / WINDOW), mode='valid')
        return y_W[0], y_W.min(), y_W[-1]

    return {cell: np.mean([ends(returns) for returns in of.values()], axis=0) for cell, of in runs.items()}


def starts_table(blocks: Blocks, name: str) -> str:
    """A line per row of gail/NAME.csv that has runs: returns in training, those and lengths of the last policies, score and prediction."""
    rows, folder = _read(f'{blocks.root}/gail/{name}.csv'), f'{blocks.root}/gail/{name}'
    a, curves = blocks.analysis(f'gail/{name}'), ends_of_curves(f'{folder}_returns.csv')
    lines = []
    for r in rows:
        cell = next((c for k, c in a.cells.items() if (k.task, k.alg) == (r['task'], r['algorithm'])), None)
        if cell is None:
            continue
        d, score = decimals_of(a, r['task']), a.baselines[r['task']].score(cell.y_N).mean()
        ends = [number(y, d) for y in curves.get((r['task'], r['algorithm']), [])] or ['', '', '']
        played = [', '.join(number(y, d) for y in np.sort(cell.y_N)), f'{cell.length_mean:.0f}']
        longest = max(int(run.alg_traj_lengths.max()) for run in cell.rows)
        low, high = float(r['from']), float(r['to'])
        predicted = [f'{low} to {high}', 'yes' if low <= score <= high else 'above' if score > high else 'below']
        lines.append([r['task'], _words(r['algorithm']), *ends, *played, longest, f'{score:.2f}', *predicted])
    heads = ['task', 'algorithm', 'first steps', 'lowest', 'last steps', 'return', 'mean length', 'longest', 'score']
    return table([*heads, 'predicted', 'as predicted'], lines, words=2)
