"""What clusters are told: the sections slurm, pbs and array of an experiment's options, checked before anything is submitted.

What stands in a directive is one line of plain words, so that no value of a YAML file can become a command of a job script.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
import string
from collections.abc import Sequence
from typing import Any

from policyopt.files.yamlfile import Section, Source, boolean, one_of, show, text, whole

_FIELDS = ('name', 'num', 'max_running', 'cores', 'logs')  # of directives and submit commands


@dataclasses.dataclass(frozen=True)
class Batch:
    """What every cluster is told of its array jobs: tasks at a time, runs in each, tasks in one array; None leaves it to the cluster."""

    max_running: int | None = None
    runs_per_task: int = 1
    max_array: int | None = None


@dataclasses.dataclass(frozen=True)
class Slurm(Batch):
    """What `-e slurm` asks for; None leaves it to the cluster, `extra` are directives of the user's own."""

    partition: str | None = None
    time: str | None = None
    mem: str | None = None
    cpus: int = 1
    account: str | None = None
    requeue: bool = False
    extra: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pbs(Batch):
    """What `-e pbs` asks for: the block of 2016, the dialect of the array job, and directives of the user's own."""

    jobname: str | None = None
    queue: str | None = None
    ppn: int = 1
    range: str | None = None
    dialect: str = 'torque'
    requeue: bool = False
    extra: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ArrayJobs(Batch):
    """What `-e array` does: shell commands with {fields}, lines above the first command, and the shell's word for a task's index from 1."""

    submit: str = ''
    query: str = ''
    cancel: str = ''
    directives: tuple[str, ...] = ()
    index: str = ''
    cores: int = 1


def read_slurm(options: Section) -> Slurm:
    """The section slurm."""
    s = _section(options, 'slurm', Slurm)
    return Slurm(
        partition=s.get('partition', _word, None),
        time=s.get('time', _slurm_time, None),
        mem=s.get('mem', _word, None),
        cpus=s.get('cpus', whole, 1),
        account=s.get('account', _word, None),
        requeue=s.get('requeue', boolean, False),
        extra=s.get('extra', _directives, (), prefix='#SBATCH', taken=('-a', '--array'), example='--gres=gpu:1'),
        **_batch(s),
    )


def read_pbs(options: Section) -> Pbs:
    """The section pbs."""
    s = _section(options, 'pbs', Pbs)
    return Pbs(
        jobname=s.get('jobname', _word, None),
        queue=s.get('queue', _word, None),
        ppn=s.get('ppn', whole, 1),
        range=s.get('range', _array_range, None),
        dialect=s.get('dialect', one_of, 'torque', choices=('torque', 'openpbs')),
        requeue=s.get('requeue', boolean, False),
        extra=s.get('extra', _directives, (), prefix='#PBS', taken=('-t', '-J'), example='-l walltime=12:00:00'),
        **_batch(s),
    )


def read_array(options: Section) -> ArrayJobs | None:
    """The section array, None where it is not there."""
    if 'array' not in options.value:
        return None
    s = _section(options, 'array', ArrayJobs)
    expected = 'the shell word for the index of a task, counted from 1, such as $SGE_TASK_ID or $((JOB_COMPLETION_INDEX + 1))'
    index = s.get('index', text, example=expected)
    if not re.fullmatch(r'\$(\w+|\{\w+\}|\(\([\w$ +-]+\)\))', index, re.ASCII):
        s.fail('index', expected)
    return ArrayJobs(
        submit=s.get('submit', _shell_line, field='script', others=_FIELDS, example='qsub -terse'),
        query=s.get('query', _shell_line, field='job', example='qstat -j'),
        cancel=s.get('cancel', _shell_line, field='job', example='qdel'),
        directives=s.get('directives', _directives, (), fields=_FIELDS, example='"#$ -t 1-{num}"'),
        index=index,
        cores=s.get('cores', whole, 1),
        **_batch(s),
    )


def _section(s: Section, key: str, kind: type) -> Section:
    return Section(s.source, s.at(key), s.value.get(key, {}), [f.name for f in dataclasses.fields(kind)])


def _batch(s: Section) -> dict[str, Any]:
    return {
        'max_running': s.get('max_running', whole, None),
        'runs_per_task': s.get('runs_per_task', whole, 1),
        'max_array': s.get('max_array', whole, None),
    }


def _shell_line(source: Source, path: str | None, value: Any, field: str = '', others: Sequence[str] = (), example: str = '') -> Any:
    """A command of the shell with a {field}, which is added at the end where it is missing; other braces are doubled."""
    expected = f'a shell command with {{{field}}}, such as {example} {{{field}}}'
    if path is None:
        return expected
    text(source, path, value, expected)
    fields = _check_fields(source, path, value, (field, *others), expected)
    if '\n' in value.strip():
        source.fail(path, 'several lines', expected)
    try:
        shlex.split(value)
    except ValueError as e:
        source.fail(path, f'{show(value)} ({str(e).lower()})', expected)
    return value.strip() if field in fields else f'{value.strip()} {{{field}}}'


def _check_fields(source: Source, path: str, value: str, known: Sequence[str], expected: str) -> list[str]:
    try:
        parsed = [(name, form, how) for _, name, form, how in string.Formatter().parse(value) if name is not None]
    except ValueError as e:
        source.fail(path, f'{show(value)} ({e})', f'{expected}; braces that are no field are doubled')
    for name, form, how in parsed:
        if name not in known or form or how:
            source.fail(path, f'the field {{{name}}} in {show(value)}', f'fields of {", ".join(known)}', ' Double braces that are no field')
    return [name for name, _, _ in parsed]


def _directives(
    source: Source, path: str | None, value: Any, prefix: str = '', taken: Sequence[str] = (), fields: Sequence[str] = (), example: str = ''
) -> Any:
    """Lines for the head of a batch script: with `prefix` what stands behind it, else whole comment lines with {fields}."""
    kind = f'an option, as it stands behind {prefix}' if prefix else 'a comment line'
    expected = f'a list of directives, each {kind}, such as {example}'
    if path is None:
        return expected
    if not isinstance(value, list):
        source.fail(path, show(value), expected)
    for i, line in enumerate(value):
        where = f'{path}[{i}]'
        text(source, where, line, expected)
        if '\n' in line or '\t' in line or line[0] != ('-' if prefix else '#'):
            source.fail(where, show(line), f'{kind}, such as {example}')
        if any(re.match(rf'{re.escape(option)}(\b|=)', line) for option in taken):
            source.fail(where, show(line), 'no range of an array, which follows from what is to do')
        if fields:
            _check_fields(source, where, line, fields, kind)
    return tuple(value)


def _slurm_time(source: Source, path: str | None, value: Any) -> Any:
    """A time limit as sbatch takes it."""
    expected = 'a time limit of Slurm: minutes, hours:minutes:seconds, or days-hours:minutes:seconds, such as 12:00:00 or 1-00'
    if path is None:
        return expected
    value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    text(source, path, value, expected)
    if not re.fullmatch(r'\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}|unlimited|infinite', value, re.ASCII | re.IGNORECASE):
        hours = re.fullmatch(r'(\d{1,4})\s*h(ours?)?', value, re.ASCII | re.IGNORECASE)
        source.fail(path, show(value), expected, f' Write {hours[1]}:00:00' if hours else '')
    return value


def _word(source: Source, path: str | None, value: Any) -> Any:
    """A word for a line of a batch script: a name, a size, a time."""
    expected = 'one word, such as main, 4G or 12:00:00'
    if path is None:
        return expected
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text(source, path, value, expected)
    if not re.fullmatch(r'[\w.,:@+=/-]+', str(value), re.ASCII):
        source.fail(path, show(value), expected)
    return value


def _array_range(source: Source, path: str | None, value: Any) -> Any:
    """Indices of runs, counted from 1, as in `1-100` or `3,7,20-30`."""
    expected = 'indices of runs counted from 1, such as 1-100 or 3,7,20-30'
    if path is None:
        return expected
    value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(value, str) or not re.fullmatch(r'\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*(%\d{1,18})?', value, re.ASCII):
        source.fail(path, show(value), expected)
    return value
