"""Tables for pages, and pages that are filled with them: `<!-- begin: NAME -->` … `<!-- end: NAME -->` hold what NAME gives."""

from __future__ import annotations

import csv
import functools
import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.names import name_of, parts_of, size_of
from policyopt.files.results_file import read_results
from policyopt.files.training_log import read_log, read_root
from policyopt.reporting.reference import read_reference_tasks
from policyopt.reporting.tables import decimals_of, number, plus_minus, signed, trajectories
from policyopt.reproduction.study import Study
from tools.results.robustness_checks import beside, checks, run_by_run
from tools.results.words import difference, minus, name_of_algorithm, table, verdict

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Cell
    from policyopt.reporting.reference import Baseline
    from policyopt.reproduction.aggregate import Pair

_BLOCK = re.compile(r'(<!-- begin: (?P<name>[^ ]+) -->\n).*?(<!-- end: (?P=name) -->)', re.S)


def fill(text: str, make: Callable[[str], str], path: object) -> str:
    """The page with every marked block made anew by `make(name)`.

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


# --- tables of one results file ---------------------------------------------------------------------------------------


def agreement_table(analysis: Study, per_task: bool = False) -> str:
    """A line per algorithm, or per algorithm and task: the difference to the paper in scores, failed runs, the verdict."""
    a = analysis.aggregate
    lines = []
    for row in a.blocks if per_task else a.algs:
        failed = [f'{row.failed} of {row.num_runs}', f'{row.ref_failed} of {row.ref_runs}']
        lines.append([name_of_algorithm(row.alg), *([row.task] * per_task), row.num_cells, difference(row), *failed, verdict(row)])
    heads = ['algorithm', *(['task'] * per_task), 'cells', 'difference [90% interval]', 'failed runs here', "paper's", 'verdict']
    return table(heads, lines, words=1 + per_task)


def cell_table(analysis: Study) -> str:
    """A line per task and algorithm: our mean return ± half width of its 95% interval, in brackets the published mean."""
    sizes = sorted({k.num_trajs for k in analysis.cells})
    lines = []
    for task, alg in dict.fromkeys((k.task, k.alg) for k in analysis.cells):
        d, entries = decimals_of(analysis, task), []
        for size in sizes:
            cell = next((c for k, c in analysis.cells.items() if k == (task, alg, size)), None)
            ref = analysis.reference.get(cell.key) if cell else None
            entries.append(plus_minus(cell, d) + (f' ({number(ref.mean, d)})' if ref else '') if cell else '')
        lines.append([task, name_of_algorithm(alg), *entries])
    return table(['task', 'algorithm', *map(trajectories, sizes)], lines, words=2)


def comparison_table(analysis: Study) -> str:
    """A line per cell: our mean return with its interval, the paper's, both as scores, and the difference of these."""
    lines = []
    for p in analysis.aggregate.pairs:
        cell, ref, d = analysis.cells[p.key], analysis.reference[p.key], decimals_of(analysis, p.key.task)
        early = [_early(cell)] if _ends_early(analysis) else []
        lines.append([p.key.task, name_of_algorithm(p.key.alg), p.key.num_trajs, plus_minus(cell, d), number(ref.mean, d), *early,
                      f'{p.y_N.mean():.2f}', f'{p.ref.mean:.2f}', signed(p.diff)])  # fmt: skip
    early = ['end early (expert)'] if _ends_early(analysis) else []
    heads = ['task', 'algorithm', 'trajectories', 'return', "paper's", *early, 'score', "paper's", 'difference']
    return table(heads, lines, words=2)


def _ends_early(analysis: Study) -> bool:
    return all(c.y_N.size == 1 for c in analysis.cells.values())


def _early(cell: Cell) -> str:
    """Share of episodes that are shorter than the expert's longest, the expert's in brackets."""
    ours_E, expert_E = (np.concatenate([getattr(r, name) for r in cell.rows]) for name in ('alg_traj_lengths', 'ex_traj_lengths'))
    ours, expert = (f'{100 * float(np.mean(lengths < expert_E.max())):.0f}%' for lengths in (ours_E, expert_E))
    return f'{ours} ({expert})'


def score_table(analysis: Study) -> str:
    """A line per task, algorithm and size without a published number: runs, mean return, that of the demonstrations, score, lowest run.

    The scale is that of the experiment: 0 its random policy, 1 the expert that gave the demonstrations.
    """
    lines = []
    for key, c in analysis.cells.items():
        d, base = decimals_of(analysis, key.task), analysis.baselines[key.task]
        score_N = base.score(c.y_N)
        lines.append([key.task, name_of_algorithm(key.alg), key.num_trajs, c.y_N.size, plus_minus(c, d), number(base.expert_mean, d),
                      f'{score_N.mean():.2f}', f'{score_N.min():.2f}'])  # fmt: skip
    return table(['task', 'algorithm', 'trajectories', 'runs', 'return', 'expert', 'score', 'lowest run'], lines, words=2)


def run_table(analysis: Study) -> str:
    """A line per cell with few runs: our mean and the published mean, and every run of both, the best first."""
    lines = []
    for key, c in analysis.cells.items():
        d, ref = decimals_of(analysis, key.task), analysis.reference.get(key)
        theirs = [number(ref.mean, d), _runs(ref.y_M, d) if ref.y_M is not None else '–'] if ref else ['–', '–']
        lines.append([name_of_algorithm(key.alg), key.num_trajs, number(c.mean, d), theirs[0], _runs(c.y_N, d), theirs[1]])
    return table(['algorithm', 'trajectories', 'return', "paper's", 'runs here', "paper's runs"], lines)


def _runs(y_N: np.ndarray, decimals: int) -> str:
    return ', '.join(number(y, decimals) for y in np.sort(y_N)[::-1])


def task_differences(analysis: Study) -> str:
    """Mean difference in scores of every task, and by number of trajectories."""
    pairs, sizes = analysis.aggregate.pairs, sorted({p.key.num_trajs for p in analysis.aggregate.pairs})
    lines = []
    for task in [*dict.fromkeys(p.key.task for p in pairs), 'mean']:
        row = []
        for size in [*sizes, None]:
            some = [p.diff for p in pairs if task in ('mean', p.key.task) and size in (None, p.key.num_trajs)]
            row.append(signed(float(np.mean(some))) if some else '–')
        lines.append([task, *row])
    return table(['task', *map(trajectories, sizes), 'all'], lines)


def check_table(analysis: Study) -> str:
    """The robustness checks of the mean over all cells, a line each."""
    return table(
        ['mean over', 'cells', 'difference [90% interval]', 'verdict'],
        [[what, row.num_cells, difference(row), verdict(row)] for what, row in checks(analysis)],
    )


def power_table(analysis: Study) -> str:
    """How often the test of an algorithm finds a true difference of that size in every cell; 0 is the rate of false alarms."""
    mine = [c for c in analysis.controls if c.alg == c.ref_alg]
    truths = sorted({c.truth for c in mine})
    lines = []
    for alg in dict.fromkeys(c.alg for c in mine):
        found = {c.truth: f'{c.found:.0%}' for c in mine if c.alg == alg}
        lines.append([name_of_algorithm(alg), *(found.get(t, '–') for t in truths)])
    return table(['algorithm', *(f'true difference {t:.2f}' for t in truths)], lines)


TABLES = {
    'agreement': agreement_table,
    'agreement-by-task': functools.partial(agreement_table, per_task=True),
    'cells': cell_table,
    'comparison': comparison_table,
    'scores': score_table,
    'runs': run_table,
    'by-task': task_differences,
    'checks': check_table,
    'power': power_table,
}


# --- tables of other files --------------------------------------------------------------------------------------------


def curve_table(folder: str) -> str:
    """A line per training log of a folder: its length, the return of its last batch (sampled actions), and its hours."""

    def place(path):
        run = parts_of(name_of(path))
        return run.get('task', ''), run.get('alg', ''), size_of(run), path

    lines = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5')), key=place):
        log, run = read_log(path), parts_of(name_of(path))
        names = [run.get('task', '–'), name_of_algorithm(run.get('alg', '–')), run.get('num_trajs', '–')]
        lines.append([*names, len(log), digits(log['trueret'][-1]), f'{float(log["ttotal"][-1]) / 3600:.2f}'])
    return table(['task', 'algorithm', 'trajectories', 'iterations', 'last batch', 'hours'], lines, words=2)


def digits(x: Any) -> str:
    """A number for reading with three digits, whole from a hundred on."""
    return f'{float(x):.0f}' if abs(float(x)) >= 100 else f'{float(x):.3g}'


def baseline_table(rows: Iterable[Mapping[str, str]], reference: Mapping[str, Baseline]) -> str:
    """Expert and random returns measured over many episodes (rows of a tasks.csv) next to the paper's, which are the scale of scores."""
    lines = []
    for r in rows:
        ref = reference.get(r['task'])
        theirs = [f'{digits(ref.expert_mean)} ({ref.expert_episodes})', digits(ref.random_mean)] if ref else ['–', '–']
        ours = f'{digits(r["expert_return_mean"])} (sd {digits(r["expert_return_std"])}, {r["expert_episodes"]})'
        lines.append([r['task'], *theirs, ours, digits(r['random_return_mean'])])
    heads = ['task', "paper's expert (episodes)", "paper's random policy", 'same expert here (sd, episodes)', 'random policy here']
    return table(heads, lines)


class Blocks:
    """What the blocks of pages hold: `FILE:KIND` for results files below a folder, `FOLDER:baselines` for a tasks.csv in it,
    `FOLDER:curves` for training logs in it, and NAME for a table over several files (`whole`).

    KIND is one of TABLES, or `beside/FILE` or `run-by-run/FILE` for the same sets or runs in another file.
    """

    def __init__(
        self,
        root: str,
        between: Mapping[str, Sequence[str]],
        reference: str,
        others: Mapping[str, str | None] | None = None,
        whole: Mapping[str, Callable[[Blocks], str]] | None = None,
    ):
        """`between`: {file without its ending: such files with several expert sets}; `reference`: CSV of published results.

        others: {file of another experiment: CSV of what was published of it, or None}. whole: {name: maker of a table over files}.
        """
        self.root, self.between, self.reference, self.others, self.whole = root, between, reference, others or {}, whole or {}
        self._known = {}

    def analysis(self, name: str) -> Study:
        """The analysis of one results file, made once."""
        if name not in self._known:
            path, reference = f'{self.root}/{name}.h5', self.others.get(name, self.reference)
            self._known[name] = Study.read(path, reference, [f'{self.root}/{b}.h5' for b in self.between[name]])
        return self._known[name]

    def pairs(self, name: str, alg: str = '') -> dict[tuple[str, int], Pair]:
        """{(task, trajectories): Pair} of one algorithm in a file; of a file with one algorithm without its name."""
        return {(p.key.task, p.key.num_trajs): p for p in self.analysis(name).aggregate.pairs if alg in ('', p.key.alg)}

    def start_of(self, name: str) -> str:
        """When the first training of a results file, or of a folder of logs (with a slash at its end), began, in ISO 8601."""
        if name.endswith('/'):
            return min(read_root(path)['start_time'] for path in glob.glob(os.path.join(glob.escape(f'{self.root}/{name}'), '*.h5')))
        return read_results(f'{self.root}/{name}.h5').attrs['training_start']

    def make(self, name: str) -> str:
        """The text of the block `name`; KeyError when there is no such block."""
        if name in self.whole:
            return self.whole[name](self)
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
            needs_paper = kind not in ('cells', 'scores', 'runs')
            if needs_paper and self.analysis(file).aggregate is None:
                raise UserError('needs published results, and there are none for this file')
            return TABLES[kind](self.analysis(file))
        kind, _, part = kind.partition('/')
        if kind not in ('beside', 'run-by-run') or part not in self.between:
            raise KeyError(name)
        pair = self.analysis(file), self.analysis(part)
        return minus(beside(*pair) if kind == 'beside' else '\n'.join(f'* {s}' for s in run_by_run(*pair)))
