"""Whether the shift of the linear rewards keeps them from learning: the preregistered test, from training logs and their evaluation."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING

import numpy as np

from policyopt.files.names import name_of, parts_of
from policyopt.files.training_log import read_log
from policyopt.reporting.reference import CellKey
from tools.results.words import name_of_algorithm, signed, table

if TYPE_CHECKING:
    from tools.results.documents import Blocks

FILE, LOGS = 'linear_rewards/results', 'linear_rewards/curves'
SHIFTS = {'': 'running, as in 2016', '_batch': "the batch's", '_none': 'none'}
LAST, LEAST = 20, 0.05  # iterations that the return in training is averaged over; difference in scores that decides


def training_returns(folder: str) -> dict[tuple[str, int, str], np.ndarray]:
    """{(task, trajectories, algorithm): mean true return of the last iterations of each run} of a folder of logs."""
    found: dict[tuple[str, int, str], list[float]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5'))):
        run = parts_of(name_of(path))
        found.setdefault((run['task'], int(run['num_trajs']), run['alg']), []).append(float(read_log(path)['trueret'][-LAST:].mean()))
    return {cell: np.array(returns) for cell, returns in found.items()}


def decision(other_R: np.ndarray, running_R: np.ndarray, width: float) -> str:
    """Whether the running bound lowers the return: yes, no, or too few data; not tested where there are single runs."""
    if min(len(other_R), len(running_R)) < 2:
        return 'not tested'
    if other_R.min() > running_R.max() and (other_R.mean() - running_R.mean()) / width >= LEAST:
        return 'yes'
    return 'no' if other_R.mean() <= running_R.mean() else 'too few data'


def shift_table(blocks: Blocks) -> str:
    """A line per cell and shift: the return in training of each run, its difference in scores to the running bound, and the decision."""
    analysis, returns = blocks.analysis(FILE), training_returns(f'{blocks.root}/{LOGS}')
    lines = []
    for task, size in dict.fromkeys(cell[:2] for cell in sorted(returns)):
        scale = analysis.baselines[task]
        width = scale.expert_mean - scale.random_mean
        for alg in ('fem', 'simplex'):
            for suffix, words in SHIFTS.items():
                runs, running = (returns.get((task, size, alg + s), np.zeros(0)) for s in (suffix, ''))
                if not runs.size:
                    continue
                compared = (
                    [signed((runs.mean() - running.mean()) / width), decision(runs, running, width)]
                    if suffix and running.size
                    else ['', '']
                )
                played = analysis.cells[CellKey(task, alg + suffix, size)].y_N
                lines.append([task, size, name_of_algorithm(alg), words, _numbers(runs), *compared, _numbers(played)])
    heads = [
        'task',
        'trajectories',
        'algorithm',
        'bound',
        'return in training',
        'score minus running',
        'running lowers it',
        'most likely actions',
    ]
    return table(heads, lines, words=4)


def _numbers(x_R: np.ndarray) -> str:
    return ', '.join(f'{x:.0f}' for x in x_R)
