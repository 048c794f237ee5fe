"""Pictures of an analysis: Figure 1 of the paper, the same in raw returns, and ours against the reference.

Figures are built without a screen (matplotlib's Agg); colours are those of Okabe and Ito, told apart with any colour vision, and every
algorithm also has its own marker and line style.
"""

import io
import math
import os

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policyopt.algorithms import ALGORITHMS, label_of
from policyopt.util import UserError, check_output, replacing

KINDS = {
    'figure1': 'normalised score against number of expert trajectories (0 = random policy, 1 = expert), mean over runs and its interval',
    'raw': 'mean return against number of expert trajectories, over runs and its interval',
    'reproduction': 'ours (filled) against the reference (open): mean return and 95% interval over runs, every cell',
}
MIN_RUNS = 4  # a t interval over fewer runs is wider than any axis
FORMATS = ('png', 'pdf', 'svg')
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#8C6D1F')
_DASHES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 2)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
_GREY = '#6e7781'
_STYLE = {'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#e6e6e6', 'grid.linewidth': 0.8,
          'axes.axisbelow': True, 'font.size': 10, 'axes.titlesize': 11}  # fmt: skip


def styles_of(names):
    """{name: dict of colour, linestyle, marker}, the same in every picture for an algorithm of the table in algorithms.py."""
    rows = {n: ALGORITHMS[n] for n in names if n in ALGORITHMS}
    free = iter([i for i, colour in enumerate(COLOURS) if colour not in {row.colour for row in rows.values()}])
    out = {}
    for name in names:
        if name in rows:
            out[name] = {'color': rows[name].colour, 'linestyle': rows[name].line, 'marker': rows[name].marker}
        else:
            i = next(free, len(out) % len(COLOURS))
            out[name] = {'color': COLOURS[i], 'linestyle': _DASHES[i], 'marker': _MARKERS[i]}
    return out


def results_figure(analysis, kind):
    """The figure of that kind ('figure1', 'raw' or 'reproduction').

    Raises UserError when figure1 lacks random-policy returns, or reproduction a reference.
    """
    if kind == 'figure1' and (reason := analysis.without_scores()):
        raise UserError(f'{reason}, or draw the raw returns with --kind raw')
    if kind == 'reproduction':
        if not analysis.comparisons:
            raise UserError('the reproduction plot needs --reference with numbers for these cells (results/paper/results_per_run.csv)')
        return _reproduction(analysis)
    return _curves(analysis, normalised=kind == 'figure1')


def figure(width, height, rows, cols, on_screen=False):
    """A figure of that size in inches with rows × cols axes, in the style of all pictures; `on_screen` hands it to pyplot's window."""
    with matplotlib.rc_context(_STYLE):
        if on_screen:
            from matplotlib import pyplot

            fig = pyplot.figure('policyopt', figsize=(width, height), layout='constrained', clear=True)
        else:
            fig = Figure(figsize=(width, height), layout='constrained')
            FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, cols, squeeze=False)


def has_screen():
    """Whether pyplot finds a window system to draw on."""
    from matplotlib import pyplot

    return pyplot.get_backend().lower() not in ('agg', 'pdf', 'svg', 'ps', 'cairo', 'template')


def show_windows(seconds=None):
    """Show the figure made with `on_screen` until its window is closed, or for some seconds; whether it is still open."""
    from matplotlib import pyplot

    if seconds is None:
        pyplot.show()
    else:
        pyplot.pause(seconds)
    return bool(pyplot.get_fignums())


def _curves(analysis, normalised):
    tasks, algs = list(analysis.baselines), list(dict.fromkeys(k.alg for k in analysis.cells))
    style = styles_of(algs)
    cols = min(len(tasks), 3)
    rows = -(-len(tasks) // cols)
    fig, axes = figure(max(5.6, 3.7 * cols), 3.2 * rows + 0.9, rows, cols)
    for ax in axes.flat[len(tasks) :]:
        ax.set_visible(False)
    few = max(len(c.y_N) for c in analysis.cells.values()) < MIN_RUNS
    for ax, task in zip(axes.flat, tasks, strict=False):
        base = analysis.baselines[task]
        sizes = sorted({k.num_trajs for k in analysis.cells if k.task == task})
        for i, alg in enumerate(algs):
            cells = [c for k, c in analysis.cells.items() if (k.task, k.alg) == (task, alg)]
            if not cells:
                continue
            # a small sideways shift keeps curves apart where several algorithms reach the expert
            x = np.array([c.key.num_trajs for c in cells]) + (i - (len(algs) - 1) / 2) * _shift(sizes)
            mean = np.array([c.mean for c in cells])
            lo, hi = np.array([_spread(c, few) for c in cells]).T
            if normalised:
                mean, lo, hi = (base.score(v) for v in (mean, lo, hi))
            if len(cells) > 1:
                ax.fill_between(x, lo, hi, color=style[alg]['color'], alpha=0.15, linewidth=0)
            else:
                ax.vlines(x, lo, hi, color=style[alg]['color'], linewidth=1.2)
            ax.plot(x, mean, label=label_of(alg), markersize=5.5, linewidth=1.8, **style[alg])
        expert, random = (1.0, 0.0) if normalised else (base.expert_mean, base.random_mean)
        ax.axhline(expert, color=_GREY, linewidth=1.2, linestyle='--', zorder=1.5, label='expert')
        if math.isfinite(random):
            ax.axhline(random, color=_GREY, linewidth=1.2, linestyle=':', zorder=1.5, label='random policy')
        ax.set_title(task)
        ax.set_xticks(sizes)
        pad = 0.07 * (max(sizes) - min(sizes)) or 0.5
        ax.set_xlim(min(sizes) - pad, max(sizes) + pad)
        ax.set_xlabel('expert trajectories')
        ax.set_ylabel('score (0 random, 1 expert)' if normalised else 'mean return per episode')
    subtitle(fig, 'mean over runs; band or bar: ' + ('lowest to highest run' if few else 'its 95% t interval'))
    outside_legend(fig, axes, 3 if cols > 1 else 2)
    return fig


def _shift(sizes):
    return 0.022 * (max(sizes) - min(sizes)) if len(sizes) > 1 else 0.04


def subtitle(fig, text):
    """A small line above all axes that says how to read them; none for an empty text."""
    if text:
        fig.suptitle(text, fontsize=9, color=_GREY)


def outside_legend(fig, axes, cols):
    """One legend below all axes, each label once."""
    entries = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    fig.legend(entries.values(), entries.keys(), loc='outside lower center', ncols=cols, fontsize=9, frameon=False)


def _reproduction(analysis):
    keys = list(analysis.comparisons)
    tasks = list(dict.fromkeys(k.task for k in keys))
    style = styles_of(list(dict.fromkeys(k.alg for k in keys)))
    most = max(sum(k.task == t for k in keys) for t in tasks)
    fig, axes = figure(max(6.0, 0.52 * most + 2.2), 2.7 * len(tasks) + 0.7, len(tasks), 1)
    for ax, task in zip(axes.flat, tasks, strict=True):
        mine = [k for k in keys if k.task == task]
        algs = list(dict.fromkeys(k.alg for k in mine))
        x = {}
        for a, alg in enumerate(algs):
            for k in (k for k in mine if k.alg == alg):
                x[k] = len(x) + 0.8 * a
        for k in mine:
            cell, comp = analysis.cells[k], analysis.comparisons[k]
            colour, marker = style[k.alg]['color'], style[k.alg]['marker']
            if comp.verdict == 'differs':
                ax.axvspan(x[k] - 0.45, x[k] + 0.45, color='#F0E442', alpha=0.45, linewidth=0, label='differs (5%, Holm)')
            ax.plot(np.full(cell.y_N.size, x[k] - 0.17), cell.y_N, '.', color=colour, alpha=0.35, markersize=4)
            ax.errorbar(
                x[k] - 0.17,
                cell.mean,
                _bar(cell.margin),
                fmt=marker,
                color=colour,
                markersize=6,
                capsize=3,
                label=f'ours, {label_of(k.alg)}',
            )
            if comp.ref.y_M is not None:
                ax.plot(np.full(comp.ref.m, x[k] + 0.17), comp.ref.y_M, '.', color=_GREY, alpha=0.45, markersize=4)
            ax.errorbar(
                x[k] + 0.17,
                comp.ref.mean,
                _bar(comp.ref.margin),
                fmt=marker,
                color=_GREY,
                markerfacecolor='white',
                markersize=6,
                capsize=3,
                label='reference (open)',
            )
        ax.axhline(analysis.baselines[task].expert_mean, color=_GREY, linewidth=1.2, linestyle='--', zorder=1.5, label='our expert')
        ax.set_xticks(list(x.values()), [str(k.num_trajs) for k in x])
        ax.set_xlim(-0.8, max(x.values()) + 0.8)
        ax.grid(axis='x', visible=False)
        ax.set_title(task)
        ax.set_ylabel('mean return per episode')
    axes.flat[-1].set_xlabel('expert trajectories, by algorithm')
    subtitle(fig, 'mean over runs with its 95% t interval; small dots: single runs')
    outside_legend(fig, axes, 3)
    return fig


def _spread(cell, few):
    """(low, high) of a cell's band: the 95% t interval of the mean, or the range of its runs where they are too few for one."""
    if few:
        return cell.y_N.min(), cell.y_N.max()
    margin = np.nan_to_num(cell.margin)
    return cell.mean - margin, cell.mean + margin


def _bar(margin):
    return margin if math.isfinite(margin) else None


def picture_path(path, default, inputs=()):
    """`path` or the default, after checking that a picture can be written there. Raises UserError otherwise."""
    path = path or default
    suffix = os.path.splitext(path)[1].lower().lstrip('.')
    if suffix not in FORMATS:
        raise UserError(f"{path}: cannot write a picture of the kind '{suffix}'; expected a name that ends in .{', .'.join(FORMATS)}")
    check_output(path, 'the picture', inputs)
    return path


def save_figure(fig, path):
    """Write the figure whole or not at all; its kind is the suffix. PDF and SVG carry no date, so the same data give the same file."""
    suffix = os.path.splitext(path)[1].lower().lstrip('.')
    # without a salt of its own an SVG names its parts at random
    with replacing(path) as tmp, matplotlib.rc_context({'svg.hashsalt': 'policyopt'}):
        fig.savefig(tmp, format=suffix, dpi=150, metadata={'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(suffix))


def png_bytes(fig):
    """The figure as PNG, for a page that carries its pictures."""
    out = io.BytesIO()
    fig.savefig(out, format='png', dpi=110)
    return out.getvalue()
