"""Pictures that no command of the product draws: learning curves with the level of the paper, and ours beside the package imitation."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Sequence

import numpy as np

from policyopt.reporting import curves
from policyopt.reporting.figures import figure, outside_legend, save_figure, styles_of
from policyopt.reporting.reference import CellKey, read_reference


def draw_curves(folders: Sequence[str], reference: str, path: str) -> None:
    """Draw the true return of all training logs of some folders, with the paper's mean of each group as a dotted line.

    The paper's is that of finished runs over evaluation episodes, with their most likely actions.
    """
    published = read_reference(reference)
    logs = curves.read_logs([p for folder in folders for p in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5')))])

    def levels(log):
        found = published.get(CellKey(log.parts['task'], log.parts['alg'], int(log.parts['num_trajs'])))
        return {'paper, when finished': found.mean} if found else {}

    save_figure(curves.curves_figure(logs, ['trueret'], group=True, levels=levels), path)


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
            # of cloning and DAgger only the final policy counts
            kept = slice(-1) if label.startswith('GAIL') else slice(-1, None)
            x_S_T, y_S_T = np.moveaxis(np.array([run[kept] for run in runs.values()]), 2, 0)
            x_T = x_S_T.mean(axis=0)
            ax.plot(x_T, y_S_T.mean(axis=0), label=label, markersize=5 if len(x_T) > 1 else 9, **style)
            ax.fill_between(x_T, y_S_T.min(axis=0), y_S_T.max(axis=0), color=style['color'], alpha=0.15, linewidth=0)
        level = next(float(r['return_mean']) for r in rows if r['side'] == 'expert')
        ax.axhline(level, color='#6e7781', linestyle=':', label='expert')
        ax.set(xlabel=words, ylabel='return', xlim=(0, None))
    fig.suptitle('seals/HalfCheetah-v1, 10 demonstrations', fontsize=12)
    outside_legend(fig, axes, 3)
    save_figure(fig, path)
