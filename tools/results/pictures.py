"""Pictures that no command of the product draws: learning curves with the paper's level, and `gail` next to other trainers."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from policyopt.files.results_file import read_results
from policyopt.reporting import curves
from policyopt.reporting.analysis import Analysis
from policyopt.reporting.figures import STYLE, WIDE, figure, outside_legend, save_figure, share_y, styles_of
from policyopt.reporting.reference import CellKey, read_reference, read_reference_tasks


def draw_curves(folders: Sequence[str], reference: str, path: str, words: Mapping[str, str]) -> None:
    """Draw the true return of all training logs of some folders, with the paper's mean of each group as a dotted line.

    The paper's is that of finished runs over evaluation episodes, with their most likely actions. The legend calls algorithms by `words`.
    """
    published = read_reference(reference)
    logs = curves.read_logs([p for folder in folders for p in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5')))])

    def levels(log):
        found = published.get(CellKey(log.parts['task'], log.parts['alg'], int(log.parts['num_trajs'])))
        return {'paper, when finished': found.mean} if found else {}

    fig = curves.curves_figure(logs, ['trueret'], group=True, levels=levels)
    for text in fig.legends[0].get_texts():
        text.set_text(words.get(text.get_text(), text.get_text()))
    save_figure(fig, path)


@matplotlib.rc_context(STYLE)
def draw_gail(files: Sequence[str], of_2016: str, reference: str, path: str, steps: tuple[str, str]) -> None:
    """Draw the scores of `gail`, of `ga` and of the paper's GAIL, a panel per task: mean, lowest and highest run.

    Each is relative to the expert that gave the demonstrations: one of ours for `gail`, in those files that exist; else the paper's.
    steps: those of `gail` and of the others, in words.
    """
    published, scales = read_reference(reference), read_reference_tasks(reference)
    cells, drawn = {}, {'gail': f'gail, {steps[0]}', 'ga': f'ga, {steps[1]}'}
    for file in (*files, of_2016):
        if os.path.exists(file):
            results = read_results(file)
            found = Analysis(results.rows, results.tasks)
            scale = scales if file == of_2016 else found.baselines
            cells |= {key: scale[key.task].score(cell.y_N) for key, cell in found.cells.items() if key.alg in drawn}
    tasks = list(dict.fromkeys(key.task for key in cells if key.alg == 'gail'))
    fig, axes = figure(WIDE, 3.5, 1, len(tasks))
    look = styles_of(list(drawn))
    for ax, task in zip(axes[0], tasks, strict=True):
        share_y(ax, axes, ax is axes[0, 0])
        for alg, label in drawn.items():
            mine = {key.num_trajs: y_N for key, y_N in cells.items() if (key.task, key.alg) == (task, alg)}
            low, mean, high = ([f(y) for y in mine.values()] for f in (np.min, np.mean, np.max))
            ax.fill_between(list(mine), low, high, color=look[alg]['color'], alpha=0.15)
            ax.plot(list(mine), mean, label=label, markersize=5.5, linewidth=1.8, **look[alg])
        theirs = {k.num_trajs: float(scales[task].score(ref.mean)) for k, ref in published.items() if (k.task, k.alg) == (task, 'ga')}
        ax.plot(list(theirs), list(theirs.values()), '.-', color='#000000', linewidth=0.9, markersize=4, label=f"the paper's, {steps[1]}")
        ax.axhline(1, color='#6e7781', linewidth=1.2, linestyle='--', zorder=1.5, label='expert')
        ax.axhline(0, color='#6e7781', linewidth=1.2, linestyle=':', zorder=1.5, label='random policy')
        ax.set_title(task)
        ax.set_xticks(sorted(theirs))
        ax.set_xlabel('trajectories')
    axes[0, 0].set_ylabel('score')
    outside_legend(fig, axes, 3)
    save_figure(fig, path)


def draw_efficiency(points: str, path: str) -> None:
    """Draw returns against environment steps and against CPU seconds from a CSV file of peers.py: means, and the range of the runs."""
    with open(points, newline='', encoding='utf-8') as f:
        rows = list(csv.DictReader(f))
    ours = styles_of(['gail', 'ga', 'bclone', 'dagger'])
    drawn = {
        ('ours', 'gail'): ('GAIL', ours['gail']),
        ('peer', 'gail'): ('GAIL of imitation 1.0.1', {'color': '#000000', 'linestyle': '--', 'marker': 'd'}),
        ('ours', 'ga'): ('GAIL (2016)', ours['ga']),
        ('ours', 'bc'): ('behavioural cloning', ours['bclone']),
        ('ours', 'dagger'): ('DAgger', ours['dagger']),
    }
    fig, axes = figure(10, 4.2, 1, 2)
    panels = ('steps', 1000, 'thousand environment steps'), ('cpu_seconds', 1, 'CPU seconds')
    for ax, (column, unit, words) in zip(axes[0], panels, strict=True):
        for key, (label, style) in drawn.items():
            runs: dict[str, list] = {}
            for r in rows:
                if (r['side'], r['algorithm']) == key:
                    runs.setdefault(r['seed'], []).append((float(r[column]) / unit, float(r['return_mean'])))
            if not runs:
                continue
            # of cloning and DAgger the final policy alone; of GAIL not the same policy twice
            curve = label.startswith('GAIL')
            played = [run[:-1] if curve and run[-2][0] > 0.99 * run[-1][0] else run if curve else run[-1:] for run in runs.values()]
            x_S_T, y_S_T = np.moveaxis(np.array(played), 2, 0)
            x_T = x_S_T.mean(axis=0)
            ax.plot(x_T, y_S_T.mean(axis=0), label=label, markersize=5 if curve else 9, clip_on=curve, **style)
            ax.fill_between(x_T, y_S_T.min(axis=0), y_S_T.max(axis=0), color=style['color'], alpha=0.15, linewidth=0)
        level = next(float(r['return_mean']) for r in rows if r['side'] == 'expert')
        ax.axhline(level, color='#6e7781', linestyle=':', label='expert')
        ax.set(xlabel=words, ylabel='return', xlim=(0, None))
    fig.suptitle('seals/HalfCheetah-v1, 10 demonstrations', fontsize=12)
    outside_legend(fig, axes, 3)
    save_figure(fig, path)
