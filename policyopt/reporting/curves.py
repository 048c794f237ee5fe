"""Learning curves: reading training logs (finished or still running), grouping, smoothing, one subplot per field.

Letters: R runs of a group, T iterations.
"""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from policyopt.algorithms import label_of
from policyopt.command_line import format_table
from policyopt.errors import UserError, closest, printable
from policyopt.files.names import current_path, is_part, name_of, parts_of, size_of
from policyopt.files.training_log import is_training_log, number_fields, read_log
from policyopt.reporting.figures import STYLE, WIDE, any_letters, figure, outside_legend, picture_text, styles_of

T = TypeVar('T')
DEFAULT_FIELDS = 'trueret,avglen,ent,kl,vf_r2,vf_kl,tdvf_r2,rloss,racc'
CLONING_FIELDS = ',bcloss,valloss,valacc'
MAX_LEGEND = 12  # more names would cover the curves
# in logs of run_rl_mj.py, the true return is called `ret`
_INSTEAD = {'trueret': 'ret'}
MEANING = {
    'trueret': 'true return',
    'iret': 'imitation return',
    'avglen': 'episode length [steps]',
    'ent': 'policy entropy [nats]',
    'kl': 'KL of the policy step',
    'vf_r2': 'value function R² (floored at 0)',
    'vf_kl': 'KL of the value step',
    'tdvf_r2': 'R² of the time mean',
    'rloss': 'discriminator loss',
    'racc': 'discriminator accuracy',
    'bcloss': 'cloning loss',
    'valloss': 'validation loss',
    'ttotal': 'wall time [s]',
    'tsamp': 'sampling time [s]',
    'tstep': 'step time [s]',
    'tadv': 'advantage time [s]',
    'nsa': 'state-action pairs',
    'ret': 'true return',
}


VALACC = {'finite': 'validation log-likelihood', 'continuous': '−squared error of validation actions'}  # by actions of the task


def meaning_of(logs: Sequence[Log], field: str) -> str:
    """The meaning of a field, in words."""
    if field != 'valacc':
        return MEANING.get(field, field)
    return ' or '.join(dict.fromkeys(VALACC[log.actions] for log in logs if log.column('valacc') is not None))


class Log:
    """The rows of one training log up to `range_end`, by column name."""

    def __init__(self, path: str, range_end: int | None = None):
        self.path, self.done = path, not is_part(path)
        table = read_log(path)
        fields = number_fields(table)
        if 'iter' not in fields:
            raise UserError(f"{path}: its table /log has no column 'iter' of numbers; expected a training log")
        keep = slice(None) if range_end is None else table['iter'] <= range_end
        self.table = table[fields][keep]
        name = name_of(path)
        self.name = name + ('' if self.done else ' (running)')
        self.parts = parts_of(name)

    @property
    def actions(self) -> str:
        """The kind of actions of a cloned policy: for finite actions, `valacc` is −valloss."""
        valacc, valloss = self.column('valacc'), self.column('valloss')
        return 'finite' if valacc and valloss and np.array_equal(valacc[1], -valloss[1]) else 'continuous'

    def column(self, field: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(iter_T, x_T) of a field without its NaN rows (cloning logs many); None if the log lacks the field or has only NaN."""
        columns = self.table.dtype.names or ()
        name = field if field in columns else _INSTEAD.get(field)
        if name not in columns:
            return None
        x_T = self.table[name].astype(float)
        if field == 'vf_r2':
            x_T = np.maximum(x_T, 0)
        elif name == 'avglen':
            x_T[x_T < 0] = np.nan  # cloning has no rollouts and logs −1
        known = np.isfinite(x_T)
        return (self.table['iter'][known], x_T[known]) if known.any() else None


def log_paths(paths: Sequence[str]) -> list[str]:
    """The paths that are training logs; others, such as results that *.h5 also matches, are skipped with a note.

    Raises UserError when a file is missing or damaged, or when none is left.
    """
    chosen, notes = [], []
    for path in paths:
        if not os.path.exists(current_path(path)) and glob.has_magic(path):
            notes.append(f'{path}: matches no file')
        elif not is_training_log(current_path(path)):
            notes.append(f'{path}: is no training log')
        else:
            chosen.append(path)
    if not chosen:
        raise UserError(f'{notes[0]}; expected the .h5 of a finished or the .h5.part of a running training')
    for note in notes:
        print(f'note: {printable(note)}: skipped', file=sys.stderr)
    return chosen


def read_logs(paths: Sequence[str], range_end: int | None = None) -> list[Log]:
    """One Log per path, in their order. Raises UserError for a file given twice, or that is no readable log."""
    seen = set()
    for path in paths:
        if os.path.realpath(path) in seen:
            raise UserError(f'{path}: given twice; name every log once')
        seen.add(os.path.realpath(path))
    logs = [Log(path, range_end) for path in paths]
    names = [log.name for log in logs]
    for log in logs:
        if names.count(log.name) > 1:
            log.name = os.path.join(os.path.dirname(log.path), log.name)
    empty = [log.path for log in logs if not len(log.table)]
    if empty:
        limit = '' if range_end is None else f' up to iteration {range_end}'
        raise UserError(f'{empty[0]}: has no row{limit}; leave it out' + (' or raise --range_end' if limit else ''))
    return logs


def readings(paths: Sequence[str], read: Callable[[list[str]], T]) -> Iterator[T]:
    """Yield read(logs) again and again; when a run completes, its log is read from the path without `.part`."""
    while True:
        files = [current_path(path) for path in paths]
        try:
            yield read(files)
        except UserError:
            if files == [current_path(path) for path in paths]:
                raise


def known_fields(logs: Sequence[Log], wanted: str | None = None) -> tuple[list[str], list[str]]:
    """(fields for which a log has numbers, sentences about the other fields).

    `wanted` is comma-separated; None means the default fields, with those of cloning if a log has them.
    """
    have = list(dict.fromkeys(n for log in logs for n in log.table.dtype.names or ()))
    default = DEFAULT_FIELDS + (CLONING_FIELDS if 'valloss' in have else '')
    fields = list(dict.fromkeys(f.strip() for f in (default if wanted is None else wanted).split(',') if f.strip()))
    shown = [f for f in fields if any(log.column(f) is not None for log in logs)]
    empty = [f for f in fields if f not in shown and (f in have or _INSTEAD.get(f) in have)]
    absent = [f for f in fields if f not in shown and f not in empty]
    if not shown:
        raise UserError(f'--fields {",".join(fields)}: none of them has numbers in these logs; they have {", ".join(have)}')
    words = (
        [f'no log has {", ".join(absent)}: skipped.' + ''.join(closest(f, have) for f in absent if wanted is not None)] if absent else []
    )
    return shown, words + ([f'no numbers in {", ".join(empty)}: skipped'] if empty else [])


def last_rows(logs: Sequence[Log], fields: Sequence[str]) -> str:
    """The last row of every log as a table: iteration, then the fields (their last number), one line per log."""
    lines = [['log', 'iter', *fields]]
    for log in logs:
        found = [log.column(f) for f in fields]
        lines.append([log.name, str(log.table['iter'][-1]), *('–' if c is None else f'{c[1][-1]:.5g}' for c in found)])
    return format_table(lines, left=(0,))


def groups_of(logs: Sequence[Log]) -> dict[str, list[Log]]:
    """{label: logs} by algorithm, and by task and dataset size if these differ among the logs (file names of the pipeline).

    Algorithms and tasks in the order of the logs; sizes from small to large, because a shell sorts 11 before 4.
    """
    nameless = [log.path for log in logs if 'alg' not in log.parts]
    if nameless:
        raise UserError(f'{nameless[0]}: --group needs names as the pipeline gives them (alg=…,task=…,num_trajs=…,run=….h5)')
    differ = [k for k in ('task', 'num_trajs') if len({log.parts.get(k) for log in logs}) > 1]

    def kind(log):
        return log.parts['alg'], log.parts.get('task')

    kinds = list(dict.fromkeys(map(kind, logs)))
    groups = {}
    for log in sorted(logs, key=lambda log: (kinds.index(kind(log)), size_of(log.parts))):
        label = ', '.join([log.parts['alg'], *(f'{log.parts.get(k, "?")}' + (' trajectories' if k == 'num_trajs' else '') for k in differ)])
        groups.setdefault(label, []).append(log)
    return groups


def smoothed(x_T: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values at each place (fewer at the start)."""
    total_T = np.concatenate([[0.0], np.cumsum(x_T)])
    end_T = np.arange(1, len(x_T) + 1)
    start_T = np.maximum(end_T - window, 0)
    return (total_T[end_T] - total_T[start_T]) / (end_T - start_T)


def band(logs: Sequence[Log], field: str, window: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """(iter_T, mean, lowest, highest) over the runs that have reached each iteration; None if no log has the field."""
    columns = [c for c in (log.column(field) for log in logs) if c is not None]
    if not columns:
        return None
    iter_T = np.unique(np.concatenate([i for i, _ in columns]))
    x_R_T = np.full((len(columns), len(iter_T)), np.nan)
    for r, (i, x) in enumerate(columns):
        x_R_T[r, np.searchsorted(iter_T, i)] = smoothed(x, window)
    return iter_T, np.nanmean(x_R_T, axis=0), np.nanmin(x_R_T, axis=0), np.nanmax(x_R_T, axis=0)


def panels_of(logs: Sequence[Log], fields: Sequence[str], group: bool) -> list[tuple[str, str, dict[str, list[Log]]]]:
    """[(title, field, {label: its logs})]: one panel per field; for groups also per task, and per dataset size for several algorithms."""
    if not group:
        return [(meaning_of(logs, field), field, {log.name: [log] for log in logs}) for field in fields]
    several = len({log.parts['alg'] for log in logs}) > 1
    parts: dict[tuple[str, str], list[Log]] = {}
    for log in sorted(logs, key=lambda log: size_of(log.parts)):
        parts.setdefault((log.parts.get('task', ''), log.parts.get('num_trajs', '') if several else ''), []).append(log)
    tasks = list(dict.fromkeys(log.parts.get('task', '') for log in logs))
    out = []
    for field in fields:
        for (task, size), mine in sorted(parts.items(), key=lambda item: tasks.index(item[0][0])):
            words = [task] * (len(tasks) > 1) + [f'{size} trajectories'] * (several and len(parts) > len(tasks))
            words += [field] * (len(fields) > 1 or not words)
            out.append((', '.join(words), field, groups_of(mine)))
    return out


@any_letters()
@matplotlib.rc_context(STYLE)
def curves_figure(
    logs: Sequence[Log],
    fields: Sequence[str],
    group: bool = False,
    smooth: int = 1,
    on_screen: bool = False,
    levels: Callable[[Log], Mapping[str, float]] | None = None,
) -> Figure:
    """One panel per field with all logs; for groups, a line for the mean and a band from the lowest to the highest run.

    Args:
        levels: a function that returns {name: return} for a log; each is a horizontal line in the colour of the log's group.
    """
    panels = panels_of(logs, fields, group)
    cols = min(len(panels), 4 if len(panels) == 4 and group else 3)
    rows = math.ceil(len(panels) / cols)
    fig, axes = figure(WIDE if cols > 1 else 6.0, 2.7 * rows + 1.0, rows, cols, on_screen)
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    names = list(dict.fromkeys(label for _, _, lines in panels for label in lines))
    style = styles_of(names)
    shared = f'{logs[0].parts["alg"]}, ' if group and len({log.parts['alg'] for log in logs}) == 1 else ''
    for ax, (title, field, lines) in zip(axes.flat, panels, strict=False):
        for label, members in lines.items():
            drawn, look = band(members, field, smooth), style[label]
            if drawn is None:
                continue
            iter_T, mean_T, lo_T, hi_T = drawn
            if len(members) > 1:
                ax.fill_between(iter_T, lo_T, hi_T, color=look['color'], alpha=0.15, linewidth=0)
            dot = look['marker'] if len(iter_T) == 1 else None
            ax.plot(
                iter_T,
                mean_T,
                color=look['color'],
                linestyle=look['linestyle'] if group else '-',
                marker=dot,
                linewidth=1.4,
                label=picture_text(label_of(label.removeprefix(shared)) if group else label, 150),
            )
        for label, members in lines.items():
            for name, level in (levels(members[0]) if levels else {}).items():
                ax.axhline(level, color=style[label]['color'], linewidth=1, linestyle=':')
                ax.plot([], [], color='#6e7781', linewidth=1, linestyle=':', label=name)
        ax.set_title(picture_text(title))
        ax.xaxis.set_major_locator(MaxNLocator(nbins=4 if cols > 3 else 5, integer=True))
        ax.set_xlabel('iteration')
        if group and (ax in axes[:, 0] or len(fields) > 1):
            ax.set_ylabel(picture_text(meaning_of(logs, field)))
    if len(names) <= MAX_LEGEND:
        outside_legend(fig, axes, 4 if group else min(cols, 2))
    return fig
