"""Tables for documents, and documents that are filled with them: `<!-- begin: NAME -->` … `<!-- end: NAME -->` hold what NAME gives."""

from __future__ import annotations

import csv
import functools
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.files.runs import name_of, parts_of, size_of
from policyopt.files.snapshots import read_log, read_root
from policyopt.reporting.reference import read_reference_tasks
from policyopt.reporting.tables import decimals_of, markdown_section, number, signed, summary, trajectories
from policyopt.reproduction.report import sections
from policyopt.reproduction.study import read_study
from policyopt.util import UserError
from tools.results.robustness_checks import beside, looks, run_by_run

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Analysis, Cell
    from policyopt.reporting.reference import Baseline
    from policyopt.reproduction.study import Study

_BLOCK = re.compile(r'(<!-- begin: (?P<name>[^ ]+) -->\n).*?(<!-- end: (?P=name) -->)', re.S)


def fill(text: str, make: Callable[[str], str], path: object) -> str:
    """The document with every marked block made anew by `make(name)`.

    Raises UserError, naming the file, for a name that nothing is known of, and for a begin without its end.
    """

    def block(match):
        try:
            return match.group(1) + make(match.group('name')).strip('\n') + '\n' + match.group(3)
        except UserError as e:
            raise UserError(f"{path}: the block '{match.group('name')}': {e}") from e
        except KeyError as e:
            raise UserError(f"{path}: nothing is known of the block '{match.group('name')}'") from e

    opened, found = len(re.findall('<!-- begin: ', text)), len(_BLOCK.findall(text))
    if opened != found:
        raise UserError(f'{path}: {opened} blocks begin, but {found} of them end with the same name; expected <!-- end: NAME --> for each')
    return _BLOCK.sub(block, text)


def table(heads: list[str], lines: list[list], words: int = 1) -> str:
    """A Markdown table; the first `words` columns are aligned to the left."""
    rule = ['---'] * words + ['---:'] * (len(heads) - words)
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in [heads, rule, *lines])


def section_block(analysis: Study, title: str, part: str = '') -> str:
    """One section of the answer, by its title, without its heading; of it only the sentences ('said') or the table ('table') if asked."""
    section = next(s for s in sections(analysis) if s.title == title)
    empty = {'said': {'table': None, 'notes': []}, 'table': {'sentences': [], 'notes': []}}.get(part, {})
    return '\n'.join(markdown_section(section._replace(**empty))[2:])


def cell_table(analysis: Analysis) -> str:
    """A line per task and algorithm: our mean ± half width of its 95% interval, in brackets the reference's mean."""
    sizes = sorted({k.num_trajs for k in analysis.cells})
    lines = []
    for task, alg in dict.fromkeys((k.task, k.alg) for k in analysis.cells):
        d, entries = decimals_of(analysis, task), []
        for size in sizes:
            cell = next((c for k, c in analysis.cells.items() if k == (task, alg, size)), None)
            entries.append('' if cell is None else _entry(analysis, cell, d))
        lines.append([task, f'`{alg}`', *entries])
    return table(['task', 'algorithm', *map(trajectories, sizes)], lines, words=2)


def _entry(analysis: Analysis, cell: Cell, d: int) -> str:
    half = f' ± {number(cell.half_width, d)}' if np.isfinite(cell.half_width) else ''
    ref = analysis.reference.get(cell.key)
    return minus(number(cell.mean, d) + half + (f' ({number(ref.mean, d)})' if ref else ''))


def minus(text: str) -> str:
    """Typographic minus signs."""
    return text.replace('-', '−')


def set_table(analysis: Analysis) -> str:
    """A line per cell: our mean with the interval over sets, the reference's mean, and the mean of every expert set."""
    lines = []
    for key, c in analysis.cells.items():
        d = decimals_of(analysis, key.task)
        means = ', '.join(number(c.y_N[c.set_N == s].mean(), d - (d > 0)) for s in np.unique(c.set_N))
        ref = analysis.reference.get(key)
        lines.append([key.task, f'`{key.alg}`', key.num_trajs, minus(f'{number(c.mean, d)} ± {number(c.half_width, d)}'),
                      minus(number(ref.mean, d)) if ref else '–', minus(means)])  # fmt: skip
    return table(['task', 'algorithm', 'trajectories', 'ours ± 95% over sets', 'reference', 'means of the sets'], lines, words=2)


def run_table(analysis: Analysis, episodes: bool = False) -> str:
    """A line per cell of single runs or of few: our mean, the reference's, the expert's, and every run.

    episodes: also their spread, their median, and how many end before the longest of the expert's.
    """
    lines = []
    for key, c in analysis.cells.items():
        d, b, ref = decimals_of(analysis, key.task), analysis.baselines[key.task], analysis.reference.get(key)
        spread = f' (sd {number(c.sd_episodes, d)})' if episodes else ''
        shown = minus(number(c.mean, d) + spread), *(_episodes(c, d) if episodes else [_runs(c.y_N, d)])
        runs = _runs(ref.y_M, d) if ref and ref.y_M is not None else '–'
        lines.append([key.task, f'`{key.alg}`', key.num_trajs, *shown, runs, minus(number(b.expert_mean, d))])
    more = ['median', 'end early (expert)'] if episodes else ['our runs']
    return table(['task', 'algorithm', 'trajectories', 'ours', *more, "reference's runs", 'expert here'], lines, words=2)


def _runs(y_N: np.ndarray, decimals: int) -> str:
    """The returns of runs, the best first."""
    return minus(', '.join(number(y, decimals) for y in np.sort(y_N)[::-1]))


def _episodes(cell: Cell, decimals: int) -> tuple[str, str]:
    """(median return, share of episodes shorter than the expert's longest, the expert's in brackets)."""
    ours_E = np.concatenate([r.alg_traj_lengths for r in cell.rows])
    expert_E = np.concatenate([r.ex_traj_lengths for r in cell.rows])
    median = float(np.median(np.concatenate([r.alg_traj_returns for r in cell.rows])))
    ours, expert = (f'{100 * float(np.mean(lengths < expert_E.max())):.0f}%' for lengths in (ours_E, expert_E))
    return minus(number(median, decimals)), f'{ours} ({expert})'


def curve_table(folder: str) -> str:
    """A line per training log of a folder: return of its last batch, played as it learns, its length and its machine."""

    def place(path):
        run = parts_of(name_of(path))
        return run.get('task', ''), run.get('alg', ''), size_of(run), path

    lines = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5')), key=place):
        log, root, run = read_log(path), read_root(path), parts_of(name_of(path))
        hours = float(log['ttotal'][-1]) / 3600
        return_mean = minus(digits(log['trueret'][-1]))
        versions = ', '.join(f'{k} {root["versions"][k]}' for k in ('torch', 'numpy') if k in root.get('versions', {}))
        lines.append([*(run.get(k, '–') for k in ('task', 'alg', 'num_trajs', 'run')), len(log), return_mean, f'{hours:.2f}', versions])
    return table(['task', 'algorithm', 'trajectories', 'run', 'iterations', 'last batch', 'hours', 'with'], lines, words=2)


def digits(x: Any) -> str:
    """A number for reading with three digits, whole from a hundred on."""
    return f'{float(x):.0f}' if abs(float(x)) >= 100 else f'{float(x):.3g}'


def baseline_table(rows: Iterable[Mapping[str, str]], reference: Mapping[str, Baseline]) -> str:
    """Expert and random returns measured over many episodes (rows of a tasks.csv) beside the reference's."""
    lines = []
    for r in rows:
        ref = reference.get(r['task'])
        lines.append([
            r['task'],
            minus(f'{digits(r["expert_return_mean"])} (sd {digits(r["expert_return_std"])})'),
            minus(f'{digits(r["expert_return_median"])}'),
            r['expert_episodes'],
            minus(f'{digits(ref.expert_mean)} (sd {digits(ref.expert_sd)}, {ref.expert_episodes})') if ref else '–',
            minus(f'{digits(r["random_return_mean"])} (sd {digits(r["random_return_std"])})'),
            r['random_episodes'],
            minus(f'{digits(ref.random_mean)} (sd {digits(ref.random_sd)})') if ref else '–',
        ])  # fmt: skip
    heads = ['task', 'expert here', 'median', 'episodes', "reference's expert (sd, episodes)", 'random here', 'episodes', "reference's random"]
    return table(heads, lines)


def largest_differences(analysis: Study, num: int = 6) -> str:
    """The cells that differ most from the reference in units of (expert − random), with both p values."""
    lines = []
    for p in sorted(analysis.aggregate.pairs, key=lambda p: -abs(p.diff))[:num]:
        c, d = analysis.comparisons[p.key], decimals_of(analysis, p.key.task)
        cell = analysis.cells[p.key]
        lines.append([p.key.task, f'`{p.key.alg}`', p.key.num_trajs, minus(number(cell.mean, d)), minus(number(c.ref.mean, d)),
                      minus(signed(p.diff)), minus(number(c.p, 3)), c.judged_by, minus(number(c.p_holm, 3)), c.verdict])  # fmt: skip
    heads = ['task', 'algorithm', 'trajectories', 'ours', 'reference', 'difference', 'p', 'by', 'Holm', 'verdict']
    return table(heads, lines, words=2)


def task_differences(analysis: Study) -> str:
    """Mean normalised difference of every task, and from how many trajectories up."""
    pairs, sizes = analysis.aggregate.pairs, sorted({p.key.num_trajs for p in analysis.aggregate.pairs})
    lines = []
    for task in [*dict.fromkeys(p.key.task for p in pairs), 'mean']:
        row = []
        for size in [*sizes, None]:
            some = [p.diff for p in pairs if task in ('mean', p.key.task) and size in (None, p.key.num_trajs)]
            row.append(minus(signed(float(np.mean(some)))) if some else '–')
        lines.append([task, *row])
    return table(['task', *map(trajectories, sizes), 'all'], lines)


TITLES = {
    'answer': 'Does it reproduce?',
    'power': 'What single cells could show',
    'failures': 'Failed runs',
    'per-task': 'Per task',
    'controls': 'Negative controls',
}
TABLES = {
    'cells': cell_table,
    'sets': set_table,
    'runs': run_table,
    'episodes': functools.partial(run_table, episodes=True),
    'largest': largest_differences,
    'by-task': task_differences,
    'verdicts': lambda analysis: '\n'.join(f'* {s}' for s in summary(analysis)),
    'looks': lambda analysis: '\n'.join(f'* {minus(s)}' for s in looks(analysis)),
}


class Blocks:
    """What the blocks of documents hold: `FILE:KIND` for results files below a folder, `FOLDER:baselines` for a tasks.csv in it,
    `FOLDER:curves` for training logs in it.

    KIND is one of TABLES; `beside/FILE` or `run-by-run/FILE` for the same sets or runs in another file; or one of TITLES for that section
    of the answer, with `/said` or `/table` for a part of it.
    """

    def __init__(self, root: str, between: Mapping[str, Sequence[str]], reference: str, others: Mapping[str, str | None] | None = None):
        """`between`: {file without its ending: such files with several expert sets}; `reference`: CSV of published results.

        others: {file of another experiment: CSV of what was published of it, or None}.
        """
        self.root, self.between, self.reference, self.others = root, between, reference, others or {}
        self._known = {}

    def analysis(self, name: str) -> Study:
        """The analysis of one results file, made once."""
        if name not in self._known:
            path, reference = f'{self.root}/{name}.h5', self.others.get(name, self.reference)
            self._known[name] = read_study(path, reference, [f'{self.root}/{b}.h5' for b in self.between[name]])
        return self._known[name]

    def make(self, name: str) -> str:
        """The text of the block `name`; KeyError when there is no such block."""
        file, _, kind = name.partition(':')
        folder = os.path.join(self.root, file)
        if kind == 'baselines':
            if not os.path.exists(tasks := os.path.join(folder, 'tasks.csv')):
                raise UserError(f'needs {tasks}, and there is no such file')
            with open(tasks, newline='', encoding='utf-8') as f:
                return baseline_table(list(csv.DictReader(f)), read_reference_tasks(self.reference))
        if kind == 'curves':
            if not glob.glob(os.path.join(glob.escape(folder), '*.h5')):
                raise UserError(f'needs logs in {folder}, and there are none')
            return curve_table(folder)
        if file not in self.between:
            raise KeyError(name)
        if kind in TABLES:
            return TABLES[kind](self.analysis(file))
        kind, _, part = kind.partition('/')
        if kind in ('beside', 'run-by-run') and part in self.between:
            pair = self.analysis(file), self.analysis(part)
            return minus(beside(*pair) if kind == 'beside' else '\n'.join(f'* {s}' for s in run_by_run(*pair)))
        if part not in ('', 'said', 'table') or not any(s.title == TITLES[kind] for s in sections(self.analysis(file))):
            raise KeyError(name)
        return section_block(self.analysis(file), TITLES[kind], part)
