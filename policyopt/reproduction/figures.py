"""Pictures of a study: the difference per algorithm and task as a forest, and performance profiles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from policyopt.reporting import figures
from policyopt.reporting.figures import GREY, Kind, figure, picture_name, picture_text
from policyopt.reporting.tables import estimate, signed
from policyopt.reproduction.study import Study

FOREST_WIDTH = 6.8  # inches
FOREST_SPAN = 0.3  # half the width of a forest; an arrow marks an interval that goes on


def _forest(study: Study) -> Figure:
    """A row per algorithm and one for each of its tasks, with its numbers: interval of 90% thick, of 95% thin, the margin shaded."""
    a = study.aggregate
    rows = []
    for r in a.algs:
        tasks = [b for b in a.blocks if b.alg == r.alg]
        rows += [(r, picture_name(r.alg, 20)), *((b, picture_text(b.task)) for b in tasks if len(tasks) > 1)]
    rows += [(a.whole, 'all cells')] if len(a.algs) > 1 else []
    fig, axes = figure(FOREST_WIDTH, 0.29 * len(rows) + 1.5, 1, 1)
    ax = axes[0, 0]
    style = figures.styles_of([r.alg for r in a.algs])
    reach = max([0.2, *(abs(x) for r, _ in rows for x in (*r.interval(0.95), r.diff) if math.isfinite(x))])
    edge = min(FOREST_SPAN, 1.05 * reach)
    for y, (row, _) in enumerate(rows):
        colour, total = style.get(row.alg, {'color': 'black'})['color'], not row.task
        ax.barh(y, 2 * row.margin, 0.8, -row.margin, color=GREY, alpha=0.16, linewidth=0, zorder=0.5, label='margin')
        for level, width in ((0.95, 1.1), (0.9, 3.2)):
            ax.plot(row.interval(level), [y, y], color=colour, linewidth=width * (1.25 if total else 1), solid_capstyle='butt')
        face = colour if row.sets == 'measured' else 'white'
        ax.plot(row.diff, y, 'D' if total else 'o', color=colour, markerfacecolor=face, markersize=7 if total else 5, zorder=3)
        low, high = row.interval(0.95)
        for side, beyond in ((-1, low < -edge), (1, high > edge)):
            if beyond:
                ax.plot(side * edge, y, '<' if side < 0 else '>', color=colour, markersize=6, clip_on=False, zorder=3)
        said = estimate((row.diff, *row.interval(0.9)), 3, signed).replace('-', '−')
        ax.annotate(said, (1.03, y), xycoords=('axes fraction', 'data'), va='center', fontsize=11,
                    fontweight='bold' if total else 'normal', annotation_clip=False)  # fmt: skip
    ax.axvline(0, color=GREY, linewidth=1.2, zorder=1)
    ax.set_yticks(range(len(rows)), [name for _, name in rows], fontsize=11)
    for label, (row, _) in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_fontweight('normal' if row.task else 'bold')
    ax.set_xlim(-edge, edge)
    ax.locator_params(axis='x', nbins=4)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis='y', visible=False)
    theirs = {'paper': "paper's"}.get(figures.published_name(study), 'published one')
    ax.set_xlabel(f'our score minus the {theirs}')
    ax.annotate('difference [90% interval]', (1.03, 1.0), xycoords='axes fraction', va='bottom', fontsize=11, annotation_clip=False)
    return fig


def _profile(study: Study) -> Figure:
    """Share of runs with at least that score, per algorithm, ours solid and the published dashed (Agarwal et al. 2021, fig. 4)."""
    a = study.aggregate
    cols = min(len(a.algs), 2)
    rows = -(-len(a.algs) // cols)
    fig, axes = figure(6.4 if cols > 1 else 4.6, 2.3 * rows + 0.9, rows, cols)
    style = figures.styles_of([r.alg for r in a.algs])
    for ax in axes.flat[len(a.algs) :]:
        ax.set_visible(False)
    tau = np.linspace(-0.05, 1.1, 231)
    axes[0, 0].plot([], [], color='black', label='ours')  # in the panels it has the colours of the algorithms
    for number, (ax, row) in enumerate(zip(axes.flat, a.algs, strict=False)):
        figures.share_y(ax, axes, number % cols == 0)
        pairs = [p for p in a.pairs if p.key.alg == row.alg and p.ref.y_M is not None]
        for runs, look in (
            ([p.y_N for p in pairs], {'color': style[row.alg]['color']}),
            ([p.ref.y_M for p in pairs], {'color': GREY, 'linestyle': '--', 'label': figures.published_name(study)}),
        ):
            if pairs:
                shares = [np.mean(x[:, None] >= tau, axis=0) for x in runs]
                ax.plot(tau, np.mean(shares, axis=0), **look)
        ax.set_title(picture_name(row.alg))
        ax.set_ylim(-0.03, 1.03)
        if number + cols >= len(a.algs):
            ax.set_xlabel('score')
        if number % cols == 0:
            ax.set_ylabel('runs that reach it')
    figures.outside_legend(fig, axes, 2)
    return fig


def _reason(study: Study) -> str:
    scales = 'it needs expert and random returns: tasks.csv next to the reference, or in the results'
    return figures.no_reference(study) or ('' if study.aggregate else scales)


KINDS = figures.KINDS | {
    'forest': Kind(
        'our score minus the published one, per algorithm and task; thick: 90% interval, thin: 95%; shaded: the margin; '
        'open marker: without the variance between expert sets',
        _forest,
        _reason,
    ),
    'profile': Kind('share of runs that reach a score (0 random policy, 1 expert), ours and the published', _profile, _reason),
}


def pictures_of(study: Study) -> Iterator[tuple[str, bytes]]:
    """(caption, PNG bytes) of every kind of picture that the data allow, those that answer first."""
    for kind in ('forest', 'figure1', *(k for k in KINDS if k not in ('forest', 'figure1'))):
        twice = kind == 'raw' and not study.without_scores()  # it shows the same as figure1
        if not twice and not KINDS[kind].reason(study):
            caption = KINDS[kind].caption
            yield caption[0].upper() + caption[1:], figures.png_bytes(figures.results_figure(study, kind, KINDS))
