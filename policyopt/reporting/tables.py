"""Tables of an analysis: one model of columns, written as CSV and shown as text, Markdown, HTML or LaTeX under the same names.

A `Column` takes its value from a row object. `table_of` chooses columns by level of detail (0, 1, 2; other columns are only in CSV) and
formats their values. `render` lays the table out. ± is half a 95% interval in every table; a standard deviation is called sd or std.
"""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from policyopt.command_line import format_table
from policyopt.files.names import settings_of
from policyopt.reporting.analysis import Analysis, Cell, Comparison, repeat_commands, some_of
from policyopt.reporting.reference import Baseline, CellKey
from policyopt.reporting.statistics import LEVEL, NAN, sd

WIDTH, HEIGHT = 100, 25  # of a command's output without -v
CSV_ONLY = 3
LEFT = ('task', 'alg', 'verdict', 'judged by', 'failed by set', 'ours', 'reference', 'found here')  # columns of words


def number(x: float, decimals: int) -> str:
    """A number for reading: fixed decimals, a dash for NaN, no minus zero."""
    return f'{round(float(x), decimals) + 0.0:.{decimals}f}' if np.isfinite(x) else '–'


def p_value(p: float, _: int = 3) -> str:
    """A p value for reading: three decimals, '<.001' below that."""
    return '<.001' if p < 0.001 else number(p, 3)


def signed(x: float, _: int = 3) -> str:
    """A difference of scores for reading: sign and three decimals, no sign on zero."""
    return number(x, 3) if not math.isfinite(x) or not round(x, 3) else f'{round(x, 3):+.3f}'


def plain(x: Any, decimals: int) -> str:
    """A word or a number for reading."""
    return str(x) if isinstance(x, (str, int, np.integer)) else number(x, decimals)


def plus_minus(cell: Cell, decimals: int) -> str:
    """The mean of a cell ± half its 95% interval."""
    return number(cell.mean, decimals) + (f' ± {number(cell.half_width, decimals)}' if math.isfinite(cell.half_width) else '')


def estimate(ends: Sequence[float], decimals: int, form: Callable[[Any, int], str] = number) -> str:
    """A value with the ends of its interval, if it has one."""
    value, low, high = (form(x, decimals) for x in ends)
    return value + f' [{low}, {high}]' * math.isfinite(ends[1])


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    csv_name: its name in CSV files; its heading elsewhere has spaces for underscores. '' if CSV files lack the column; then see heading.
    level: the lowest level of detail that shows it. value: function of a row. form: function of (value, decimals) that returns a text.
    """

    csv_name: str
    meaning: str
    level: int
    value: Callable[[Any], Any]
    form: Callable[[Any, int], str] = plain
    needs_reference: bool = False
    heading: str = ''

    @property
    def title(self) -> str:
        return self.heading or self.csv_name.replace('_', ' ')

    def of(self, row: Any) -> Any:
        """Its value in a row; None if the column needs a reference and the row has none."""
        return None if self.needs_reference and row.comp is None else self.value(row)


class Table(NamedTuple):
    """A table in words: titles of its columns, what they mean, and lines."""

    titles: list[str]
    meanings: list[str]
    lines: list[list[str]]


class Section(NamedTuple):
    """A part of a report: a heading, sentences, perhaps a table, and notes on it."""

    title: str
    sentences: list[str]
    table: Any = None  # a Table, or None
    notes: Sequence[str] = ()


def trajectories(num: int) -> str:
    """A number of trajectories, for reading."""
    return f'{num} trajectories' if num > 1 else '1 trajectory'


def decimals_of(analysis: Analysis, task: str, digits: int = 4) -> int:
    """The number of decimals for all numbers of a task, so that its returns have about `digits` digits."""
    b = analysis.baselines[task]
    values = [b.expert_mean, b.random_mean, *(c.mean for k, c in analysis.cells.items() if k.task == task)]
    scale = max([abs(x) for x in values if math.isfinite(x)] + [1e-9])
    return int(np.clip(digits - 1 - math.floor(math.log10(scale)), digits - 3, 4))


class RunRow(NamedTuple):
    """A line of the table of runs: a row of /results, and the scale of its task."""

    row: Any
    scale: Baseline


class CellRow(NamedTuple):
    """A line of the table of cells: a cell and what it was compared with (None without a reference)."""

    cell: Any
    comp: Comparison | None
    command: str = ''


RUN_COLUMNS = [
    *(
        Column(name, meaning, 0, attrgetter(f'row.{name}'))
        for name, meaning in {
            'task': 'name of the task',
            'alg': 'algorithm',
            'num_trajs': 'expert trajectories that it learned from',
            'run': 'index of the run',
            'seed': 'its seed',
            'dataset': 'its expert set',
            'snapshot': 'evaluated policy',
        }.items()
    ),
    Column('episodes', 'evaluation episodes', 0, lambda v: len(v.row.alg_traj_returns)),
    Column('return_mean', 'mean true return', 0, lambda v: np.mean(v.row.alg_traj_returns)),
    Column('return_std', 'its standard deviation over episodes', 0, lambda v: sd(v.row.alg_traj_returns)),
    Column('length_mean', 'mean episode length', 0, lambda v: np.mean(v.row.alg_traj_lengths)),
    Column('length_std', 'its standard deviation over episodes', 0, lambda v: sd(v.row.alg_traj_lengths)),
    Column(
        'percent_expert',
        '100·(return_mean − random)/(expert − random)',
        0,
        lambda v: 100 * float(v.scale.score(np.mean(v.row.alg_traj_returns))),
    ),
]


def _of_ref(csv_name: str, meaning: str, level: int, field: str, form: Any = plain, part: Any = None, heading: str = '') -> Column:
    """A column with a field of the comparison with a reference, or with one part of such a field."""
    get = attrgetter(f'comp.{field}')
    value = get if part is None else lambda row: get(row)[part]
    return Column(csv_name, meaning, level, value, form, needs_reference=True, heading=heading)


CELL_COLUMNS = [
    Column('task', 'name of the task', CSV_ONLY, attrgetter('cell.key.task')),
    Column('alg', "algorithm; in CSV, 'expert' and 'random' are the baselines (num_trajs 0)", 0, attrgetter('cell.key.alg')),
    Column('num_trajs', 'expert trajectories that it learned from', 0, attrgetter('cell.key.num_trajs')),
    Column('runs', 'runs (training seeds)', 2, attrgetter('cell.y_N.size')),
    Column('sets', 'expert sets among them', 2, lambda v: np.unique(v.cell.set_N).size or None),
    Column('episodes', 'evaluation episodes, all runs together', 2, attrgetter('cell.episodes')),
    Column('', 'return_mean ± margin95_sets, or ± margin95 with one set', 0, attrgetter('cell'), plus_minus, heading='return ± 95%'),
    Column('return_mean', 'mean over runs', CSV_ONLY, attrgetter('cell.mean')),
    Column('margin95', 'half width of its 95% t interval over runs', CSV_ONLY, attrgetter('cell.margin')),
    Column('margin95_sets', 'the same over expert sets; empty with one set', CSV_ONLY, attrgetter('cell.margin_sets')),
    Column('sd_runs', 'standard deviation over runs', 2, attrgetter('cell.sd_runs')),
    Column('return_std', 'standard deviation over episodes', 2, attrgetter('cell.sd_episodes')),
    Column('length_mean', 'mean episode length', 2, attrgetter('cell.length_mean')),
    Column('percent_expert', '100·(return_mean − random)/(expert − random)', 1, attrgetter('cell.percent_expert')),
    _of_ref('ref_mean', 'reference: mean over runs', 1, 'ref.mean'),
    _of_ref('ref_sd', 'reference: standard deviation over runs', CSV_ONLY, 'ref.sd'),
    _of_ref('ref_runs', 'reference: runs', CSV_ONLY, 'ref.m'),
    _of_ref('ref_margin95', 'reference: half width of the 95% t interval', 2, 'ref.margin'),
    _of_ref('difference', 'return_mean − ref_mean', 2, 'test.diff'),
    _of_ref('', 'score_difference with [lo90, hi90]', 1, 'estimate', lambda x, d: estimate(x, d, signed), heading='score difference [90%]'),
    _of_ref('score_difference', 'difference as a share of (expert − random)', CSV_ONLY, 'estimate', part=0),
    _of_ref('lo90', 'its 90% interval, low; empty where the variance between sets is unknown', CSV_ONLY, 'estimate', part=1),
    _of_ref('hi90', 'high', CSV_ONLY, 'estimate', part=2),
    _of_ref('welch_p', "Welch's t test over runs; takes runs that share an expert set for independent", 2, 'welch.p', p_value),
    _of_ref('permutation_p', 'permutation test over runs', 2, 'perm_p', p_value),
    _of_ref('prob_improvement', 'probability that a run of ours beats one of the reference, ties half', 2, 'prob_improvement'),
    _of_ref('sd_within', 'standard deviation between runs on one expert set', 2, 'pred.sd_within'),
    _of_ref('sd_between', 'standard deviation between expert sets; empty where one set cannot tell', 2, 'pred.sd_between'),
    _of_ref('between_from', 'expert sets that sd_between comes from', CSV_ONLY, 'between_from'),
    _of_ref('predict_lo', '95% prediction interval for the mean of ONE expert set of ref_runs runs, low', CSV_ONLY, 'predicted', part=0),
    _of_ref('predict_hi', 'high', CSV_ONLY, 'predicted', part=1),
    _of_ref('predict_df', 'its degrees of freedom (Satterthwaite)', CSV_ONLY, 'pred.df'),
    _of_ref('predict_p', 'p of ref_mean under it', 2, 'one_set.p', p_value),
    _of_ref('p', 'the deciding p: predict_p where sd_between is known, else welch_p', CSV_ONLY, 'p'),
    _of_ref('judged_by', 'what decided: sets, welch, equal (no variance, same mean), permutation (no variance), none', 2, 'judged_by'),
    _of_ref('p_holm', 'p, Holm-corrected over the table', 2, 'p_holm', p_value),
    _of_ref('margin', 'margin of the verdict, as a share of (expert − random)', CSV_ONLY, 'margin'),
    _of_ref('verdict', f'better, worse: p_holm < {LEVEL}, with * by Welch alone; same, no worse: within the margin', 1, 'marked_verdict'),
    _of_ref('note', 'remarks', CSV_ONLY, 'note'),
    Column('command', 'repeats the runs of this cell', CSV_ONLY, attrgetter('command')),
]


def cell_rows(analysis: Analysis, task: str) -> list[CellRow]:
    """A row per cell of one task."""
    keys = [key for key in analysis.cells if key.task == task]
    commands = repeat_commands(keys, analysis.attrs)
    return [CellRow(analysis.cells[k], analysis.comparisons.get(k), commands[k]) for k in keys]


def _settings(algs: Iterable[str]) -> list[str]:
    """The settings of a sweep in the names of its algorithms."""
    return list(dict.fromkeys(key for alg in algs for key in settings_of(alg)[1]))


def table_of(columns: Sequence[Column], rows: Sequence[Any], level: int, decimals: int = 2, with_reference: bool = True) -> Table:
    """The columns of a level, with formatted values; each setting of a sweep gets a column next to `alg`."""
    columns = [c for c in columns if c.level <= level and (with_reference or not c.needs_reference)]
    if 'alg' in (names := [c.csv_name for c in columns]):
        i = names.index('alg')
        alg = columns[i].value
        what = 'setting of the sweep'
        settings = [Column('', what, 0, lambda v, k=k: settings_of(alg(v))[1].get(k, ''), heading=k) for k in _settings(map(alg, rows))]
        columns[i : i + 1] = [dataclasses.replace(columns[i], value=lambda v: settings_of(alg(v))[0]), *settings]
    lines = [['–' if (x := c.of(row)) is None else c.form(x, decimals) for c in columns] for row in rows]
    return Table([c.title for c in columns], [c.meaning for c in columns], lines)


def cell_table(analysis: Analysis, task: str, level: int) -> Table:
    """A line per cell of one task."""
    rows = cell_rows(analysis, task)
    return table_of(CELL_COLUMNS, rows, level, decimals_of(analysis, task), bool(analysis.comparisons))


def grid(analysis: Analysis, digits: int = 4, with_reference: bool = True) -> Table:
    """A line per task and algorithm, a column per dataset size: mean ± half its 95% interval, in brackets the reference's mean."""
    sizes = sorted({k.num_trajs for k in analysis.cells})
    varied = _settings(k.alg for k in analysis.cells)
    beside = with_reference and bool(analysis.comparisons)
    lines = []
    for task, alg in dict.fromkeys((k.task, k.alg) for k in analysis.cells):
        d, b, entries = decimals_of(analysis, task, digits), analysis.baselines[task], []
        for size in sizes:
            key = CellKey(task, alg, size)
            cell, comp, ref = analysis.cells.get(key), analysis.comparisons.get(key), analysis.reference.get(key)
            entry = plus_minus(cell, d) if cell else ''
            entries.append(entry + (f' ({number(ref.mean, d)})' if cell and ref and beside else '') + '*' * bool(comp and comp.differs))
        name, found = settings_of(alg)
        entries += [] if beside else [number(b.expert_mean, d), number(b.random_mean, d)]
        lines.append([task, name, *(found.get(key, '') for key in varied), *entries])
    titles = ['task', 'alg', *varied, *map(trajectories, sizes), *([] if beside else ['expert', 'random'])]
    return Table(titles, [''] * len(titles), lines)


def markdown_text(text: str) -> str:
    """Escape a text with names from files for Markdown: no HTML, links or code, and no end of a table cell."""
    text = re.sub(r'[|`]|\\(?=[!-/:-@\[-`{-~])|(?<=\])(?=\()', r'\\\g<0>', text)
    return re.sub(r'&(?=#|\w+;)', '&amp;', re.sub(r'<(?=[a-zA-Z/!?])', '&lt;', text))


def latex_text(text: str) -> str:
    """Escape a text with names from files for LaTeX: no command, and no argument of a command before it."""
    special = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '[': '{[}', ']': '{]}'}
    special |= {'±': r'$\pm$', '−': '$-$', '–': '--'}
    return ''.join(special.get(c, f'\\{c}' if c in '#$%&_{}' else c) for c in text)


def render(table: Table, form: str) -> str:
    """A table as 'text', 'markdown', 'html' or 'latex'; the columns in LEFT, which hold words, are left-aligned."""
    words = {i for i, title in enumerate(table.titles) if title in LEFT}
    if form == 'text':
        return format_table([table.titles, *table.lines], sorted(words), rule=True)
    if form == 'markdown':
        rule = '|' + '|'.join('---' if i in words else '---:' for i in range(len(table.titles))) + '|'
        head, *lines = ('| ' + ' | '.join(map(markdown_text, line)) + ' |' for line in [table.titles, *table.lines])
        return '\n'.join([head, rule, *lines])
    if form == 'latex':
        head, *lines = (' & '.join(map(latex_text, line)) + r' \\' for line in [table.titles, *table.lines])
        kinds = ''.join('l' if i in words else 'r' for i in range(len(table.titles)))
        rules = [rf'\begin{{tabular}}{{{kinds}}}', r'\toprule', head, r'\midrule', *lines, r'\bottomrule', r'\end{tabular}']
        return '\n'.join([r'% needs \usepackage{booktabs}', *rules])
    return _html_table(table, words)


def _html_table(table: Table, words: set[int]) -> str:
    def cell(tag, i, text, more=''):
        names = ' '.join(['l'] * (i in words) + ([text.split()[0].rstrip('*')] if text and table.titles[i] == 'verdict' else []))
        return f'<{tag}{f" class={chr(34)}{html.escape(names)}{chr(34)}" if names else ""}{more}>{html.escape(text)}</{tag}>'

    out, before = ['<div class="scroll"><table><tr>'], None
    for i, (title, meaning) in enumerate(zip(table.titles, table.meanings, strict=True)):
        out.append(cell('th', i, title, f' title="{html.escape(meaning)}"' if meaning else ''))
    for line in table.lines:
        out += ['</tr><tr class="new">' if before not in (None, line[0]) else '</tr><tr>', *(cell('td', i, x) for i, x in enumerate(line))]
        before = line[0]
    return ''.join([*out, '</tr></table></div>'])


def baseline_lines(analysis: Analysis, task: str) -> list[str]:
    """The expert and random returns of a task, and the reference's, as sentences."""
    d, b, r = decimals_of(analysis, task), analysis.baselines[task], analysis.ref_baselines.get(task)

    def say(who, mean, std, episodes):
        if not math.isfinite(mean):
            return f'{who} not measured'
        about = ', '.join([f'sd {number(std, d)}'] * math.isfinite(std) + [f'{episodes} episodes'] * bool(episodes))
        return f'{who} {number(mean, d)}' + (f' ({about})' if about else '')

    ours = [say('expert', b.expert_mean, b.expert_sd, b.expert_episodes), say('random', b.random_mean, b.random_sd, b.random_episodes)]
    theirs = [say('expert', r.expert_mean, r.expert_sd, r.expert_episodes), say('random', r.random_mean, r.random_sd, 0)] if r else []
    return [', '.join(ours), *(['reference: ' + ', '.join(theirs)] if theirs else [])]


def task_sections(analysis: Analysis, level: int) -> list[Section]:
    """Every task with its environment, expert and random returns, and cells."""
    out = []
    for task, b in analysis.baselines.items():
        title = task + (f' ({b.env})' if b.env and b.env != task else '')
        out.append(Section(title, baseline_lines(analysis, task), cell_table(analysis, task, level)))
    return out


def summary(analysis: Analysis) -> list[str]:
    """Sentences with verdicts, missing runs and notes."""
    comps, out = list(analysis.comparisons.values()), []
    if comps:
        count = {v: sum(c.verdict == v for c in comps) for v in dict.fromkeys(c.verdict for c in comps)}
        out.append(f'Single cells, {len(comps)}: {", ".join(f"{n} {v}" for v, n in sorted(count.items(), key=lambda x: -x[1]))}.')
    out += [f'{v}: {", ".join(names)}' for v in ('worse', 'better') if (names := [str(c.cell.key) for c in comps if c.verdict == v])]
    if any(c.judged_by == 'welch' and c.differs for c in comps):
        out.append("* by Welch's test alone, which leaves out that another expert set may give another mean.")
    return out + missing_sentence(analysis) + analysis.notes


def missing_sentence(analysis: Analysis) -> list[str]:
    """How many runs are missing, and the first of them; [] if none is."""
    num = len(analysis.missing)
    return [f'{num} run{"s are" if num > 1 else " is"} missing: {some_of(analysis.missing, 2)}'] if num else []


def explanation(analysis: Analysis) -> list[str]:
    """Sentences that explain the intervals and verdicts of the tables."""
    interval = 'return ± 95%: mean over runs, with a t interval over expert sets where a cell has several, else over runs.'
    if not analysis.comparisons:
        return [interval]
    return [
        interval,
        'A verdict judges ours − reference. All runs of a cell of the reference learned from ONE set of expert trajectories, so its mean '
        'is compared with the prediction interval for one set (one-way random effects: variance within and between sets). Where the '
        "variance between sets is unknown, Welch's test is left: it takes runs for independent, so it finds too many differences "
        '(marked *) and cannot show that two means are the same.',
    ]


def text_report(analysis: Analysis, level: int, sections: Sequence[Section] = (), after: Sequence[str] = ()) -> str:
    """The report for a terminal: level 0 fits in WIDTH × HEIGHT with the lines `after` at its end; levels 1 and 2 have a line per cell."""
    first = _wrapped([analysis.of_sets()] if analysis.comparisons else [])
    return '\n'.join(
        [*first, *(_details(analysis, level, sections) if level else _overview(analysis, sections, len(first + [*after]))), *after]
    )


def _details(analysis: Analysis, level: int, sections: Sequence[Section]) -> list[str]:
    out = []
    for s in [*sections, *task_sections(analysis, level)]:
        out += ['', s.title, *_wrapped(s.sentences), *([render(s.table, 'text')] if s.table else []), *_wrapped(s.notes)]
    return [*out, '', *_wrapped([*summary(analysis), *explanation(analysis)])]


def _overview(analysis: Analysis, sections: Sequence[Section], taken: int) -> list[str]:
    """The first section's table and a grid of all cells, in HEIGHT − taken lines."""
    out = [line for s in sections[:1] for line in (render(s.table, 'text').splitlines() if s.table else _wrapped(s.sentences))]
    wide, narrow = (render(grid(analysis, 3, with_reference), 'text').splitlines() for with_reference in (True, False))
    lines = wide if max(map(len, wide)) <= WIDTH else narrow
    beside = '; in brackets: the reference' * (lines is wide and bool(analysis.comparisons))
    differ = '; *: differs from the reference (5%, Holm)' * any(c.differs for c in analysis.comparisons.values())
    last = _wrapped([f'±: 95% interval of the mean{beside}{differ}', *missing_sentence(analysis), *analysis.notes])
    room = max(HEIGHT - taken - len(out) - len(last), 5)
    if len(lines) > room:
        lines = [*lines[: room - 1], f'… {len(lines) - room + 1} more lines: -v 1']
    return [*out, *lines, *last]


def _wrapped(sentences: Iterable[str]) -> list[str]:
    out = []
    for sentence in sentences:
        out += textwrap.wrap(sentence, WIDTH, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False) or ['']
    return out


def markdown_report(analysis: Analysis, level: int, sections: Sequence[Section] = ()) -> str:
    out = []
    for s in [*sections, *task_sections(analysis, level)]:
        tables = [render(s.table, 'markdown')] if s.table else []
        parts = [f'### {markdown_text(s.title)}', *map(markdown_text, s.sentences), *tables, *map(markdown_text, s.notes)]
        out += [line for part in parts for line in (part, '')]
    said = [*summary(analysis), *explanation(analysis)]
    return '\n'.join([*out, *(f'* {markdown_text(s)}' for s in said), ''])


def latex_report(analysis: Analysis) -> str:
    """A booktabs table: a line per task and algorithm, a column per dataset size."""
    return render(grid(analysis), 'latex') + '\n% mean over runs, ± half the width of its 95% interval; in brackets: the reference\n'


def csv_text(columns: Sequence[Column], rows: Sequence[Any]) -> str:
    """Rows as CSV; an empty field is unknown or undefined. Settings of a sweep have the last columns."""

    def field(x):
        return '' if x is None or (isinstance(x, float) and math.isnan(x)) else f'{x:.10g}' if isinstance(x, float) else x

    columns = [c for c in columns if c.csv_name]
    alg = next(c.value for c in columns if c.csv_name == 'alg')
    names = [c.csv_name for c in columns]
    varied = [key for key in _settings(map(alg, rows)) if key not in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*names, *varied])
    for row in rows:
        writer.writerow([*(field(c.of(row)) for c in columns), *(settings_of(alg(row))[1].get(key, '') for key in varied)])
    return text.getvalue()


def runs_csv(analysis: Analysis) -> str:
    """A line per run, in the order of the cells."""
    return csv_text(RUN_COLUMNS, [RunRow(r, analysis.baselines[key.task]) for key, cell in analysis.cells.items() for r in cell.rows])


def cells_csv(analysis: Analysis) -> str:
    """A line per cell; the expert and the random policy of a task come before its cells."""
    rows = []
    for task, b in analysis.baselines.items():
        measured = (('expert', b.expert_mean, b.expert_sd, b.expert_episodes), ('random', b.random_mean, b.random_sd, b.random_episodes))
        for who, mean, std, episodes in measured:
            if episodes:
                row = dict.fromkeys(('margin', 'margin_sets', 'sd_runs', 'length_mean', 'percent_expert'), NAN)
                row |= {'key': CellKey(task, who, 0), 'y_N': np.array([mean]), 'set_N': np.array([])}
                rows.append(CellRow(SimpleNamespace(**row, episodes=episodes, mean=mean, sd_episodes=std), None))
        rows += cell_rows(analysis, task)
    return csv_text(CELL_COLUMNS, rows)
