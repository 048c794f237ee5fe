"""Tables of an analysis for reading: on the terminal, in Markdown, in LaTeX.

Every form shows the same columns; `COLUMNS` says what each means, in which order, and from which level of detail (0, 1, 2) it is printed.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from policyopt.command_line import format_table
from policyopt.files.names import settings_of
from policyopt.reporting.analysis import Analysis, Cell, Comparison
from policyopt.reporting.statistics import LEVEL, POWER
from policyopt.reproduction.report import UNIT, WORDS, p_value, sections

if TYPE_CHECKING:
    from policyopt.reproduction.report import Section

LEFT = ('alg', 'by', 'verdict', *WORDS)  # columns of words


class View(NamedTuple):
    """One line of a table: a cell and what it was compared with (None without a reference)."""

    cell: Cell
    comp: Comparison | None
    analysis: Analysis


class Column(NamedTuple):
    """A column of the cell table, printed from `level` on: `show(view, decimals)` gives its text, `of_ref` needs a reference."""

    head: str
    level: int
    of_ref: bool
    meaning: str
    show: Any


def number(x: Any, decimals: int) -> str:
    """A number for reading: fixed decimals, a dash for NaN, no minus zero."""
    if not np.isfinite(x):
        return '–'
    return f'{round(float(x), decimals) + 0.0:.{decimals}f}'


def trajectories(num: int) -> str:
    """So many trajectories, for reading."""
    return f'{num} trajectories' if num > 1 else '1 trajectory'


def _pm(mean: float, margin: float, d: int) -> str:
    return number(mean, d) + (f' ± {number(margin, d)}' if math.isfinite(margin) else '')


def _star(comp: Comparison) -> str:
    return '*' if comp.judged_by == 'welch' else ''


def _interval(lo: float, hi: float, d: int) -> str:
    return f'[{number(lo, d)}, {number(hi, d)}]' if math.isfinite(lo) else '–'


COLUMNS = [
    Column('alg', 0, False, 'algorithm', lambda v, d: v.cell.key.alg),
    Column('trajs', 0, False, 'expert trajectories that it learned from', lambda v, d: str(v.cell.key.num_trajs)),
    Column('runs', 0, False, 'runs (training seeds)', lambda v, d: str(v.cell.y_N.size)),
    Column('episodes', 2, False, 'evaluation episodes, all runs together', lambda v, d: str(v.cell.episodes)),
    Column(
        'return',
        0,
        False,
        'mean over runs ± half width of its 95% t interval, over expert sets where there are several, else over runs',
        lambda v, d: _pm(v.cell.mean, v.cell.half_width, d),
    ),
    Column('sd(ep)', 1, False, 'standard deviation over all episodes', lambda v, d: number(v.cell.sd_episodes, d)),
    Column('sd(run)', 2, False, 'standard deviation over runs', lambda v, d: number(v.cell.sd_runs, d)),
    Column(
        'IQM [95%]',
        1,
        False,
        'interquartile mean over runs, with a bootstrap interval stratified by expert set',
        lambda v, d: number(v.cell.iqm, d) + ('' if math.isnan(v.cell.iqm_lo) else ' ' + _interval(v.cell.iqm_lo, v.cell.iqm_hi, d)),
    ),
    Column('length', 2, False, 'mean episode length in steps', lambda v, d: number(v.cell.length_mean, 1)),
    Column('%expert', 0, False, '100·(return − random)/(expert − random)', lambda v, d: number(v.cell.percent_expert, 1)),
    Column('ref', 0, True, 'mean of the reference over its runs', lambda v, d: number(v.comp.ref.mean, d)),
    Column('± ref', 2, True, 'half width of its 95% t interval', lambda v, d: number(v.comp.ref.margin, d)),
    Column('diff', 0, True, 'ours − reference', lambda v, d: number(v.comp.diff, d)),
    Column(
        'Welch',
        1,
        True,
        "p of Welch's t test over runs, uncorrected; takes runs that share an expert set for independent",
        lambda v, d: p_value(v.comp.welch_p),
    ),
    Column('perm', 2, True, 'p of the permutation test over runs, uncorrected', lambda v, d: p_value(v.comp.perm_p)),
    Column(
        'P(>ref)',
        2,
        True,
        'probability of improvement: that a run of ours beats one of the reference, ties half',
        lambda v, d: number(v.comp.prob_improvement, 2),
    ),
    Column('σ_run', 2, True, 'standard deviation between runs on one expert set', lambda v, d: number(v.comp.sd_within, d)),
    Column(
        'σ_set',
        2,
        True,
        'standard deviation between expert sets; a dash where one set cannot tell',
        lambda v, d: number(v.comp.sd_between, d),
    ),
    Column(
        'one set [95%]',
        2,
        True,
        "prediction interval for the mean of ONE expert set of the reference's number of runs",
        lambda v, d: _interval(v.comp.pred_lo, v.comp.pred_hi, d),
    ),
    Column('sets', 2, True, 'p of the reference under that prediction, uncorrected', lambda v, d: p_value(v.comp.pred_p)),
    Column(
        'Holm',
        0,
        True,
        "p that decides, Holm-corrected over the table: by sets where σ_set is known, else Welch's",
        lambda v, d: p_value(v.comp.p_holm),
    ),
    Column(
        'by',
        2,
        True,
        'what decided: sets, welch, equal (no variance, same mean), permutation (no variance), none',
        lambda v, d: v.comp.judged_by,
    ),
    Column(
        'detect',
        1,
        True,
        f'smallest true difference, as a share of {UNIT}, that the deciding test finds with {POWER:.0%} power at the level that judges '
        "(Holm's first step)",
        lambda v, d: number(v.comp.detectable_score, 2),
    ),
    Column('(return)', 2, True, 'the same as a return', lambda v, d: number(v.comp.detectable_holm, d)),
    Column('(alone)', 2, True, 'the same as a return, at 5% for this cell alone', lambda v, d: number(v.comp.detectable, d)),
    Column(
        'verdict',
        0,
        True,
        f'differs when Holm < {LEVEL}; ceiling: all runs of both sides at the expert; consistent: no difference found, which is not '
        'equality (see detect); * where only Welch could judge',
        lambda v, d: v.comp.verdict + _star(v.comp),
    ),
]

# --- shared pieces --------------------------------------------------------------------------------------------------


def decimals_of(analysis: Analysis, task: str) -> int:
    """Decimals that keep about four digits of the task's returns, the same for all its numbers."""
    b = analysis.baselines[task]
    values = [b.expert_mean, b.random_mean, *(c.mean for k, c in analysis.cells.items() if k.task == task)]
    scale = max([abs(x) for x in values if math.isfinite(x)] + [1e-9])
    return int(np.clip(3 - math.floor(math.log10(scale)), 1, 4))


def table_of(analysis: Analysis, task: str, level: int) -> tuple[list[str], list[list[str]]]:
    """(heads, lines of text) of one task's table."""
    with_ref = bool(analysis.comparisons)
    columns = [c for c in with_settings(COLUMNS, analysis) if c.level <= level and (with_ref or not c.of_ref)]
    d = decimals_of(analysis, task)
    views = [View(c, analysis.comparisons.get(k), analysis) for k, c in analysis.cells.items() if k.task == task]
    return [c.head for c in columns], [['–' if c.of_ref and v.comp is None else c.show(v, d) for c in columns] for v in views]


def with_settings(columns: list[Column], analysis: Analysis) -> list[Column]:
    """The columns, with one more for each setting where algorithms of a sweep are among the cells."""
    varied = dict.fromkeys(key for k in analysis.cells for key in settings_of(k.alg)[1])
    if not varied:
        return columns
    first, *others = columns
    first = first._replace(show=lambda v, d: settings_of(v.cell.key.alg)[0])

    def of(key):
        return Column(key, 0, False, 'setting of the sweep', lambda v, d: settings_of(v.cell.key.alg)[1].get(key, ''))

    return [first, *map(of, varied), *others]


def baseline_lines(analysis: Analysis, task: str) -> list[str]:
    """The expert and random returns of a task, and the reference's, as sentences."""
    d, b = decimals_of(analysis, task), analysis.baselines[task]

    def say(who, mean, std, episodes):
        return (
            f'{who} {_pm(mean, std, d)}' + (f' ({episodes} episodes)' if episodes else '') if math.isfinite(mean) else f'{who} not measured'
        )

    lines = [
        f'{say("expert", b.expert_mean, b.expert_sd, b.expert_episodes)}, {say("random", b.random_mean, b.random_sd, b.random_episodes)}'
    ]
    r = analysis.ref_baselines.get(task)
    if r:
        lines.append(
            f'reference: {say("expert", r.expert_mean, r.expert_sd, r.expert_episodes)}, {say("random", r.random_mean, r.random_sd, 0)}'
        )
    return lines


def title_of(analysis: Analysis, task: str) -> str:
    env = analysis.baselines[task].env
    return task + (f' ({env})' if env and env != task else '')


def summary(analysis: Analysis) -> list[str]:
    """What came out, in sentences: verdicts, missing runs, notes."""
    comps = list(analysis.comparisons.values())
    out = []
    if comps:
        count = {v: [f'{c.key}{_star(c)}' for c in comps if c.verdict == v] for v in ('consistent', 'ceiling', 'differs', 'not testable')}
        sizes = ', '.join(f'{len(names)} {_plural(v, len(names))}' for v, names in count.items() if names)
        out.append(f'{_cells(len(comps))} beside the reference: {sizes} (at {LEVEL:.0%}, Holm-corrected over the table).')
        out.append('Consistent means that no difference was found, not that there is none; the column detect says what would have been.')
        out += [f'{verdict}: {name}' for verdict in ('differs', 'not testable') for name in count[verdict]]
        welch = sum(c.judged_by == 'welch' for c in comps)
        strict = sum(c.welch_holm < LEVEL for c in comps)
        out.append(f"Welch's test alone, Holm-corrected, would call {strict} of them different.")
        if welch:
            out.append(f'* {_cells(welch)} judged by Welch, which is too strict, for want of a second expert set.')
    if analysis.missing:
        names = ', '.join(analysis.missing[:3]) + (' …' if len(analysis.missing) > 3 else '')
        out.append(f'{len(analysis.missing)} run{"s are" if len(analysis.missing) > 1 else " is"} missing: {names}')
    return out + analysis.notes


def _plural(verdict: str, num: int) -> str:
    return {'differs': 'differ' if num > 1 else verdict, 'ceiling': 'at the ceiling'}.get(verdict, verdict)


def _cells(num: int) -> str:
    return f'{num} cell{"s" if num != 1 else ""}'


def explanation(analysis: Analysis) -> list[str]:
    """Why the plain test is too strict, and what judges instead; the reader's guide to the intervals."""
    out = [
        '± and [ ] are 95% intervals (t; bootstrap for the interquartile mean), over expert sets where a cell has several, else over runs. '
        'Runs that learned from one expert set share its luck.'
    ]
    comps = analysis.comparisons.values()
    if not comps:
        return out
    out.append(
        'Why plain Welch is too strict: it takes runs for independent, but all runs of a reference cell learned from ONE sampled set of '
        'expert trajectories, and a small set may be a lucky or a poor one. That variance between sets (σ_set) does not shrink with more '
        "runs; Welch's standard error leaves it out, so it calls cells different that differ only in which trajectories were drawn."
    )
    if any(c.judged_by == 'sets' for c in comps):
        out.append(
            "Judged by sets: the reference's mean against the prediction interval for ONE expert set of its number of runs, from a "
            'one-way random-effects model (variance within and between sets by the method of moments, t with Satterthwaite degrees '
            'of freedom).'
        )
    if any(c.judged_by == 'welch' for c in comps):
        out.append(
            'Judged by Welch (*): these cells have one expert set, from which σ_set cannot be estimated (it is not identifiable), so '
            "here 'differs' may only mean another expert set. Sample several sets (training.datasets: 5), or name results that have "
            'them: --between-set RESULTS2.h5'
        )
    return out


# --- terminal, Markdown, LaTeX --------------------------------------------------------------------------------------


def _aligned(heads: list[str], lines: list[list[str]]) -> str:
    return format_table([heads, *lines], [i for i, head in enumerate(heads) if head in LEFT], indent='  ', rule=True)


def text_table(analysis: Analysis, level: int) -> str:
    """The answer and the table for the terminal, about 120 columns wide at level 1."""
    out = []
    for section in sections(analysis, level):
        out += [section.title, *_wrapped(section.sentences)]
        out += [_aligned(section.heads, section.lines)] if section.lines else []
        out += [*(_wrapped(section.notes) if level else []), '']
    for task in analysis.baselines:
        out += [title_of(analysis, task), *('  ' + line for line in baseline_lines(analysis, task))]
        out += [_aligned(*table_of(analysis, task, level)), '']
    return '\n'.join(out + _wrapped([*summary(analysis), *([''] + explanation(analysis) if level else [])]))


def _wrapped(sentences: Iterable[str]) -> list[str]:
    out = []
    for sentence in sentences:
        out += textwrap.wrap(sentence, 118, subsequent_indent='  ', break_long_words=False, break_on_hyphens=False) or ['']
    return out


def markdown_text(text: str) -> str:
    """A text with names of strangers for Markdown: no HTML, no links, no code, and it stays in its cell of a table."""
    text = re.sub(r'[|`]|\\(?=[!-/:-@\[-`{-~])|(?<=\])(?=\()', r'\\\g<0>', text)
    return re.sub(r'&(?=#|\w+;)', '&amp;', re.sub(r'<(?=[a-zA-Z/!?])', '&lt;', text))


def latex_text(text: str) -> str:
    """A text with names of strangers for LaTeX: no command, and no argument of one before it."""
    special = {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '[': '{[}', ']': '{]}'}
    return ''.join(special.get(c, f'\\{c}' if c in '#$%&_{}' else c) for c in text)


def _markdown_table(heads: list[str], lines: list[list[str]]) -> list[str]:
    left = {i for i, h in enumerate(heads) if h in LEFT}
    rule = '|' + '|'.join('---' if i in left else '---:' for i in range(len(heads))) + '|'
    head, *rows = ('| ' + ' | '.join(map(markdown_text, line)) + ' |' for line in [heads, *lines])
    return [head, rule, *rows, '']


def markdown_section(section: Section, heading: str = '###') -> list[str]:
    """One section of the answer in Markdown, as a list of lines."""
    out = [f'{heading} {section.title}', '', *(x for s in section.sentences for x in (markdown_text(s), ''))]
    table = _markdown_table(section.heads, section.lines) if section.lines else []
    return out + table + [x for n in section.notes for x in (markdown_text(n), '')]


def markdown(analysis: Analysis, level: int) -> str:
    """The same in Markdown."""
    out = [line for section in sections(analysis, level) for line in markdown_section(section)]
    for task in analysis.baselines:
        out += [
            f'### {markdown_text(title_of(analysis, task))}',
            '',
            *(f'{markdown_text(line)}  ' for line in baseline_lines(analysis, task)),
            '',
            *_markdown_table(*table_of(analysis, task, level)),
        ]
    return '\n'.join([*out, *(f'* {markdown_text(s)}' for s in summary(analysis) + explanation(analysis)), ''])


def latex(analysis: Analysis) -> str:
    """A booktabs table: a line per task and dataset size, a column per algorithm, mean ± standard deviation over episodes."""

    algs = list(dict.fromkeys(k.alg for k in analysis.cells))
    out = [
        r'% needs \usepackage{booktabs}',
        r'\begin{tabular}{lr' + 'c' * len(algs) + '}',
        r'\toprule',
        ' & '.join(['Task', 'Trajectories', *map(latex_text, algs)]) + r' \\',
    ]
    for task in analysis.baselines:
        d, sizes = decimals_of(analysis, task), sorted({k.num_trajs for k in analysis.cells if k.task == task})
        out.append(r'\midrule')
        for i, size in enumerate(sizes):
            entries = []
            for alg in algs:
                key: Any = next((k for k in analysis.cells if k == (task, alg, size)), None)
                cell, comp = analysis.cells.get(key), analysis.comparisons.get(key)
                mark = r'^{\ast}' if comp and comp.verdict == 'differs' else ''
                entries.append(f'${number(cell.mean, d)} \\pm {number(np.nan_to_num(cell.sd_episodes), d)}{mark}$' if cell else '--')
            out.append(' & '.join([latex_text(task) if i == 0 else '', str(size), *entries]) + r' \\')
    mark = [r'% * differs from the reference at 5%, Holm-corrected'] if analysis.comparisons else []
    return '\n'.join([*out, r'\bottomrule', r'\end{tabular}', r'% mean over runs, standard deviation over episodes', *mark, ''])
