"""Results files of one experiment that was run in parts, on several machines or days, as one file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from policyopt.errors import UserError
from policyopt.files.names import id_of
from policyopt.files.results_file import ResultRow, Results, TaskRow, check_same_actions
from policyopt.files.yamlfile import parse_yaml

SAID_OF_PARTS = ('command', 'git_hash', 'machine', 'versions', 'content_sha256')
WHEN = ('training_start', 'training_end', 'training_seconds')


def merge_results(parts: Sequence[tuple[str, Results]]) -> tuple[list[ResultRow], list[TaskRow], dict[str, Any], list[str]]:
    """(rows, tasks, root attributes, remarks) of the parts (path, results) together.

    Rows are in the order of the experiment's tasks, then of algorithms as they come, sizes and runs. Where parts measured the expert or the
    random policy of a task on other episodes, as those of other expert sets, the first part's are kept and a remark says so.
    Raises UserError for parts of different experiments, a task with two environments or experts, a run that two parts hold, and numbers of
    episodes that do not fit into one table.
    """
    first_path, first = parts[0]
    names, experiment = _experiment(first_path, first)
    rows: dict[tuple[str, str, int, int], tuple[str, ResultRow]] = {}
    tasks: dict[str, tuple[str, TaskRow]] = {}
    remarks = []
    for path, part in parts:
        if part.attrs.get('run_name') != first.attrs.get('run_name') or _experiment(path, part)[1] != experiment:
            raise UserError(f'{path}: holds another experiment than {first_path}; expected parts of one, with equal tasks and training')
        check_same_actions(path, part, first_path, first)
        for task in part.tasks:
            kept_path, kept = tasks.setdefault(task.task, (path, task))
            if (task.env, task.expert_policy) != (kept.env, kept.expert_policy):
                theirs, ours = f'{task.env} with {task.expert_policy}', f'{kept.env} with {kept.expert_policy}'
                raise UserError(f'{path}: its task {task.task} is {theirs}, that of {kept_path} {ours}; expected the same')
            if not _same_episodes(task, kept):
                remarks.append(
                    f'{path}: other episodes of the expert or the random policy of {task.task} than in {kept_path}, which are kept'
                )
        unknown = sorted({r.task for r in (*part.rows, *part.tasks)} - set(names))
        if unknown:
            raise UserError(f"{path}: its task '{unknown[0]}' is not in its experiment; expected one of {', '.join(names)}")
        for row in part.rows:
            key = row.alg, row.task, row.num_trajs, row.run
            if key in rows:
                raise UserError(f'{path}: holds the run {id_of(*key)}, as {rows[key][0]} does; expected every run in one part')
            rows[key] = path, row
    _check_widths('the runs were judged', [(path, len(row.alg_traj_returns)) for path, row in rows.values()])
    _check_widths('the experts were measured', [(path, len(task.ex_traj_returns)) for path, task in tasks.values()])
    of_task, of_alg = ({name: i for i, name in enumerate(dict.fromkeys(some))} for some in (names, [k[0] for k in rows]))
    ordered = sorted(rows, key=lambda k: (of_task[k[1]], of_alg[k[0]], k[2:]))
    return [rows[k][1] for k in ordered], [tasks[k][1] for k in sorted(tasks, key=of_task.__getitem__)], _attrs(parts), remarks


def _check_widths(what: str, counts: list[tuple[str, int]]) -> None:
    """The columns of episodes have one width."""
    widths = {n: path for path, n in counts}
    if len(widths) > 1:
        said = ', '.join(f'{n} in {path}' for n, path in widths.items())
        raise UserError(f'{what} by different numbers of episodes ({said}); expected one number')


def _experiment(path: str, part: Results) -> tuple[list[str], Any]:
    """(names of the tasks, what must be equal in all parts: the tasks and the training of the experiment's file)."""
    spec = parse_yaml(part.attrs.get('spec', ''), f'{path}: the attribute spec')
    tasks = spec.get('tasks') if isinstance(spec, dict) else None
    names = [str(t.get('name')) for t in tasks if isinstance(t, dict)] if isinstance(tasks, list) else []
    if not names or 'training' not in spec:
        raise UserError(f'{path}: its attribute spec has no tasks and training; expected the experiment as 2_eval writes it')
    return names, (tasks, spec['training'])


def _same_episodes(a: TaskRow, b: TaskRow) -> bool:
    fields = [f.name for f in dataclasses.fields(TaskRow) if f.name.endswith(('returns', 'lengths'))]
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=True) for n in fields)


def _attrs(parts: Sequence[tuple[str, Results]]) -> dict[str, Any]:
    """Root attributes: the experiment's, those of training together, and what each part says of its own origin in `merged_from`."""
    attrs = [part.attrs for _, part in parts]
    found: dict[str, Any] = {k: attrs[0].get(k, '') for k in ('spec', 'run_name', 'eval_deterministic')}
    if len({a.get('drawn_seed') for a in attrs}) == 1:
        found['drawn_seed'] = attrs[0].get('drawn_seed')
    for key in dict.fromkeys(k for a in attrs for k in a if k.startswith('training_') and k not in WHEN):
        said: list[str] = []
        for text in (a[key] for a in attrs if key in a):
            said += [] if any(text in other for other in said) else [text]
        found[key] = ', '.join(said)
    if all(k in a for a in attrs for k in WHEN):
        found |= {'training_start': min(a['training_start'] for a in attrs), 'training_end': max(a['training_end'] for a in attrs)}
        found['training_seconds'] = f'{sum(_seconds(path, part.attrs["training_seconds"]) for path, part in parts):.0f}'
    origins = []
    for path, part in parts:
        one = {'file': path, 'runs': len(part.rows)} | {k: part.attrs[k] for k in SAID_OF_PARTS if k in part.attrs}
        origins += _origins(path, part.attrs['merged_from']) if 'merged_from' in part.attrs else [one]
    return {k: v for k, v in found.items() if v} | {'merged_from': json.dumps(origins)}


def _seconds(path: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as e:
        raise UserError(f"{path}: its attribute training_seconds is '{text}', not a number; the file is damaged or not one of ours") from e


def _origins(path: str, text: str) -> list[dict[str, Any]]:
    """What a part that was merged itself says of its parts."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise UserError(f'{path}: its attribute merged_from is no list in JSON; the file is damaged or not one of ours')
    return found
