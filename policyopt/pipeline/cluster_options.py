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

from policyopt.files.yamlfile import YamlSource, boolean, key, matching, one_of, show_value, text, whole

_WORD = {'pattern': r'[\w.,:@+=/-]+', 'expected': 'one word, such as main, 4G or 12:00:00'}
_RANGE = {
    'pattern': r'\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*(%\d{1,18})?',
    'expected': 'indices of runs counted from 1, such as 1-100 or 3,7,20-30',
}
_INDEX = {
    'pattern': r'\$(\w+|\{\w+\}|\(\([\w$ +-]+\)\))',
    'expected': 'the shell word for the index of a task, counted from 1, such as $SGE_TASK_ID or $((JOB_COMPLETION_INDEX + 1))',
}
_FIELDS = ('name', 'num', 'max_running', 'cores', 'logs')  # of directives and submit commands


def _shell_line(source: YamlSource, path: str, value: Any, field: str = '', others: Sequence[str] = (), example: str = '') -> Any:
    """A command of the shell with a {field}, which is added at the end where it is missing; other braces are doubled."""
    expected = f'a shell command with {{{field}}}, such as {example} {{{field}}}'
    text(source, path, value, expected, lines=True)
    fields = _check_fields(source, path, value, (field, *others), expected)
    if '\n' in value.strip():
        source.fail(path, 'several lines', expected)
    try:
        shlex.split(value)
    except ValueError as e:
        source.fail(path, f'{show_value(value)} ({str(e).lower()})', expected)
    return value.strip() if field in fields else f'{value.strip()} {{{field}}}'


def _check_fields(source: YamlSource, path: str, value: str, known: Sequence[str], expected: str) -> list[str]:
    try:
        parsed = [(name, form, how) for _, name, form, how in string.Formatter().parse(value) if name is not None]
    except ValueError as e:
        source.fail(path, f'{show_value(value)} ({e})', f'{expected}; braces that are no field are doubled')
    for name, form, how in parsed:
        if name not in known or form or how:
            source.fail(
                path, f'the field {{{name}}} in {show_value(value)}', f'fields of {", ".join(known)}', ' Double braces that are no field'
            )
    return [name for name, _, _ in parsed]


def _directives(
    source: YamlSource, path: str, value: Any, prefix: str = '', taken: Sequence[str] = (), fields: Sequence[str] = (), example: str = ''
) -> Any:
    """Lines for the head of a batch script: with `prefix` what stands behind it, else whole comment lines with {fields}."""
    kind = f'an option, as it stands behind {prefix}' if prefix else 'a comment line'
    expected = f'a list of directives, each {kind}, such as {example}'
    if not isinstance(value, list):
        source.fail(path, show_value(value), expected)
    for i, line in enumerate(value):
        where = f'{path}[{i}]'
        text(source, where, line, expected, lines=True)
        if '\n' in line or '\t' in line or line[0] != ('-' if prefix else '#'):
            source.fail(where, show_value(line), f'{kind}, such as {example}')
        if any(re.match(rf'{re.escape(option)}(\b|=)', line) for option in taken):
            source.fail(where, show_value(line), 'no range of an array, which follows from what is to do')
        if fields:
            _check_fields(source, where, line, fields, kind)
    return tuple(value)


def _slurm_time(source: YamlSource, path: str, value: Any) -> Any:
    """A time limit as sbatch takes it."""
    expected = 'a time limit of Slurm: minutes, hours:minutes:seconds, or days-hours:minutes:seconds, such as 12:00:00 or 1-00'
    value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    text(source, path, value, expected)
    if not re.fullmatch(r'\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}|unlimited|infinite', value, re.ASCII | re.IGNORECASE):
        hours = re.fullmatch(r'(\d{1,4})\s*h(ours?)?', value, re.ASCII | re.IGNORECASE)
        source.fail(path, show_value(value), expected, f' Write {hours[1]}:00:00' if hours else '')
    return value


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What every cluster is told of its array jobs: tasks at a time, runs in each, tasks in one array; None leaves it to the cluster."""

    max_running: int | None = key(whole, None)
    runs_per_task: int = key(whole, 1)
    max_array: int | None = key(whole, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmOptions(BatchOptions):
    """What `-e slurm` asks for; None leaves it to the cluster, `extra` are directives of the user's own."""

    partition: str | None = key(matching, None, **_WORD)
    time: str | None = key(_slurm_time, None)
    mem: str | None = key(matching, None, **_WORD)
    cpus: int = key(whole, 1)
    account: str | None = key(matching, None, **_WORD)
    requeue: bool = key(boolean, False)
    extra: tuple[str, ...] = key(_directives, (), prefix='#SBATCH', taken=('-a', '--array'), example='--gres=gpu:1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PbsOptions(BatchOptions):
    """What `-e pbs` asks for: the block of 2016, the dialect of the array job, and directives of the user's own."""

    jobname: str | None = key(matching, None, **_WORD)
    queue: str | None = key(matching, None, **_WORD)
    ppn: int = key(whole, 1)
    range: str | None = key(matching, None, **_RANGE)
    dialect: str = key(one_of, 'torque', choices=('torque', 'openpbs'))
    requeue: bool = key(boolean, False)
    extra: tuple[str, ...] = key(_directives, (), prefix='#PBS', taken=('-t', '-J'), example='-l walltime=12:00:00')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayOptions(BatchOptions):
    """What `-e array` does: shell commands with {fields}, lines above the first command, and the shell's word for a task's index from 1."""

    submit: str = key(_shell_line, field='script', others=_FIELDS, example='qsub -terse')
    query: str = key(_shell_line, field='job', example='qstat -j')
    cancel: str = key(_shell_line, field='job', example='qdel')
    directives: tuple[str, ...] = key(_directives, (), fields=_FIELDS, example='"#$ -t 1-{num}"')
    index: str = key(matching, **_INDEX)
    cores: int = key(whole, 1)
