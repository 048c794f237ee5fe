"""The sections slurm, pbs and array of an experiment's options, checked before anything is submitted.

A directive is one line of plain words, so that no value of a YAML file can become a command of a job script.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from policyopt.errors import Unfit
from policyopt.files.yamlfile import boolean, key, list_of, matching, one_of, show_value, text, whole
from policyopt.pipeline.command import check_quotes, checked_fields

_WORD = {'pattern': r'[\w.,:@+=/-]+', 'expected': 'one word, such as main, 4G or 12:00:00'}
_RANGE = {
    'pattern': r'\d{1,18}(-\d{1,18})?(,\d{1,18}(-\d{1,18})?)*(%\d{1,18})?',
    'expected': 'indices of runs counted from 1, such as 1-100 or 3,7,20-30',
}
_INDEX = {
    'pattern': r'\$(\w+|\{\w+\}|\(\([\w$ +-]+\)\))',
    'expected': 'the shell word for the index of a task, counted from 1, such as $SGE_TASK_ID or $((JOB_COMPLETION_INDEX + 1))',
}
_FIELDS = ('name', 'num', 'max_running', 'cores', 'logs')  # the fields of directives and submit commands


def _shell_line(value: Any, field: str = '', others: Sequence[str] = (), example: str = '') -> str:
    """A shell command with a {field}, which is added at the end if it is missing; other braces are doubled."""
    expected = f'a shell command with {{{field}}}, such as {example} {{{field}}}'
    line = text(value, expected, lines=True).strip()
    fields = _plain_fields(line, (field, *others))
    if '\n' in line:
        raise Unfit('several lines', expected)
    check_quotes(line)
    return line if field in fields else f'{line} {{{field}}}'


def _plain_fields(line: str, known: Sequence[str]) -> list[str]:
    fields = checked_fields(line, known)
    for name, form in fields:
        if form:
            raise Unfit(f"the format '{form}' of {{{name}}} in {show_value(line)}", 'fields alone')
    return [name for name, _ in fields]


def _directive(value: Any, prefix: str = '', taken: Sequence[str] = (), fields: Sequence[str] = (), example: str = '') -> str:
    """A directive of a batch script: the text after `prefix` if one is given, else a whole comment line with {fields}."""
    kind = f'an option, as it stands behind {prefix}' if prefix else 'a comment line'
    line = text(value, f'{kind}, such as {example}', lines=True)
    if '\n' in line or '\t' in line or line[0] != ('-' if prefix else '#'):
        raise Unfit(show_value(line), f'{kind}, such as {example}')
    if any(re.match(rf'{re.escape(option)}(\b|=)', line) for option in taken):
        raise Unfit(show_value(line), 'no range of an array, which follows from what is to do')
    if fields:
        _plain_fields(line, fields)
    return line


def _slurm_time(value: Any) -> str:
    """A time limit in a format of sbatch."""
    expected = 'a time limit of Slurm: minutes, hours:minutes:seconds, or days-hours:minutes:seconds, such as 12:00:00 or 1-00'
    try:
        return matching(value, r'(?i)\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}|unlimited|infinite', expected)
    except Unfit as e:
        hours = re.fullmatch(r'(\d{1,4})\s*h(ours?)?', str(value), re.ASCII | re.IGNORECASE)
        raise Unfit(e.seen, expected, f' Write {hours[1]}:00:00' if hours else '') from e


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Limits of array jobs on every cluster: tasks at a time, runs per task, tasks per array; None leaves it to the cluster."""

    max_running: int | None = key(whole, None)
    runs_per_task: int = key(whole, 1)
    max_array: int | None = key(whole, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmOptions(BatchOptions):
    """The settings of `-e slurm`; None leaves it to the cluster, `extra` are further directives."""

    partition: str | None = key(matching, None, **_WORD)
    time: str | None = key(_slurm_time, None)
    mem: str | None = key(matching, None, **_WORD)
    cpus: int = key(whole, 1)
    account: str | None = key(matching, None, **_WORD)
    requeue: bool = key(boolean, False)
    extra: tuple[str, ...] = key(list_of, (), item=_directive, least=0, prefix='#SBATCH', taken=('-a', '--array'), example='--gres=gpu:1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PbsOptions(BatchOptions):
    """The settings of `-e pbs`: those of 2016, the dialect of the array job, and further directives."""

    jobname: str | None = key(matching, None, **_WORD)
    queue: str | None = key(matching, None, **_WORD)
    ppn: int = key(whole, 1)
    range: str | None = key(matching, None, **_RANGE)
    dialect: str = key(one_of, 'torque', choices=('torque', 'openpbs'))
    requeue: bool = key(boolean, False)
    extra: tuple[str, ...] = key(list_of, (), item=_directive, least=0, prefix='#PBS', taken=('-t', '-J'), example='-l walltime=12:00:00')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayOptions(BatchOptions):
    """The settings of `-e array`: shell commands with {fields}, directives, and shell text for a task's index, counted from 1."""

    submit: str = key(_shell_line, field='script', others=_FIELDS, example='qsub -terse')
    query: str = key(_shell_line, field='job', example='qstat -j')
    cancel: str = key(_shell_line, field='job', example='qdel')
    directives: tuple[str, ...] = key(list_of, (), item=_directive, least=0, fields=_FIELDS, example='"#$ -t 1-{num}"')
    index: str = key(matching, **_INDEX)
    cores: int = key(whole, 1)
