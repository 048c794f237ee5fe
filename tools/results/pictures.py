"""Pictures that no command of the product draws: learning curves with the level of the paper, and `gail` next to the paper's GAIL."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

import matplotlib

from policyopt.files.results_file import read_results
from policyopt.reporting import curves
from policyopt.reporting.analysis import analyze
from policyopt.reporting.figures import STYLE, WIDE, figure, outside_legend, save_figure, share_y, styles_of
from policyopt.reporting.reference import CellKey, read_reference, read_reference_tasks


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


@matplotlib.rc_context(STYLE)
def draw_gail(files: Sequence[str], reference: str, path: str) -> None:
    """Draw the score of `gail` in those files that exist, a panel per task: mean, lowest and highest run, and the paper's GAIL.

    The scale of ours is the expert that gave the demonstrations, that of the paper the paper's expert.
    """
    published, scales = read_reference(reference), read_reference_tasks(reference)
    cells = {}
    for results in (read_results(file) for file in files if os.path.exists(file)):
        found = analyze(results.rows, results.tasks)
        cells |= {key: found.baselines[key.task].score(cell.y_N) for key, cell in found.cells.items()}
    tasks = list(dict.fromkeys(key.task for key in cells))
    fig, axes = figure(WIDE, 3.5, 1, len(tasks))
    look = styles_of(['gail', 'ga'])
    for ax, task in zip(axes[0], tasks, strict=True):
        share_y(ax, axes, ax is axes[0, 0])
        mine = {key.num_trajs: y_N for key, y_N in cells.items() if key.task == task}
        theirs = {k.num_trajs: float(scales[task].score(ref.mean)) for k, ref in published.items() if (k.task, k.alg) == (task, 'ga')}
        ax.fill_between(
            list(mine), [y.min() for y in mine.values()], [y.max() for y in mine.values()], color=look['gail']['color'], alpha=0.15
        )
        ax.plot(list(mine), [y.mean() for y in mine.values()], label='gail', markersize=5.5, linewidth=1.8, **look['gail'])
        ax.plot(
            list(theirs), list(theirs.values()), '.-', color=look['ga']['color'], linewidth=0.9, markersize=4, label="paper's GAIL (thin)"
        )
        ax.axhline(1, color='#6e7781', linewidth=1.2, linestyle='--', zorder=1.5, label='expert')
        ax.axhline(0, color='#6e7781', linewidth=1.2, linestyle=':', zorder=1.5, label='random policy')
        ax.set_title(task)
        ax.set_xticks(sorted(theirs))
        ax.set_xlabel('trajectories')
    axes[0, 0].set_ylabel('score')
    outside_legend(fig, axes, 4)
    save_figure(fig, path)
