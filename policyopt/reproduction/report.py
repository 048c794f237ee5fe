"""The answer to "does it reproduce?" in sentences and short tables, the same for terminal, Markdown and HTML."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from policyopt.reporting.statistics import LEVEL, POWER
from policyopt.reproduction.aggregate import CEILING, MARGIN, MARGIN_GA
from policyopt.reproduction.failures import FAILED
from policyopt.reproduction.negative_controls import SHIFT

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Analysis
    from policyopt.reproduction.aggregate import Aggregate, Pair, Row


class Section(NamedTuple):
    """A heading, sentences, a table (heads, lines), and what its columns mean."""

    title: str
    sentences: list[str]
    heads: list[str]
    lines: list[list[str]]
    notes: list[str]


UNIT = '(expert − random)'
WORDS = ('algorithm', 'task', 'answer', 'ours', 'reference', 'failed by set', 'found here')  # columns of words
NAMES = {'equivalent': 'equivalent', 'differs': 'differs', 'undecided': 'undecided', 'ceiling': 'at the ceiling'}


def p_value(p: float) -> str:
    """A p value for reading: three decimals, '<.001' below that."""
    return '–' if not math.isfinite(p) else '<.001' if p < 0.001 else f'{p:.3f}'


def p_said(p: float) -> str:
    """The same within a sentence: 'p = 0.028', 'p < .001'."""
    return f'p = {p_value(p)}'.replace('= <', '< ')


def signed(x: float) -> str:
    """A normalised difference for reading: sign and three decimals, a dash for NaN, no sign on zero."""
    return '–' if not math.isfinite(x) else f'{round(x, 3):+.3f}' if round(x, 3) else '0.000'


def interval(lo: float, hi: float) -> str:
    """[lo, hi] for reading, a dash where it is undefined."""
    return f'[{signed(lo)}, {signed(hi)}]' if math.isfinite(lo) and math.isfinite(hi) else '–'


def share(x: float) -> str:
    """A rate for reading, in whole percent."""
    return '–' if not math.isfinite(x) else f'{100 * x:.0f}%'


def _mark(row: Row) -> str:
    return {'measured': '', 'runs': '†', 'tasks': '‡', 'cells': '‡'}[row.sets]


def _cells(row: Row) -> str:
    return f'{row.num_cells}' + (f' ({row.num_ceiling})' if row.num_ceiling else '')


def _triple(values: tuple[float, ...]) -> str:
    value, lo, hi = values
    return '–' if not math.isfinite(value) else f'{value:.2f}' + (f' [{lo:.2f}, {hi:.2f}]' if math.isfinite(lo) else '')


def _row(row: Row) -> list[str]:
    return [
        signed(row.diff) + _mark(row),
        interval(*row.interval(0.9)),
        interval(*row.interval(0.95)),
        f'{row.margin:.2f}',
        p_value(row.tost_p),
    ]


def verdict_of(row: Row) -> str:
    """What a row says, in a few words."""
    if row.verdict == 'equivalent':
        return f'equivalent within {row.margin:.2f}' + (', but not equal' if row.p < LEVEL else '')
    return NAMES.get(row.verdict, row.verdict)


def _by_verdict(rows: list[Row]) -> str:
    """Algorithms with their differences, those of one verdict together."""
    by = {}
    for r in rows:
        by.setdefault(verdict_of(r) + (' (the variance between expert sets was not measured)' if r.sets == 'runs' else ''), []).append(r)
    return '; '.join(
        ', '.join(f'{r.alg} ({signed(r.diff)}, 90% interval {interval(*r.interval(0.9))})' for r in found) + f': {what}'
        for what, found in by.items()
    )


def reproduces(aggregate: Aggregate) -> list[str]:
    """The answer in one sentence, then what it rests on and what it leaves open."""
    rows = aggregate.algs
    good = [r for r in rows if r.verdict in ('equivalent', 'ceiling')]
    bad = [r for r in rows if r.verdict == 'differs']
    start = (
        'Yes'
        if len(good) == len(rows)
        else f'{", ".join(r.alg for r in bad)} {"differ" if len(bad) > 1 else "differs"}'
        if bad
        else f'{", ".join(r.alg for r in good)} {"do" if len(good) > 1 else "does"}; the rest is undecided'
        if good
        else 'Undecided'
    )
    w = aggregate.whole
    out = [f'{start}. Mean of ours − reference over cells, in units of {UNIT}: {_by_verdict(rows)}.']
    claim = 'The claim "every algorithm equivalent within its margin" '
    refuted = any(r.beyond for r in rows)
    out.append(claim + ('holds.' if len(good) == len(rows) else 'is refuted.' if refuted else 'is not shown by these runs.'))
    if math.isfinite(w.perm_p):
        known = 'with the variance between sets'
        known = {'measured': known, 'runs': f'{known} as far as it was measured'}.get(w.sets, 'by the spread of the differences themselves')
        out.append(
            f'All {w.num_cells} cells together: {signed(w.diff)}. Is it zero? {p_said(w.perm_p)} by permutation of runs within cells, '
            f'as if expert sets made no difference (too small where they do); {p_said(w.p)} {known}.'
            + ('' if w.sets == 'runs' else f' Is it within ±{w.margin:.2f}? {p_said(w.tost_p)} (TOST).')
        )
    if w.num_ceiling:
        out.append(
            f'{w.num_ceiling} of {w.num_cells} cells are at the ceiling: all runs of both sides within {CEILING:.0%} of the expert, where '
            f'no difference above {2 * CEILING:.0%} can show.'
            + (f' Without them: {_by_verdict(aggregate.free)}.' if aggregate.free else '')
        )
    return out


def answer_section(analysis: Analysis) -> Section:
    """Per algorithm: difference, intervals, equivalence test, probability of improvement."""
    a = analysis.aggregate
    heads = ['algorithm', 'answer', 'ours − ref', '90%', '95%', 'margin', 'TOST', 'perm', 'P(ours > ref)', 'cells']
    rows = [*a.algs, *([a.whole] if len(a.algs) > 1 else [])]
    lines = [[r.label, verdict_of(r), *_row(r), p_value(r.perm_p), _triple(r.improvement), _cells(r)] for r in rows]
    notes = [
        f'Differences are means over cells in units of {UNIT} of the reference; cells: in brackets those at the ceiling. Intervals hold '
        'the variance between runs and, unless marked, between expert sets (variance components, partially pooled over tasks). TOST: p of '
        f'equivalence within the margin (declared: {MARGIN_GA:.2f} for names that begin with ga, {MARGIN:.2f} otherwise); below .05 is '
        'the 90% interval within ± margin. perm: label permutation within cells. P(ours > ref): mean probability over cells that a run '
        'of ours beats one of the reference, stratified bootstrap interval.'
    ]
    marks = {r.sets for r in rows}
    if 'runs' in marks:
        notes.append(
            '† The variance between expert sets was measured for none or only some of these cells: the interval is too narrow, and '
            'neither equivalence nor a difference is concluded from it.'
        )
    if marks & {'tasks', 'cells'}:
        notes.append(
            '‡ Single runs: the interval is that of the spread of cells or of the means of tasks, whichever is larger, with one degree of '
            'freedom less than tasks; with fewer than three tasks it is that of cells, and no difference is concluded from it.'
        )
    return Section('Does it reproduce?', reproduces(a), heads, lines, notes)


def block_section(analysis: Analysis) -> Section:
    """Per algorithm and task, and per task."""
    a = analysis.aggregate
    heads = ['algorithm', 'task', 'answer', 'ours − ref', '90%', '95%', 'margin', 'TOST', 'cells']
    rows = [*a.blocks, *(a.tasks if len(a.algs) > 1 else [])]
    return Section('Per task', [], heads, [[r.alg or 'all', r.task, verdict_of(r), *_row(r), _cells(r)] for r in rows], [])


def iqm_section(analysis: Analysis) -> Section:
    """Interquartile means over all runs of an algorithm, as rliable reports them."""
    a = analysis.aggregate
    heads = ['algorithm', 'IQM ours [95%]', 'IQM ref [95%]', 'difference found with 80%']
    lines = [[r.label, _triple(r.iqm), _triple(r.ref_iqm), f'{r.detectable():.3f}' + _mark(r)] for r in a.algs]
    notes = [
        'IQM: interquartile mean of the normalised returns of all runs of all cells, stratified bootstrap over runs (and sets). Last '
        f'column: the true mean difference that this table finds with {POWER:.0%} probability at {LEVEL:.0%}.'
    ]
    return Section('Interquartile means', [], heads, lines, notes)


def _runs_of(analysis: Analysis, pair: Pair) -> zip:
    """(row, normalised return) of a cell's runs."""
    return zip(analysis.cells[pair.key].rows, pair.y_N, strict=True)


def failure_section(analysis: Analysis) -> Section | None:
    """Runs that earned what the random policy earns."""
    heads = ['algorithm', 'task', 'failed: ours', 'reference', 'failed by set', 'P(one set ≥ ref)']
    lines = []
    for f in analysis.failures:
        per = f'{", ".join(str(k) for k, _ in f.by_set)} of {f.by_set[0][1]}' if f.by_set else '–'
        lines.append([f.alg, f.task, f'{f.ours[0]} of {f.ours[1]}', f'{f.ref[0]} of {f.ref[1]}', per, p_value(f.one_set_p)])
    pairs = analysis.aggregate.pairs
    total, ref_total = sum(f.ours[0] for f in analysis.failures), sum(f.ref[0] for f in analysis.failures)
    num, ref_num = sum(p.y_N.size for p in pairs), sum(p.m for p in pairs if p.x_M is not None)
    said = (
        f'{total} of {num} runs earn what the random policy earns (at most {FAILED:.0%} of the way to the expert); '
        f'reference: {ref_total} of {ref_num}.'
    )
    last = [analysis.scales[p.key.task].score(r.last_trueret) for p in pairs for r, y in _runs_of(analysis, p) if y <= FAILED]
    known = [y for y in last if math.isfinite(y)]
    if known:
        said += (
            f' Of {len(known)} of ours whose last batch is known, {sum(y > FAILED for y in known)} earned more in it, with sampled actions.'
        )
    notes = [
        'Failures come in sets: all runs of a cell may share one expert set, so the two counts are not those of independent runs. By '
        'set: failed runs on each set of the file with most sets. P: that one set of the reference’s number of runs fails as often as '
        'the reference did, sets having rates of their own (beta-binomial); a dash where too few sets were measured or fewer than two '
        'runs on them failed.'
    ]
    if not lines:
        return Section('Failed runs', [said], [], [], [])
    return Section('Failed runs', [said], heads, lines, notes)


def power_section(analysis: Analysis) -> Section | None:
    """What single cells could have shown, in normalised units at the level that judges."""
    comps = [c for c in analysis.comparisons.values() if math.isfinite(c.detectable_score)]
    if not comps:
        return None
    num = len(analysis.comparisons)
    half, whole = (sum(c.detectable_score > x for c in comps) for x in (0.5, 1.0))
    never = [c for c in comps if not c.rejectable]
    said = [
        f'At the level that judges (Holm’s first step), {half} of {num} cells would show only a true difference of more than half of '
        f'{UNIT} with {POWER:.0%} probability, {whole} of them only one of more than the whole of it.'
    ]
    if never:
        said.append(
            f'In {len(never)} cells no return between the random policy’s and the expert’s would be called different: '
            + ', '.join(f'{c.key.alg} {c.key.task} {c.key.num_trajs}' for c in never)
            + '.'
        )
    return Section('What single cells could show', said, [], [], [])


def control_section(analysis: Analysis) -> Section | None:
    """How often the same verdict finds campaigns that do differ."""
    found = analysis.controls
    if not found:
        return None
    heads = ['ours', 'reference', 'true difference', 'found', 'called equivalent', 'found here']
    lines = [
        [c.alg, c.ref_alg, signed(c.truth) + ('†' if c.sets == 'runs' else ''), share(c.found), share(c.equivalent), c.verdict_now]
        for c in found
    ]
    swaps = [c for c in found if c.alg != c.ref_alg]
    said = []
    shifts = [c for c in found if c.alg == c.ref_alg and c.truth]
    if shifts:
        said.append(
            f'A true shift of {SHIFT} in every cell of an algorithm would be found in '
            + ', '.join(f'{share(c.found)} ({c.alg})' for c in shifts)
            + ' of campaigns like this one.'
        )
    if swaps:
        said.append(
            f'Our runs of one algorithm beside the reference’s of another: {sum(c.verdict_now == "found" for c in swaps)} of {len(swaps)} '
            f'pairs are told apart by this very table.'
        )
    notes = [
        'Campaigns made from these data: runs redrawn around that difference, expert sets drawn anew with the measured variance. found: '
        '95% interval without 0; in the lines with no true difference it is the rate of false alarms. found here: the same verdict on '
        'the data themselves, so shifted or swapped.'
    ]
    return Section('Negative controls', said, heads, lines, notes)


def sections(analysis: Analysis, level: int = 1) -> list[Section]:
    """The sections of the answer; only the first at level 0, [] without a reference that can be normalised."""
    if not analysis.aggregate:
        return []
    makers = [answer_section, power_section, failure_section, block_section, iqm_section, control_section]
    return [s for make in (makers if level else makers[:1]) if (s := make(analysis))]
