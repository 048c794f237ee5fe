"""The schedulers: Slurm, PBS in two dialects, and any other one with array jobs that an experiment describes."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from policyopt.errors import UserError, printable
from policyopt.pipeline.cluster_options import BatchOptions
from policyopt.pipeline.command import fill
from policyopt.pipeline.plan import Plan
from policyopt.pipeline.spec import PlannedRun, Spec

WARNING_S = 120  # a task is told this long before its time limit, so that it can write a checkpoint


@dataclasses.dataclass(frozen=True)
class Size:
    """What one job asks for.

    num_tasks: the tasks of its array, 0 for a job without one. at_once: how many of them may run at a time, None for no limit. cores: the
    cores of each task.
    """

    num_tasks: int
    at_once: int | None
    cores: int


def _no_fields(size: Size) -> dict[str, object]:
    return {}


def _all_to_do(plan: Plan) -> Sequence[PlannedRun]:
    return plan.todo


def _default_max_tasks() -> int:
    return 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduler:
    """The commands and directives of a scheduler, filled in for one experiment.

    submit, query, cancel: shell commands that submit a {script}, list a {job} if it exists, and cancel a {job}.
    header: the directives of a job, a line each. fields: the values of the other fields that `submit` may have.
    index: shell text for the index of a task in its array. granted: shell text for the number of cores that a task got, where {cores}
    is the number that was asked for.
    requeue: options of im_pipeline.py that put a task back into the queue after its time limit. gpu: a directive that asks for a GPU.
    chosen: the runs to submit. max_tasks: the limit on the tasks of one array, used if `options` has none.
    """

    options: BatchOptions
    submit: str
    query: str
    cancel: str
    cores: int
    max_running: int | None
    header: Callable[[Size], list[str]]
    index: str
    granted: str = '{cores}'
    requeue: str = ''
    gpu: str = ''
    fields: Callable[[Size], dict[str, object]] = _no_fields
    chosen: Callable[[Plan], Sequence[PlannedRun]] = _all_to_do
    max_tasks: Callable[[], int] = _default_max_tasks


def slurm(spec: Spec) -> Scheduler:
    """Slurm, with the settings of options.slurm."""
    o = spec.options.slurm
    logs = _logs_dir(spec, 'slurm', r'[^%\\]+')  # sbatch accepts quotes, but a literal % or backslash may fail
    settings = {'partition': o.partition, 'time': o.time, 'mem': o.mem, 'account': o.account}
    # an array's last task has the id of the whole array
    job = '${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}'

    def header(size: Size) -> list[str]:
        num = size.num_tasks
        lines = [
            f'--job-name={job_name(spec.run_name)}',
            *([f'--array=1-{num}' + (f'%{size.at_once}' if size.at_once else '')] if num else []),
            f'--output={shlex.quote(logs)}/slurm_%{"A_%a" if num else "j"}.txt',
            '--ntasks=1',
            f'--cpus-per-task={size.cores}',
            *(f'--{key}={value}' for key, value in settings.items() if value),
            '--requeue',
            '--open-mode=append',
            f'--signal=B:USR1@{WARNING_S}',
            *o.extra,
        ]
        return [f'#SBATCH {line}' for line in lines]

    return Scheduler(
        options=o,
        submit='sbatch --parsable {script}',
        query='squeue --noheader --jobs {job}',
        cancel='scancel {job}',
        cores=o.cpus,
        max_running=o.max_running,
        header=header,
        index='$SLURM_ARRAY_TASK_ID',
        granted='"${{SLURM_CPUS_PER_TASK:-{cores}}}"',
        requeue=f'--requeue "scontrol requeue {job}"' if o.requeue else '',
        gpu='--gres=gpu:1',
        max_tasks=_slurm_max_tasks,
    )


def _slurm_max_tasks() -> int:
    """The highest index of an array: the cluster's MaxArraySize − 1, or 1000 if that is not known."""
    try:
        said = subprocess.run(['scontrol', 'show', 'config'], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ''
    match = re.search(r'MaxArraySize\s*=\s*(\d+)', said)
    return max(1, int(match[1]) - 1) if match else 1000


def pbs(spec: Spec) -> Scheduler:
    """PBS in the dialect of TORQUE or OpenPBS, with the settings of options.pbs."""
    o, logs = spec.options.pbs, _logs_dir(spec, 'pbs')
    torque = o.dialect == 'torque'
    most = 15 if torque else 230
    if o.jobname and (len(o.jobname) > most or not o.jobname[0].isalpha()):
        expected = f'at most {most} characters, the first one a letter, as PBS has it'
        raise UserError(f'{spec.file}: options.pbs.jobname: {o.jobname!r}; expected {expected}')
    limit = walltime_s(o.extra)
    if o.requeue and (limit is None or limit <= WARNING_S):
        expected = f"the line '-l walltime=HH:MM:SS', of more than {WARNING_S} s, in options.pbs.extra"
        raise UserError(f'{spec.file}: options.pbs.requeue: the time limit is not known; expected {expected}')
    at_once = (o.range or '').partition('%')[2]

    def header(size: Size) -> list[str]:
        num, limit = size.num_tasks, f'%{size.at_once}' if size.at_once else ''
        cores = f'-l nodes=1:ppn={size.cores}' if torque else f'-l select=1:ncpus={size.cores}'
        lines = [
            f'-N {o.jobname or job_name(spec.run_name, most)}',
            *([f'-q {o.queue}'] if o.queue else []),
            *([] if any(re.match(r'-l\s*(select|nodes)=', line) for line in o.extra) else [cores]),
            *([f'-t 1-{num}{limit}'] if num and torque else []),
            *([f'-J 1-{num}{limit}'] if num > 1 and not torque else []),  # OpenPBS rejects an array with one task
            *('-j oe', f'-o {shlex.quote(logs)}/', '-r y', '-V'),
            *o.extra,
        ]
        return [f'#PBS {line}' for line in lines]

    return Scheduler(
        options=o,
        submit='qsub {script}',
        query='qstat -t {job}',
        cancel='qdel {job}',
        cores=o.ppn,
        max_running=o.max_running or (int(at_once) if at_once else None),
        header=header,
        index='$PBS_ARRAYID' if torque else '$PBS_ARRAY_INDEX',
        granted='"${{PBS_NUM_PPN:-${{NCPUS:-{cores}}}}}"',
        # PBS gives no warning that differs from a qdel, so the task watches the time itself
        requeue=f'--stop-after {limit - WARNING_S} --requeue "qrerun $PBS_JOBID"' if o.requeue and limit else '',
        gpu='-l nodes=1:ppn=4:gpus=1' if torque else '-l select=1:ncpus=4:ngpus=1',
        chosen=lambda plan: _in_range(plan, o.range) if o.range else plan.todo,
    )


def _in_range(plan: Plan, text: str) -> Sequence[PlannedRun]:
    """The unfinished runs in options.pbs.range, such as `3,7,20-30`.

    Its numbers count all selected runs, from 1. A range that exceeds them, such as one copied from a larger experiment, is cut.
    """
    where, total = f'options.pbs.range: {text!r}', len(plan.runs)
    parts = [part.split('-') for part in text.partition('%')[0].split(',')]
    bounds = [(int(part[0]), int(part[-1])) for part in parts]
    ids = {run.id for first, last in bounds for run in plan.runs[max(first, 1) - 1 : last]}
    if not ids:
        raise UserError(f'{plan.spec.file}: {where} names no run; expected indices from 1 to {total} (all runs)')
    if any(first < 1 or last > total for first, last in bounds):
        print(f'note: {where} is cut to the {total} runs there are', file=sys.stderr)
    runs = [run for run in plan.todo if run.id in ids]
    if not runs:
        raise UserError(f'{plan.spec.file}: {where} names only finished runs; expected some that are not')
    return runs


def walltime_s(directives: Sequence[str]) -> int | None:
    """The seconds of the last `walltime=HH:MM:SS` in PBS directives; None if there is none."""
    found = [match[1] for line in directives for match in re.finditer(r'\bwalltime=((?:\d+:){0,3}\d+)(?![\d:])', line)]
    if not found:
        return None
    parts = [int(part) for part in found[-1].split(':')]
    return sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))


def array(spec: Spec) -> Scheduler:
    """Any other system with array jobs, which options.array describes."""
    o = spec.options.array
    if o is None:
        keys = 'submit, query, cancel, directives and index'
        raise UserError(f'{spec.file}: options.array: is missing; expected {keys} of the cluster, as docs/clusters.md shows them')
    logs = _logs_dir(spec, 'array')

    def fields(size: Size) -> dict[str, object]:
        num = max(1, size.num_tasks)
        at_once = min(num, size.at_once or num)
        return {'name': job_name(spec.run_name, 15), 'num': num, 'max_running': at_once, 'cores': size.cores, 'logs': logs}

    return Scheduler(
        options=o,
        submit=o.submit,
        query=o.query,
        cancel=o.cancel,
        cores=o.cores,
        max_running=o.max_running,
        header=lambda size: [fill(line, fields(size)) for line in o.directives],
        fields=fields,
        index=o.index,
    )


SCHEDULERS = {'slurm': slurm, 'pbs': pbs, 'array': array}  # by the value of -e, which also names the section of the options


def _logs_dir(spec: Spec, name: str, plain: str = r'[\w./+=@,-]+') -> str:
    """The folder of the tasks' outputs; UserError if it does not match `plain`, because then no directive can contain it, even quoted."""
    path = os.path.abspath(os.path.join(spec.checkpt_dir, 'logs'))
    if not re.fullmatch(plain, path) or printable(path) != path:
        seen = f'{path!r} has characters that cannot stand in a directive of -e {name}'
        raise UserError(f'options.storagedir: the folder {seen}; choose another one')
    return path


def job_name(name: str, most: int = 80) -> str:
    """A name that every scheduler accepts: ASCII letters, digits and _ . -, a letter first, at most `most` characters."""
    plain = re.sub(r'[^\w.-]', '_', name, flags=re.ASCII)
    return (plain if plain[:1].isalpha() else f'im_{plain}')[:most]
