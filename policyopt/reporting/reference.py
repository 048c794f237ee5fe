"""Published results: the cells in a reference's CSV, and the expert and random returns of its tasks.

Letters: M is the number of runs of a cell of the reference.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from policyopt.errors import UserError, closest
from policyopt.files.atomic import check_regular
from policyopt.files.names import cell_id, id_of
from policyopt.files.trajectory_file import MAX_RETURN
from policyopt.reporting.statistics import LEVEL, NAN, sd, t_margin

CEILING = 0.02  # a cell whose runs all lie within this of the expert, on both sides, can show no difference
FAILED = 0.01  # a run with at most this score has learned nothing


class CellKey(NamedTuple):
    """Identifies a cell: what all of its runs share."""

    task: str
    alg: str
    num_trajs: int

    def __str__(self) -> str:
        return cell_id(self.alg, self.task, self.num_trajs)


@dataclasses.dataclass
class Reference:
    """A published cell: mean and sd over m runs, and the runs themselves where they were published.

    is_ratio: the numbers are not returns but shares of the expert's mean return, 1 for the expert.
    """

    mean: float
    sd: float
    m: int
    y_M: Any = None  # an array, or None
    is_ratio: bool = False

    @property
    def margin(self) -> float:
        return t_margin(self.sd, self.m)

    @property
    def runs(self) -> np.ndarray:
        """The runs; if they were not published, (mean − sd, mean + sd)."""
        return self.y_M if self.y_M is not None else self.mean + np.nan_to_num(self.sd) * np.array([-1.0, 1.0])

    def mapped(self, function: Callable[[Any], Any], factor: float) -> Reference:
        """This cell with all means mapped by a linear function with the slope `factor`."""
        y_M = None if self.y_M is None else function(self.y_M)
        return Reference(float(function(self.mean)), self.sd * abs(factor), self.m, y_M)

    def in_returns(self, expert_mean: float) -> Reference:
        """This cell as returns; expert_mean: the mean return of the expert."""
        return self.mapped(lambda x: x * expert_mean, expert_mean) if self.is_ratio else self


@dataclasses.dataclass
class Baseline:
    """Expert and random returns of one task; means are NaN if nothing was measured."""

    task: str
    env: str
    expert_mean: float
    expert_sd: float
    expert_episodes: int
    random_mean: float
    random_sd: float
    random_episodes: int

    @property
    def width(self) -> float:
        """expert − random, the unit of scores; NaN if scores are undefined."""
        width = self.expert_mean - self.random_mean
        return width if width and math.isfinite(width) else NAN

    def score(self, x: Any) -> Any:
        """(x − random)/(expert − random): 0 is the random policy, 1 the expert; NaN if that is undefined."""
        return (np.asarray(x, float) - self.random_mean) / self.width


def at_ceiling(*scores: np.ndarray) -> bool:
    """Whether all of these scores lie within CEILING of the expert's."""
    return bool(np.all(np.abs(np.concatenate(scores) - 1) <= CEILING))


def read_reference(path: str) -> dict[CellKey, Reference]:
    """{CellKey: Reference} from a CSV of published results, in one of two forms.

    One row per run: columns task, alg, num_trajs, run, return_mean (`results/paper/results_per_run.csv`, and what --csv writes).
    One row per cell: columns task, alg, num_trajs, return_mean, margin95, runs; then sd = margin95·√runs / t(.975, runs − 1), and
    an empty margin95, where none was published, makes the cell count as one run.
    expert_ratio may stand for return_mean: the mean return as a share of the expert's (`results/peers/imitation.csv`).
    """
    columns, lines = _read_csv(path)
    per_cell = {'margin95', 'runs'} <= set(columns)
    is_ratio = 'expert_ratio' in columns and 'return_mean' not in columns
    value = 'expert_ratio' if is_ratio else 'return_mean'
    need = ['task', 'alg', 'num_trajs', value, *(['margin95', 'runs'] if per_cell else ['run'])]
    form = 'task, alg, num_trajs, return_mean (or expert_ratio) and either run (one row per run) or margin95 and runs (one row per cell)'
    found = {}
    for line in _checked(path, columns, lines, need, form):
        key = CellKey(line.fields['task'], line.fields['alg'], line.whole('num_trajs'))
        run = 0 if per_cell else line.whole('run')
        y = line.number(value, -MAX_RETURN, MAX_RETURN)
        if run in found.setdefault(key, {}):
            raise UserError(f'{line.where}: {key if per_cell else id_of(key.alg, key.task, key.num_trajs, run)} appears twice')
        found[key][run] = _from_margin(y, line, is_ratio) if per_cell else y
    if not found:
        raise UserError(f'{path}: holds no rows; expected reference results')
    if per_cell:
        return {key: cell[0] for key, cell in found.items()}
    ys = {key: np.array([cell[run] for run in sorted(cell)]) for key, cell in found.items()}
    return {key: Reference(float(y_M.mean()), sd(y_M), y_M.size, y_M, is_ratio) for key, y_M in ys.items()}


def tasks_beside(path: str) -> str:
    """The file of expert and random returns next to a reference file, if it exists."""
    return os.path.join(os.path.dirname(os.path.abspath(path)), 'tasks.csv')


def read_reference_tasks(path: str) -> dict[str, Baseline]:
    """{task: Baseline} from `tasks.csv` in the folder of a reference file: its expert and random returns; {} without one."""
    path = tasks_beside(path)
    if not os.path.exists(path):
        return {}
    columns, lines = _read_csv(path)
    numbers = ['expert_return_mean', 'expert_return_std', 'random_return_mean', 'random_return_std']
    need = ['task', *numbers, 'expert_episodes']
    found = {}
    for line in _checked(path, columns, lines, need, ', '.join(need)):
        means = dict(zip(('expert_mean', 'expert_sd', 'random_mean', 'random_sd'), map(line.number, numbers), strict=True))
        task, episodes = line.fields['task'], line.whole('expert_episodes')
        found[task] = Baseline(task, '', **means, expert_episodes=episodes, random_episodes=0)
    return found


class _Line(NamedTuple):
    """A line of a CSV file, and its place for messages."""

    where: str
    fields: dict[str, str]

    def number(self, column: str, low: float | None = None, high: float = math.inf) -> float:
        """A number; unlike `float`, rejects underscores and digits of other scripts."""
        text = self.fields[column].strip()
        with contextlib.suppress(ValueError):
            if re.fullmatch('[-+.0-9A-Za-z]+', text) and (low is None or low <= float(text) <= high):
                return float(text)
        raise self.wrong(column, 'a number' + (f' from {low:g}' if low is not None else ''))

    def whole(self, column: str, low: int = 0) -> int:
        found = re.fullmatch(r'\s*([0-9]{1,15})(\.0*)?\s*', self.fields[column])
        if not found or int(found[1]) < low:
            raise self.wrong(column, f'a whole number from {low}')
        return int(found[1])

    def wrong(self, column: str, expected: str) -> UserError:
        return UserError(f'{self.where}: {column} is {self.fields[column][:40]!r}; expected {expected}')


def _read_csv(path: str) -> tuple[Sequence[str], list[_Line]]:
    check_regular(path, 'a CSV of reference results')
    try:
        with open(path, newline='', encoding='utf-8-sig') as f:
            reader = csv.DictReader(f)
            lines, columns = list(reader), reader.fieldnames or []
    except FileNotFoundError as e:
        raise UserError(f'{path}: no such file; expected a CSV of reference results') from e
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f'{path}: cannot be read as CSV ({e}); expected reference results') from e
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        raise UserError(f"{path}: has two columns '{twice}'; expected each once")
    return columns, [_Line(f'{path}: line {number}', line) for number, line in enumerate(lines, 2)]


def _checked(path: str, columns: Sequence[str], lines: Sequence[_Line], need: Sequence[str], form: str) -> Iterator[_Line]:
    """Yield the lines of a file after checking that it has the needed columns; form: these columns in words."""
    for column in need:
        if column not in columns:
            raise UserError(f"{path}: has no column '{column}'.{closest(column, columns)} Expected {form}")
    for line in lines:
        if None in line.fields or None in line.fields.values():
            more = 'more' if None in line.fields else 'fewer'
            raise UserError(f'{line.where}: has {more} fields than the {len(columns)} columns')
        yield line


def _from_margin(mean: float, line: _Line, is_ratio: bool) -> Reference:
    """A reference cell from mean and 95% margin over m runs: sd = margin·√m / t(.975, m − 1); one run where the margin is empty."""
    m = line.whole('runs', 1)
    if m == 1 or not line.fields['margin95'].strip():
        return Reference(mean, NAN, 1, is_ratio=is_ratio)
    margin = line.number('margin95', 0)
    return Reference(mean, margin * math.sqrt(m) / float(stats.t.ppf(1 - LEVEL / 2, m - 1)), m, is_ratio=is_ratio)
