"""Whether the shift of the linear rewards keeps them from learning: the preregistered test, from training logs and their evaluation."""

from __future__ import annotations

import glob
import itertools
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


def last_of_logs(folder: str) -> dict[tuple[str, int, str], np.ndarray]:
    """{(task, trajectories, algorithm): (mean true return of the last iterations, bound at the end) of each run} of a folder of logs."""
    found: dict[tuple[str, int, str], list[tuple[float, float]]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5'))):
        run = parts_of(name_of(path))
        log = read_log(path)
        ends = float(log['trueret'][-LAST:].mean()), float(log['reward_bound'][-1])
        found.setdefault((run['task'], int(run['num_trajs']), run['alg']), []).append(ends)
    return {cell: np.array(ends) for cell, ends in found.items()}


def decision(other_R: np.ndarray, running_R: np.ndarray, width: float) -> str:
    """Whether the running bound lowers the return: yes, no, or too few data; not tested where there are single runs."""
    if min(len(other_R), len(running_R)) < 2:
        return 'not tested'
    if other_R.min() > running_R.max() and (other_R.mean() - running_R.mean()) / width >= LEAST:
        return 'yes'
    return 'no' if other_R.mean() <= running_R.mean() else 'too few data'


def shift_table(blocks: Blocks) -> str:
    """A line per cell and bound: the return in training of each run, its difference in scores to the running bound, and the decision."""
    analysis, ends = blocks.analysis(FILE), last_of_logs(f'{blocks.root}/{LOGS}')
    lines = []
    for task, size in dict.fromkeys(cell[:2] for cell in sorted(ends)):
        scale = analysis.baselines[task]
        width = scale.expert_mean - scale.random_mean
        for alg, (suffix, words) in itertools.product(('fem', 'simplex'), SHIFTS.items()):
            if (task, size, alg + suffix) not in ends:
                continue
            (runs_R, bound_R), running_R = ends[task, size, alg + suffix].T, ends[task, size, alg][:, 0]
            compared = [signed((runs_R.mean() - running_R.mean()) / width), decision(runs_R, running_R, width)] if suffix else ['', '']
            played_R = analysis.cells[CellKey(task, alg + suffix, size)].y_N
            numbers = [_numbers(runs_R), *compared, _numbers(bound_R, 2), _numbers(played_R)]
            lines.append([f'{task}, {size}', name_of_algorithm(alg), words, *numbers])
    heads = ['cell', 'algorithm', 'bound', 'return in training', 'score minus running', 'running lowers it', 'bound at the end', 'return']
    return table(heads, lines, words=3)


def _numbers(x_R: np.ndarray, decimals: int = 0) -> str:
    return ', '.join(f'{x:.{decimals}f}' for x in x_R)
