"""Pictures of an analysis: Figure 1 of the paper, the same in raw returns, and every cell next to its reference.

Figures are built without a screen (matplotlib's Agg); colours are those of Okabe and Ito, told apart with any colour vision, and every
algorithm also has its own marker and line style.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import os
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policyopt.algorithms import ALGORITHMS, label_of
from policyopt.errors import UserError
from policyopt.files.atomic import check_output, replacing
from policyopt.reporting.analysis import Analysis, Cell
from policyopt.reporting.reference import FAILED, CellKey

MIN_RUNS = 4  # a t interval over fewer runs is too wide for the axis
_BAND = f'band: its 95% interval within the lowest and the highest run (fewer than {MIN_RUNS} runs: from the lowest to the highest)'
WIDE = 8.6  # inches: at a width of 420 pixels the letters are still readable
MIN_SPAN = 0.25  # an axis of returns spans at least this share of (expert − random)
FAILED_COLOUR = '#B00020'
FORMATS = ('png', 'pdf', 'svg')
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#8C6D1F')
_DASHES = ('-', '--', '-.', ':', (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)), (0, (1, 2)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '*')
GREY = '#6e7781'
_THIN: Any = {'linewidth': 0.9, 'marker': '.', 'markersize': 4}  # the reference's curve; the marker shows a single point
STYLE: Any = {'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True, 'grid.color': '#e6e6e6', 'grid.linewidth': 0.8,
          'axes.axisbelow': True, 'font.size': 12, 'axes.titlesize': 12}  # fmt: skip


def styles_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{name: dict of colour, linestyle, marker}, the same in every picture for an algorithm of the table in algorithms.py."""
    taken = {ALGORITHMS[n].colour for n in names if n in ALGORITHMS}
    # unused colours first; a colour used again gets another line style
    looks = ((i, (i + turn) % len(_DASHES)) for turn in itertools.count() for i, c in enumerate(COLOURS) if turn or c not in taken)
    out = {}
    for name in names:
        if row := ALGORITHMS.get(name):
            out[name] = {'color': row.colour, 'linestyle': row.line, 'marker': row.marker}
        else:
            i, k = next(looks)
            out[name] = {'color': COLOURS[i], 'linestyle': _DASHES[k], 'marker': _MARKERS[k]}
    return out


@contextlib.contextmanager
def any_letters() -> Iterator[None]:
    """Suppress matplotlib's warning about letters that its font lacks; it draws boxes for them."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from', UserWarning)
        yield


class Kind(NamedTuple):
    """A kind of picture: its caption, the function that draws it, and one that says why an analysis lacks what it shows ('' if not)."""

    caption: str
    draw: Callable[[Any], Figure]
    reason: Callable[[Any], str]


def figure(width: float, height: float, rows: int, cols: int, on_screen: bool = False) -> tuple[Figure, Any]:
    """A figure of that size in inches with rows × cols axes, in the style of all pictures; `on_screen` hands it to pyplot's window."""
    with matplotlib.rc_context(STYLE):
        if on_screen:
            from matplotlib import pyplot

            fig = pyplot.figure('policyopt', figsize=(width, height), layout='constrained', clear=True)
        else:
            fig = Figure(figsize=(width, height), layout='constrained')
            FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, cols, squeeze=False)


def picture_text(name: str, most: int = 40) -> str:
    """A name as matplotlib draws it: no formula between dollars, nothing that hides it from a legend, at most so many characters."""
    name = name if len(name) <= most else name[: most - 1] + '…'
    return ('\u200a' if name.startswith('_') else '') + name.replace('$', r'\$')


def has_screen() -> bool:
    """Whether pyplot finds a window system to draw on."""
    from matplotlib import pyplot

    backend = pyplot.get_backend().lower()
    # what names a module or is called inline belongs to a notebook, whose environment a command may have inherited
    return backend not in ('agg', 'pdf', 'svg', 'ps', 'cairo', 'template', 'inline') and not backend.startswith('module://')


def show_windows(seconds: float | None = None) -> bool:
    """Show the figure made with `on_screen` until its window is closed, or for some seconds; whether it is still open."""
    from matplotlib import pyplot

    if seconds is None:
        pyplot.show()
    else:
        pyplot.pause(seconds)
    return bool(pyplot.get_fignums())


def published_name(analysis: Analysis) -> str:
    """The name of the published results in a picture."""
    return 'paper' if '/paper/' in analysis.title else 'published'


def picture_name(alg: str, width: int = 40) -> str:
    """An algorithm in words, without its name in YAML files, folded to `width` letters a line."""
    words = label_of(alg).removesuffix(f' ({alg})')
    return '\n'.join(textwrap.wrap(picture_text(words), width))


def _curves(analysis: Analysis, normalised: bool) -> Figure:
    tasks, algs = list(analysis.baselines), list(dict.fromkeys(k.alg for k in analysis.cells))
    style = styles_of(algs)
    cols = min(len(tasks), 4 if len(tasks) == 4 else 3)
    rows = -(-len(tasks) // cols)
    fig, axes = figure(WIDE if cols > 1 else 5.6, 2.5 * rows + 1.0, rows, cols)
    for ax in axes.flat[len(tasks) :]:
        ax.set_visible(False)
    few = max(len(c.y_N) for c in analysis.cells.values()) < MIN_RUNS
    for number, (ax, task) in enumerate(zip(axes.flat, tasks, strict=False)):
        if normalised:
            share_y(ax, axes, number % cols == 0)
        base = analysis.scales[task]
        scaled = base.score if normalised else np.asarray
        sizes = sorted({k.num_trajs for k in analysis.cells if k.task == task})
        for i, alg in enumerate(algs):
            cells = [c for k, c in analysis.cells.items() if (k.task, k.alg) == (task, alg)]
            if not cells:
                continue
            # a small sideways shift keeps curves apart where several algorithms reach the expert
            x = np.array([c.key.num_trajs for c in cells]) + (i - (len(algs) - 1) / 2) * (0.022 * (max(sizes) - min(sizes)) or 0.04)
            mean, lo, hi = scaled([(c.mean, *_spread(c, few)) for c in cells]).T
            if len(cells) > 1:
                ax.fill_between(x, lo, hi, color=style[alg]['color'], alpha=0.15, linewidth=0)
            else:
                ax.vlines(x, lo, hi, color=style[alg]['color'], linewidth=1.2)
            ax.plot(x, mean, label=picture_name(alg), markersize=5.5, linewidth=1.8, **style[alg])
            theirs = [(at, analysis.reference[c.key].mean) for at, c in zip(x, cells, strict=True) if c.key in analysis.reference]
            if theirs:
                at, ref = np.array(theirs).T
                ax.plot(at, scaled(ref), color=style[alg]['color'], alpha=0.9, zorder=1.8, **_THIN)
        ax.axhline(scaled(base.expert_mean), color=GREY, linewidth=1.2, linestyle='--', zorder=1.5, label='expert')
        if math.isfinite(base.random_mean):
            ax.axhline(scaled(base.random_mean), color=GREY, linewidth=1.2, linestyle=':', zorder=1.5, label='random policy')
        if any(k in analysis.reference for k in analysis.cells):
            ax.plot([], [], color=GREY, label=f'{published_name(analysis)} (thin)', **_THIN)
        ax.set_title(picture_text(task))
        ax.set_xticks(sizes)
        pad = 0.07 * (max(sizes) - min(sizes)) or 0.5
        ax.set_xlim(min(sizes) - pad, max(sizes) + pad)
        if number + cols >= len(tasks):
            ax.set_xlabel('expert trajectories' if cols < 4 else 'trajectories')
        if number % cols == 0:
            ax.set_ylabel('score' if normalised else 'mean return')
    outside_legend(fig, axes, 5)
    return fig


def share_y(ax: Any, axes: Any, numbered: bool) -> None:
    """Share the vertical axis of the first panel; only the first column has numbers. Call it before anything is drawn."""
    if ax is not axes[0, 0]:
        ax.sharey(axes[0, 0])
    ax.tick_params(labelleft=numbered)


def outside_legend(fig: Figure, axes: Any, cols: int) -> None:
    """Draw one legend below all axes, each label once, in at most `cols` columns, fewer if they would be wider than the figure."""
    entries = {}
    for ax in axes.flat:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for num in range(min(cols, len(entries)), 0, -1):
        legend = fig.legend(entries.values(), entries.keys(), loc='outside lower center', ncols=num, fontsize=11, frameon=False)
        if num == 1 or legend.get_window_extent().width <= fig.bbox.width:
            break
        legend.remove()


def _reproduction(analysis: Analysis) -> Figure:
    keys = list(analysis.comparisons)
    tasks = list(dict.fromkeys(k.task for k in keys))
    style = styles_of(list(dict.fromkeys(k.alg for k in keys)))
    most = max(sum(k.task == t for k in keys) for t in tasks)
    fig, axes = figure(min(WIDE, max(5.6, 0.4 * most + 1.6)), 2.9 * len(tasks) + 1.2, len(tasks), 1)
    for ax, task in zip(axes.flat, tasks, strict=True):
        mine = [k for k in keys if k.task == task]
        algs = list(dict.fromkeys(k.alg for k in mine))
        x = {}
        for a, alg in enumerate(algs):
            for k in (k for k in mine if k.alg == alg):
                x[k] = len(x) + 0.8 * a
        for k in mine:
            _cell(ax, x[k], analysis, k, style[k.alg])
        ax.axhline(analysis.scales[task].expert_mean, color=GREY, linewidth=1.2, linestyle='--', zorder=1.5, label='expert')
        ax.set_xticks(list(x.values()), [str(k.num_trajs) for k in x])
        for alg in algs:
            ax.annotate(
                picture_text(alg),
                (np.mean([x[k] for k in mine if k.alg == alg]), 0),
                (0, -20),
                xycoords=('data', 'axes fraction'),
                textcoords='offset points',
                ha='center',
                va='top',
                color=style[alg]['color'],
                fontweight='bold',
                annotation_clip=False,
            )
        ax.set_xlim(-0.8, max(x.values()) + 0.8)
        _honest_limits(ax, analysis, mine)
        ax.grid(axis='x', visible=False)
        ax.set_title(picture_text(task))
        ax.set_ylabel('mean return')
    axes.flat[-1].set_xlabel('expert trajectories, by algorithm', labelpad=20)
    outside_legend(fig, axes, 3)
    return fig


def _cell(ax: Any, x: float, analysis: Analysis, key: CellKey, style: dict[str, Any]) -> None:
    """Draw a cell of the reproduction figure: our runs, mean and interval of the test on the left, the published ones on the right."""
    cell, comp, scale = analysis.cells[key], analysis.comparisons[key], analysis.scales[key.task]
    colour, marker = style['color'], style['marker']
    if comp.differs:
        ax.axvspan(x - 0.45, x + 0.45, color='#F0E442', alpha=0.45, linewidth=0, label='differs (5%, Holm)')
    for half, alpha in ((comp.half_holm, 0.13), (comp.test.half_width(0.95), 0.28)):
        if math.isfinite(half):
            ax.bar(x, 2 * half, 0.7, cell.mean - half, color=colour, alpha=alpha, linewidth=0, zorder=1.2)
    theirs = comp.ref.y_M if comp.ref.y_M is not None else np.array([])
    for at, runs, dot in ((x - 0.17, cell.y_N, colour), (x + 0.17, theirs, GREY)):
        failed = scale.score(runs) <= FAILED
        ax.plot(np.full(runs.size, at), runs, '.', color=dot, alpha=0.4, markersize=4)
        if failed.any():
            ax.plot(
                np.full(failed.sum(), at),
                runs[failed],
                'x',
                color=FAILED_COLOUR,
                markersize=6,
                zorder=5,
                label='failed run',
            )
            if failed.sum() > 1:
                ax.annotate(str(failed.sum()), (at, runs[failed].max()), (0, 4), textcoords='offset points', ha='center', fontsize=8)
    ax.plot(x - 0.17, cell.mean, marker, color=colour, markersize=6, label=f'ours, {picture_name(cell.key.alg)}')
    ax.plot(x + 0.17, comp.ref.mean, marker, color=GREY, markerfacecolor='white', markersize=6, label=f'{published_name(analysis)} (open)')


def _honest_limits(ax: Any, analysis: Analysis, keys: list[CellKey]) -> None:
    """Let the axis hold all runs and span at least a quarter of (expert − random), so that small differences look small."""
    scale = analysis.scales[keys[0].task]
    refs = [analysis.comparisons[k].ref for k in keys]
    runs = [analysis.cells[k].y_N for k in keys] + [[r.mean] if r.y_M is None else r.y_M for r in refs]
    y = np.concatenate([*runs, [scale.expert_mean]])
    lack = max(0.0, np.nan_to_num(MIN_SPAN * abs(scale.width)) - np.ptp(y))
    pad = 0.06 * (np.ptp(y) + lack) or 1.0
    ax.set_ylim(y.min() - lack / 2 - pad, y.max() + lack / 2 + pad)


def _spread(cell: Cell, few: bool) -> tuple[float, float]:
    """(low, high) of a cell's band: the 95% t interval of the mean, cut to the range of its runs; few: that range.

    A mean is never better than the best run. Without the cut, a failed run could widen the symmetric interval beyond the best run.
    """
    low, high = cell.y_N.min(), cell.y_N.max()
    margin = np.inf if few else np.nan_to_num(cell.half_width)
    return max(low, cell.mean - margin), min(high, cell.mean + margin)


def check_picture(path: str, inputs: Iterable[str | None] = ()) -> None:
    """Raise UserError unless a picture can be written at `path`."""
    if (suffix := _suffix(path)) not in FORMATS:
        raise UserError(f"{path}: cannot write a picture of the kind '{suffix}'; expected a name that ends in .{', .'.join(FORMATS)}")
    check_output(path, 'the picture', inputs)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower().lstrip('.')


@any_letters()
def save_figure(fig: Figure, path: str) -> None:
    """Write the figure whole or not at all; its kind is the suffix. PDF and SVG carry no date, so the same data give the same file."""
    suffix = _suffix(path)
    # with a fixed salt, the ids in an SVG are the same every time
    with replacing(path) as tmp, matplotlib.rc_context({'svg.hashsalt': 'policyopt'}):
        fig.savefig(tmp, format=suffix, dpi=150, metadata={'pdf': {'CreationDate': None}, 'svg': {'Date': None}}.get(suffix))


@any_letters()
def png_bytes(fig: Figure) -> bytes:
    """The figure as PNG, for a page that carries its pictures."""
    out = io.BytesIO()
    fig.savefig(out, format='png', dpi=110)
    return out.getvalue()


def _no_score(analysis: Analysis) -> str:
    return (reason := analysis.without_scores()) and f'{reason}, or draw the raw returns with --kind raw'


def no_reference(analysis: Analysis) -> str:
    """Why nothing can be drawn next to published results, '' if it can."""
    return '' if analysis.comparisons else 'it needs --reference with numbers for these cells (results/paper/results_per_run.csv)'


KINDS = {
    'figure1': Kind(
        f'score (0 random policy, 1 expert) against the number of expert trajectories; line: mean over runs; {_BAND}; thin: published',
        functools.partial(_curves, normalised=True),
        _no_score,
    ),
    'raw': Kind(
        f'return against the number of expert trajectories; line: mean over runs; {_BAND}; thin: published',
        functools.partial(_curves, normalised=False),
        lambda analysis: '',
    ),
    'reproduction': Kind(
        'return of every cell, ours (filled) next to the published (open); small dots: runs; cross: failed run; '
        "bar: 95% interval that judges, paler at Holm's first step",
        _reproduction,
        no_reference,
    ),
}


@any_letters()
@matplotlib.rc_context(STYLE)
def results_figure(analysis: Analysis, kind: str, kinds: Mapping[str, Kind] = KINDS) -> Figure:
    """The figure of that kind. Raises UserError where the analysis lacks what it shows."""
    if reason := kinds[kind].reason(analysis):
        raise UserError(f'--kind {kind}: {reason}')
    return kinds[kind].draw(analysis)
