"""The study in sections of sentences and tables, the same on the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from policyopt.reporting.reference import CEILING, FAILED
from policyopt.reporting.statistics import LEVEL
from policyopt.reporting.tables import CSV_ONLY, Column, Section, Table, csv_text, estimate, p_value, signed, table_of
from policyopt.reproduction.aggregate import Aggregate, Row
from policyopt.reproduction.negative_controls import SHIFT
from policyopt.reproduction.study import Study

_MARKS = {'measured': '', 'runs': '†', 'tasks': '‡', 'cells': '‡'}


def _resampled(name: str, meaning: str, field: str) -> list[Column]:
    """A value with its bootstrap interval: one column for reading and three of a CSV file."""
    get = attrgetter(field)
    heading = f'{name.replace("_", " ")} [95%]'
    out = [Column('', f'{meaning}, with its bootstrap 95% interval', 2, get, estimate, heading=heading)]
    for i, (end, said) in enumerate((('', meaning), ('_lo', 'its bootstrap 95% interval, low'), ('_hi', 'high'))):
        out.append(Column(name + end, said, CSV_ONLY, lambda r, i=i: get(r)[i]))
    return out


def _of(num: int, total: int) -> str:
    return f'{num} of {total}' if total else '–'


def _interval(level: int, shown_from: int) -> list[Column]:
    """An interval of the difference: one column for reading and two of a CSV file."""

    def end(i):
        return lambda r: r.interval(level / 100)[i]

    meaning = f'{level}% interval of the difference'
    shown = Column('', meaning, shown_from, lambda r: interval(*r.interval(level / 100)), heading=f'{level}%')
    return [shown, Column(f'lo{level}', f'{meaning}, low', CSV_ONLY, end(0)), Column(f'hi{level}', 'high', CSV_ONLY, end(1))]


AGGREGATE_COLUMNS = [
    Column('alg', 'algorithm; empty: all', 0, attrgetter('alg')),
    Column('task', 'task; empty: all', 1, attrgetter('task')),
    Column('cells', 'cells that the row is a mean of, with equal weights', 2, attrgetter('num_cells')),
    Column('ceiling', f'of them with all runs of both sides within {CEILING:.0%} of the expert', 2, attrgetter('num_ceiling')),
    Column('difference', 'ours − reference as a share of (expert − random)', CSV_ONLY, attrgetter('diff')),
    Column('', 'ours − reference as a share of (expert − random)', 0, lambda r: signed(r.diff) + _MARKS[r.sets], heading='difference'),
    Column('se', 'its standard error', CSV_ONLY, attrgetter('se')),
    Column('df', 'its degrees of freedom (Satterthwaite)', CSV_ONLY, attrgetter('df')),
    *_interval(90, 0),
    *_interval(95, 2),
    Column('sets', 'what se holds: measured (runs and sets), runs, tasks or cells (their spread)', CSV_ONLY, attrgetter('sets')),
    Column('p', 'two-sided t test of no difference', CSV_ONLY, attrgetter('p')),
    Column('margin', 'margin of the verdict', CSV_ONLY, attrgetter('margin')),
    Column('tost_p', f'two one-sided tests of a difference within the margin; below {LEVEL}: same', 2, attrgetter('tost_p'), p_value),
    *_resampled('prob_improvement', 'mean over cells of the probability that a run of ours beats one of the reference', 'improvement'),
    *_resampled('iqm', 'interquartile mean of our scores', 'iqm'),
    *_resampled('ref_iqm', "interquartile mean of the reference's scores", 'ref_iqm'),
    Column('', f'our runs at most {FAILED:.0%} of the way to the expert', 0, lambda r: _of(r.failed, r.num_runs), heading='failed'),
    Column('', 'the same of the reference', 0, lambda r: _of(r.ref_failed, r.ref_runs), heading='ref failed'),
    Column('verdict', 'same within the margin; better or worse; no worse by the margin; too few data', 0, attrgetter('verdict')),
]


def aggregate_csv(study: Study) -> str:
    """All rows of the table over cells as CSV: per algorithm, per algorithm and task, per task, and over all; '' without an aggregate."""
    return csv_text(AGGREGATE_COLUMNS, [*a.algs, *a.blocks, *a.tasks, a.whole]) if (a := study.aggregate) else ''


def _table(rows: Sequence[Row], level: int, drop: Sequence[str]) -> Table:
    """Rows as words, without some columns; 'all' names the rows over all algorithms or tasks."""
    table = table_of([c for c in AGGREGATE_COLUMNS if c.title not in drop], rows, level)
    words = [i for i, title in enumerate(table.titles) if title in ('alg', 'task')]
    return table._replace(lines=[['all' if i in words and not x else x for i, x in enumerate(line)] for line in table.lines])


def interval(low: float, high: float) -> str:
    """An interval of score differences for reading, a dash where it is undefined."""
    return f'[{signed(low)}, {signed(high)}]' if math.isfinite(low) and math.isfinite(high) else '–'


def verdicts(aggregate: Aggregate) -> list[str]:
    """The verdict per algorithm with differences and 90% intervals, and what is left without the cells at the ceiling, in sentences."""
    by, rows = {}, aggregate.algs
    for r in rows:
        by.setdefault(r.verdict, []).append(_brief(r))
    out = [_sentence(f'{verdict}: {", ".join(algs)}' for verdict, algs in by.items())]
    out += [_sentence([f'all {aggregate.whole.num_cells} cells: {_brief(aggregate.whole)}, {aggregate.whole.verdict}'])] * (len(rows) > 1)
    if aggregate.free:
        num, of = sum(r.num_ceiling for r in rows), sum(r.num_cells for r in rows)
        what = f'{num} of {of} cells are at the ceiling (all runs of both sides within {CEILING:.0%} of the expert). Without them: '
        out.append(_sentence([what + '; '.join(f'{_brief(r)}, {r.verdict}' for r in aggregate.free)]))
    return out


def _brief(row: Row) -> str:
    return f'{row.alg} {signed(row.diff)} {interval(*row.interval(0.9))}'.strip()


def _sentence(parts: Iterable[str]) -> str:
    text = '; '.join(parts) + '.'
    return text[0].upper() + text[1:]


def answer_section(study: Study, level: int = 2) -> Section:
    """Per algorithm: difference, interval, failed runs, verdict; at level 2 also tests and probability of improvement."""
    a: Any = study.aggregate
    rows = [*a.algs, *([a.whole] if len(a.algs) > 1 else [])]
    marks = {_MARKS[r.sets] for r in rows}
    notes = [
        'difference: ours − reference, mean over cells, as a share of (expert − random), with 90% intervals. They hold the variance '
        'between runs and, unless marked, between expert sets (variance components, partially pooled over tasks).'
    ]
    if '†' in marks:
        notes.append(
            '† The variance between expert sets is unknown for some of these cells: the interval is too narrow and decides nothing.'
        )
    if '‡' in marks:
        notes.append(
            '‡ Single runs: the interval is that of the spread of tasks, with one degree of freedom less than tasks; with fewer than '
            'three tasks it is that of cells and decides nothing.'
        )
    return Section('Does it reproduce?', verdicts(a), _table(rows, level, ['task']), notes)


def block_section(study: Study) -> Section:
    """Per algorithm and task, and per task."""
    a: Any = study.aggregate
    rows = [*a.blocks, *(a.tasks if len(a.algs) > 1 else [])]
    return Section('Per task', [], _table(rows, 2, ['prob improvement [95%]', 'iqm [95%]', 'ref iqm [95%]', '95%', 'tost p']))


def failure_section(study: Study) -> Section:
    """Runs that get what the random policy gets."""
    a: Any = study.aggregate
    said = (
        f'{a.whole.failed} of {a.whole.num_runs} runs get what the random policy gets (at most {FAILED:.0%} of the way to the expert); '
        f'reference: {a.whole.ref_failed} of {a.whole.ref_runs}.'
    )
    runs = [(r, y) for p in a.pairs for r, y in zip(study.cells[p.key].rows, p.y_N, strict=True) if y <= FAILED]
    known = [y for y in (float(study.scales[r.task].score(r.last_trueret)) for r, _ in runs) if math.isfinite(y)]
    if known:
        more = sum(y > FAILED for y in known)
        said += f' Of {len(known)} of ours whose last batch is known, {more} got more in it, with sampled actions.'
    lines = []
    for r in a.blocks:
        if r.failed or r.ref_failed:
            mine = [p for p in a.pairs if p.block == (r.alg, r.task)]
            y, sets = (np.concatenate([getattr(p, name) for p in mine]) for name in ('y_N', 'set_N'))
            by_set = ', '.join(str(np.sum(y[sets == s] <= FAILED)) for s in np.unique(sets)) if np.ptp(sets) else '–'
            lines.append([r.alg, r.task, _of(r.failed, r.num_runs), _of(r.ref_failed, r.ref_runs), by_set])
    titles = ['alg', 'task', 'failed', 'ref failed', 'failed by set']
    meanings = ['', '', 'our failed runs', "the reference's", 'on each of our expert sets']
    if all(line[-1] == '–' for line in lines):
        titles, meanings, lines = titles[:-1], meanings[:-1], [line[:-1] for line in lines]
    return Section('Failed runs', [said], Table(titles, meanings, lines) if lines else None)


def control_section(study: Study) -> Section | None:
    """How often the same verdict finds experiments that do differ."""
    found = study.controls
    if not found:
        return None
    titles = ['ours', 'reference', 'true difference', 'found', 'called same', 'found here']
    lines = [
        [c.alg, c.ref_alg, signed(c.truth) + ('†' if c.sets == 'runs' else ''), f'{c.found:.0%}', f'{c.same:.0%}', c.verdict_now]
        for c in found
    ]
    swaps, shifts = [c for c in found if c.alg != c.ref_alg], [c for c in found if c.alg == c.ref_alg and c.truth]
    rates = ', '.join(f'{c.found:.0%} ({c.alg})' for c in shifts)
    said = (
        [f'A true shift of {SHIFT} in every cell of an algorithm would be found in {rates} of experiments like this one.'] if shifts else []
    )
    if swaps:
        now = sum(c.verdict_now == 'found' for c in swaps)
        said.append(f'Our runs of one algorithm next to the reference’s of another: {now} of {len(swaps)} pairs are told apart.')
    notes = [
        'Experiments made from these data: runs redrawn around that difference, expert sets drawn anew with the measured variance. found: '
        '95% interval without 0; in the lines with no true difference it is the rate of false alarms. found here: the same verdict on '
        'the data themselves, so shifted or swapped.'
    ]
    return Section('Negative controls', said, Table(titles, [''] * len(titles), lines), notes)


def sections(study: Study, level: int = 2) -> list[Section]:
    """The sections of a study; only the first, with few columns, below level 2; [] without a reference that can be normalised."""
    if not study.aggregate:
        return []
    if level < 2:
        return [answer_section(study, 0)]
    makers = (answer_section, failure_section, block_section, control_section)
    return [s for make in makers if (s := make(study))]
