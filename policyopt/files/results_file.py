"""results.h5: the returns of every learned policy, of the experts and of a random policy.

Table /results has one row per run, table /tasks one per task. The numbers of the episodes are array columns of a fixed shape, so that
PyTables or h5py alone can read them. Root attributes: spec (the YAML), run_name, eval_deterministic, and the provenance of the file.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from policyopt.command_line import format_table
from policyopt.errors import UserError, printable
from policyopt.files.guard import decoded
from policyopt.files.hdf5 import attrs_of, check_column, open_h5, read_table, set_attrs, write_h5
from policyopt.files.names import settings_of
from policyopt.files.trajectory_file import MAX_RETURN


@dataclasses.dataclass(frozen=True)
class ResultRow:
    """One run. ex_* are the episodes of its expert set, alg_* those of its policy.

    snapshot: the snapshot that was evaluated. dataset: the index of the expert set.
    last_trueret: mean true return of the last training batch, with sampled actions; NaN where training plays no episodes, as in cloning.
    run_sha256, evaluated: hash of the run's file, and how the run was evaluated. They tell when a row is out of date; empty in older files.
    """

    alg: str
    task: str
    num_trajs: int
    run: int
    seed: int
    snapshot: str
    dataset: int
    ex_traj_returns: np.ndarray
    ex_traj_lengths: np.ndarray
    alg_traj_returns: np.ndarray
    alg_traj_lengths: np.ndarray
    last_trueret: float = math.nan
    run_sha256: str = ''
    evaluated: str = ''


@dataclasses.dataclass(frozen=True)
class TaskRow:
    """One task: the episodes of all its expert sets, and the episodes of the random policy."""

    task: str
    env: str
    expert_policy: str
    ex_traj_returns: np.ndarray
    ex_traj_lengths: np.ndarray
    random_returns: np.ndarray
    random_lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class Results:
    """A results file in memory."""

    rows: list[ResultRow]
    tasks: list[TaskRow]
    attrs: dict[str, str]


def write_results(path: str, rows: list[ResultRow], tasks: list[TaskRow], attrs: dict[str, Any], replace: bool = False) -> None:
    """Write a results file, whole or not at all. Raises RunFailed where the file exists, unless `replace`."""
    with write_h5(path, replace) as h5:
        _write_table(h5, 'results', ResultRow, rows)
        _write_table(h5, 'tasks', TaskRow, tasks)
        set_attrs(h5.root, attrs)


def read_results(path: str) -> Results:
    """Read a results file of ours.

    Raises UserError when it is missing, damaged, lacks a table or a column, or holds returns of which no statistics can be computed.
    """
    with open_h5(path, 'a results file as 2_eval writes it') as h5:
        rows, task_rows = _read_table(h5, 'results', ResultRow, path), _read_table(h5, 'tasks', TaskRow, path)
        attrs = {key: printable(text, keep='\n\t') for key, text in attrs_of(h5.root).items()}
    return Results(rows, task_rows, attrs)


def takes_most_likely_actions(attrs: Mapping[str, str]) -> bool:
    """Whether the policies took their most likely actions, by root attributes. They did if no attribute says so, as in the paper."""
    return attrs.get('eval_deterministic', 'true') == 'true'


def check_same_actions(path: str, results: Results, other_path: str, other: Results) -> None:
    """Raise UserError when the policies of one file took their most likely actions, and the policies of the other sampled theirs."""
    if takes_most_likely_actions(results.attrs) != takes_most_likely_actions(other.attrs):
        drawn, likely = (other_path, path) if takes_most_likely_actions(results.attrs) else (path, other_path)
        raise UserError(f'{drawn}: was played with sampled actions, {likely} with the most likely ones; expected one eval_deterministic')


def read_other_sets(paths: Iterable[str], path: str, results: Results) -> list[tuple[str, list[ResultRow]]]:
    """[(path, rows)] of files with several expert sets, which show how much the `results` of `path` would vary between sets.

    Raises UserError as `read_results`, and as `check_same_actions`.
    """
    found = [(p, read_results(p)) for p in paths]
    for p, other in found:
        check_same_actions(p, other, path, results)
    return [(p, other.rows) for p, other in found]


def _write_table(h5: Any, name: str, row_type: type, rows: list) -> None:
    columns = {}
    for field in dataclasses.fields(row_type):
        values = [getattr(row, field.name) for row in rows]
        if field.type is str:
            columns[field.name] = np.array([v.encode() for v in values])
        else:
            is_count = field.type is int or field.name.endswith('lengths')
            columns[field.name] = np.array(values, dtype=np.int64 if is_count else np.float64)
    dtype = np.dtype([(key, col.dtype, col.shape[1:]) for key, col in columns.items()])
    data = np.empty(len(rows), dtype)
    for key, col in columns.items():
        data[key] = col
    h5.create_table('/', name, obj=data, expectedrows=max(len(rows), 1))


KINDS = {str: ('S', 'a text'), int: ('iu', 'a whole number'), float: ('iuf', 'a number')}  # of the column, by the type of the field
BELOW = {'task': '', 'alg': '', 'num_trajs': 0, 'run': -1}  # {column: each value must be larger than this}


def _read_table(h5: Any, name: str, row_type: type, path: str) -> list:
    data, columns = read_table(h5, name, 'a results file as 2_eval writes it'), {}
    for f in dataclasses.fields(row_type):
        if f.name not in data.dtype.names:
            if f.default is dataclasses.MISSING:
                raise UserError(f"{path}: the table '/{name}' has no column '{f.name}'; it has {', '.join(data.dtype.names)}")
            continue  # an older file, which lacks this column
        kind: Any = f.type
        check_column(f'{path}: /{name}', data, f.name, *KINDS.get(kind, ('iuf', 'a list of numbers')), num_axes=int(kind not in KINDS))
        column, what = data[f.name], f"{path}: the column '{f.name}' of /{name}"
        if f.name.endswith('returns'):
            beyond = column[np.isfinite(column) & (np.abs(column) > MAX_RETURN)]
            if beyond.size:
                expected = f'numbers up to {MAX_RETURN:g}, whose variances can be computed'
                raise UserError(f'{what} holds {beyond.flat[0]:g}; expected {expected}. Scale the rewards of the task')
        if kind is str:
            columns[f.name] = [printable(decoded(x, what)) for x in column]
        else:
            columns[f.name] = [kind(x) for x in column] if kind in KINDS else list(column)
        for i, x in enumerate(columns[f.name] if f.name in BELOW else ()):
            if not x > BELOW[f.name]:
                raise UserError(f'{path}: row {i} of /{name} has {f.name} {x!r}; the file is damaged or not one of ours')
    return [row_type(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def returns_table(rows: list[ResultRow]) -> str:
    """The mean return and its standard deviation (sd) over runs, one line per task and algorithm, one column per dataset size.

    The settings of a sweep have columns of their own.
    """
    sizes = sorted({r.num_trajs for r in rows})
    settings = {alg: settings_of(alg) for alg in dict.fromkeys(r.alg for r in rows)}
    varied = list(dict.fromkeys(key for _, found in settings.values() for key in found))
    lines = [['task', 'algorithm', *varied, *(f'{n} traj{"s" if n > 1 else ""}' for n in sizes), 'expert']]
    for task in dict.fromkeys(r.task for r in rows):
        for alg in dict.fromkeys(r.alg for r in rows if r.task == task):
            cells = []
            for size in sizes:
                returns = [r.alg_traj_returns.mean() for r in rows if (r.task, r.alg, r.num_trajs) == (task, alg, size)]
                cells.append(mean_sd(returns))
            experts = {r.dataset: r.ex_traj_returns.mean() for r in rows if r.task == task}
            name, found = settings[alg]
            lines.append([task, name, *(found.get(key, '') for key in varied), *cells, f'{np.mean(list(experts.values())):.1f}'])
    return format_table(lines)


def mean_sd(values: Sequence[float] | np.ndarray, decimals: int = 1) -> str:
    """Mean and standard deviation (sd, with n − 1) as text. One value has no sd; without values it is a dash."""
    if not len(values):
        return '-'
    return f'{np.mean(values):.{decimals}f}' + (f' (sd {np.std(values, ddof=1):.{decimals}f})' if len(values) > 1 else '')
