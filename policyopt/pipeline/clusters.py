"""The executors of clusters: write job scripts beside the checkpoints, show them, ask, submit, wait.

Stage 1 is an array job: a task does the runs in one line of the list beside the script, as `1_train --resume` for these runs alone.
Stages 0 and 2 are one job each. So submitting everything a second time does no harm.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from policyopt.errors import RunFailed, UserError, printable
from policyopt.pipeline import cluster_options
from policyopt.pipeline.command import fill
from policyopt.pipeline.plan import How, Plan
from policyopt.pipeline.spec import PlannedRun, Spec
from policyopt.shipped import as_typed, continuing_command, shipped

WARNING_S = 120  # a task is told this long before its time limit, so that it can write a checkpoint


@dataclasses.dataclass(frozen=True)
class Request:
    """What one job asks its cluster for; num_tasks 0: no array, at_once None: as many tasks as the cluster likes."""

    spec: Spec
    num_tasks: int
    at_once: int | None
    cores: int

    @property
    def logs(self) -> str:
        """The folder of the tasks' outputs."""
        return os.path.abspath(os.path.join(self.spec.checkpt_dir, 'logs'))


@dataclasses.dataclass(frozen=True)
class Submission:
    """A prepared job: its script, and of an array the list with the run ids of task I in line I; and where both will stand."""

    request: Request
    script: str
    script_path: str
    tasks: tuple[tuple[str, ...], ...] = ()

    @property
    def list_path(self) -> str:
        """The list beside the script."""
        return self.script_path.removesuffix('.sh') + '.runs'

    @property
    def run_ids(self) -> list[str]:
        return [run_id for task in self.tasks for run_id in task]


class Cluster(abc.ABC):
    """What the executors of clusters have in common; a subclass says how its system writes and says things.

    name: the word after -e, and the section of the options. lines: the shell commands that 'submit' a {script}, that 'query' whether
    a {job} is there, and that 'cancel' it. plain: what a path must match that stands in a directive.
    """

    name: str
    lines: Mapping[str, str]
    plain = r'[\w./+=@,-]+'
    index: str  # shell word for the index of an array task
    gpu = ''  # a directive that asks for a GPU

    def __init__(self, how: How):
        self.how = how

    # what a system says in its own way

    @abc.abstractmethod
    def options(self, spec: Spec) -> cluster_options.BatchOptions:
        """The section of the experiment's options."""

    @abc.abstractmethod
    def cores(self, spec: Spec) -> int:
        """The cores that a task asks for."""

    @abc.abstractmethod
    def header(self, request: Request) -> list[str]:
        """The directives, a line each."""

    def cores_word(self, cores: int) -> str:
        """The shell word for the cores that a task has got."""
        return str(cores)

    def index_word(self, spec: Spec, num_tasks: int) -> str:
        """The shell word for the index of a task of an array."""
        return self.index

    def chosen(self, plan: Plan) -> list[PlannedRun]:
        """The runs to submit."""
        return list(plan.todo)

    def max_array(self, spec: Spec) -> int:
        """The most tasks that one array can have."""
        return self.options(spec).max_array or 10_000

    def at_once(self, spec: Spec) -> int | None:
        """How many tasks may run at a time, None to leave that to the cluster."""
        return self.how.jobs or self.options(spec).max_running

    def requeue_options(self, spec: Spec) -> str:
        """What a task is told so that it comes back when its time limit has stopped it."""
        return ''

    def line(self, what: str, spec: Spec) -> str:
        """One of `lines`."""
        return self.lines[what]

    def values(self, request: Request) -> dict[str, object]:
        """What fields a submitting line may have besides {script}."""
        return {}

    # the scripts

    def in_directive(self, path: str) -> str:
        """A path as it stands in a directive; UserError for one that is neither plain nor can be quoted there."""
        if not re.fullmatch(self.plain, path) or printable(path) != path:
            seen = f'{path!r} has characters that cannot stand in a directive of -e {self.name}'
            raise UserError(f'options.storagedir: the folder {seen}; choose another one')
        return shlex.quote(path)

    def arrays(self, plan: Plan) -> list[Submission]:
        """The array jobs of what is to do, as few as their size allows; nothing is written."""
        spec, each = plan.spec, self.options(plan.spec).runs_per_task
        ids = [run.id for run in self.chosen(plan)]
        tasks = [tuple(ids[i : i + each]) for i in range(0, len(ids), each)]
        most = self.max_array(spec)
        parts, at_once = [tasks[i : i + most] for i in range(0, len(tasks), most)], self.at_once(spec)
        if at_once and at_once < len(parts):
            seen = f'at most {at_once} tasks at a time with {len(tasks)} tasks, which need {len(parts)} arrays of {most}'
            raise UserError(f'{spec.file}: options.{self.name}: {seen}; give at least {len(parts)}, or a larger runs_per_task')
        return [self._array(spec, part, _share(at_once, len(parts), i), i) for i, part in enumerate(parts)]

    def _array(self, spec: Spec, tasks: list[tuple[str, ...]], at_once: int | None, later: int) -> Submission:
        base, threads, cores = self._base(spec, later), self.how.threads, self.cores(spec)
        words = [os.path.abspath(os.path.join(spec.checkpt_dir, 'pipeline.yaml')), '1_train', '--task-list', base + '.runs']
        words += ['--device', self.how.device] if self.how.device else []
        tail = f'--task-index "{self.index_word(spec, len(tasks))}" --threads {threads or self.cores_word(cores)}'
        if threads and len(tasks[0]) > 1:  # the runs of a task share its cores
            tail += f' -j {max(1, cores // threads)}'
        request = Request(spec, len(tasks), at_once, cores)
        comment = f'{sum(map(len, tasks))} runs in {len(tasks)} tasks, listed beside this script'
        return Submission(request, self._script(request, words, tail, comment), base + '.sh', tuple(tasks))

    def stage(self, spec: Spec, stage: str) -> Submission:
        """The one job of stage 0 or 2, with as many cores as --jobs says."""
        request = Request(spec, 0, None, self.how.jobs or self.cores(spec))
        words, tail = shlex.split(self.how.command(spec, stage))[1:], f'--resume -j {self.cores_word(request.cores)}'
        tail += f' --threads {self.how.threads}' if self.how.threads else ''
        return Submission(request, self._script(request, words, tail, f'stage {stage}'), self._base(spec) + '.sh')

    def _script(self, request: Request, words: Sequence[str], tail: str, comment: str) -> str:
        spec, pipeline = request.spec, [sys.executable, shipped('scripts/im_pipeline.py')]
        variables = [name for name in dict.fromkeys(re.findall(r'\$\{?(\w+)', spec.options.storagedir)) if name in os.environ]
        lines = [
            '#!/bin/bash',
            *self.header(request),
            f'# {comment}; submitting this again only does what is not done yet',
            *(f'export {name}={shlex.quote(os.environ[name])}' for name in variables),
            *([] if request.num_tasks else [f'export POLICYOPT_WORKERS={self.cores_word(request.cores)}']),
            f'cd {shlex.quote(os.getcwd())} || exit 1',
            f'exec {shlex.join([*pipeline, *words])} {tail} {self.requeue_options(spec)}'.rstrip(),
        ]
        script = '\n'.join(lines) + '\n'
        if printable(script, keep='\n') != script:
            raise UserError(f'{spec.file}: a name in its job script has control characters or marks of direction; choose another one')
        return script

    def _base(self, spec: Spec, later: int = 0) -> str:
        """A name for the files of a new job, without its ending; `later` counts those that are about to be written before."""
        folder = os.path.join(spec.checkpt_dir, 'cluster')
        there = [int(m[1]) for n in (os.listdir(folder) if os.path.isdir(folder) else ()) if (m := re.fullmatch(r'\w+_(\d+)\..+', n))]
        return os.path.abspath(os.path.join(folder, f'{self.name}_{1 + max(there, default=0) + later}'))

    def script(self, plan: Plan) -> str:
        """The scripts of the array jobs."""
        return '\n'.join(array.script for array in self.arrays(plan))

    def notes(self, plan: Plan) -> list[str]:
        """What the script does not say itself: that runs want a GPU which it does not ask for."""
        wants = any((run.command.options.get('--device') or '').startswith('cuda') for run in plan.todo)
        if not self.gpu or not wants or re.search('gpu|gres', repr(self.options(plan.spec)), re.IGNORECASE):
            return []
        return [f"warning: --device cuda, but the job asks for no GPU; add a directive such as '{self.gpu}' to options.{self.name}.extra"]

    # what is done with them

    def execute(self, plan: Plan) -> str:
        """Submit what is to do, and with --wait stay until it is done."""
        state = plan.states()
        held = {run_id for run_id in state if state[run_id] == 'running'}
        if held:
            print(f'note: {len(held)} runs are being worked on and left out, first {min(held)}', file=sys.stderr)
            plan = dataclasses.replace(plan, todo=tuple(r for r in plan.todo if r.id not in held))
        if not plan.todo:
            return self.how.command(plan.spec, '1_train --summary')
        for note in self.notes(plan):
            print(note if note.startswith('warning: ') else f'note: {note}', file=sys.stderr)
        arrays = self.arrays(plan)
        plan = plan.of({run_id for array in arrays for run_id in array.run_ids})
        then = self.how.command(plan.spec, '1_train --summary') + '   (and 2_eval when the job is over)'
        done = self._submit_and_wait(plan.spec, arrays, f'{len(plan.todo)} runs', [r.out for r in plan.todo])
        return self.how.evaluation(plan.spec) if done else then

    def execute_stage(self, spec: Spec, stage: str, outputs: Sequence[str]) -> bool:
        """Submit stage 0 or 2, which makes the files `outputs`; returns whether it was waited for."""
        return self._submit_and_wait(spec, [self.stage(spec, stage)], f'stage {stage}', outputs)

    def _submit_and_wait(self, spec: Spec, jobs: Sequence[Submission], what: str, outputs: Sequence[str]) -> bool:
        """Submit jobs; returns whether they were waited for."""
        job_ids = self.submit(spec, jobs, what)
        if not self.how.wait:
            return False
        try:
            self.wait(spec, job_ids, what, outputs)
        except KeyboardInterrupt as e:
            state, cancel = self.how.command(spec, '1_train --summary'), self.line('cancel', spec)
            cancel = ' && '.join(fill(cancel, {'job': job_id}) for job_id in job_ids)
            goes_on = f'job {" ".join(job_ids)} goes on ({cancel} ends it); how far it is: {as_typed(state)}; when it is over'
            raise KeyboardInterrupt(f'{goes_on}, continue with: {continuing_command()}') from e
        return True

    def submit(self, spec: Spec, jobs: Sequence[Submission], what: str) -> list[str]:
        """Write the scripts and their lists, show them, ask unless --yes, submit; returns the cluster's job ids."""
        program = shlex.split(self.line('submit', spec))[0]
        if shutil.which(program) is None:
            here = f"no '{program}' on this machine"
            raise UserError(f'-e {self.name}: {here}; expected a login node of the cluster, or -e local')
        for folder in ('cluster', 'logs'):
            os.makedirs(os.path.join(spec.checkpt_dir, folder), exist_ok=True)
        for job in jobs:
            listing = ''.join(' '.join(task) + '\n' for task in job.tasks)
            beside = [(job.list_path, listing), (submitted_spec(job.list_path), spec.text)] if job.tasks else []
            for path, content in [*beside, (job.script_path, job.script)]:
                with open(path, 'x', encoding='utf-8') as f:
                    f.write(content)
        print(f'{jobs[0].script_path}:\n{jobs[0].script}', file=sys.stderr)
        for job in jobs[1:]:
            print(f'and {job.script_path}, the same for {len(job.run_ids)} further runs', file=sys.stderr)
        if not self.how.yes:
            written = ', '.join(job.script_path for job in jobs)
            if not sys.stdin.isatty():
                raise UserError(f'{written}: written, not submitted, since nobody can be asked here; add -y, or submit it yourself')
            print(f'submit {what}? [y/N] ', end='', file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
                raise UserError(f'{written}: written, not submitted, as you wished')
        job_ids = []
        for job in jobs:
            line = fill(self.line('submit', spec), self.values(job.request) | {'script': job.script_path})
            result = _shell(line)
            if result.returncode != 0:
                said = f'failed with exit code {result.returncode}: {(result.stderr or result.stdout).strip()}'
                before = f'; job {" ".join(job_ids)} had been submitted before' if job_ids else ''
                raise RunFailed(f'{line} {said}{before}')
            out = result.stdout.strip()
            job_ids.append(out.splitlines()[-1].partition(';')[0] if out else '?')
            of = f'{len(job.run_ids)} runs' if job.tasks else what
            print(f'submitted job {job_ids[-1]} with {of}; see --summary', file=sys.stderr)
        return job_ids

    def wait(self, spec: Spec, job_ids: Sequence[str], what: str, outputs: Sequence[str]) -> None:
        """Wait until the cluster no longer knows the jobs; RunFailed when files that they should make are then still missing."""
        told, pause, num, job_id = -1, 0.5, len(outputs), ' '.join(job_ids)
        unit = 'runs' if what.endswith('runs') else 'files'
        while True:
            gone = all(self.is_gone(one, spec) for one in job_ids)
            missing = [path for path in outputs if not os.path.exists(path)]
            if num - len(missing) != told:
                told = num - len(missing)
                print(f'{told}/{num} {unit} done (job {job_id})', file=sys.stderr)
            if gone or not missing and unit == 'runs':
                break
            time.sleep(pause)
            pause = min(1.3 * pause, 30)
        if missing:
            first = os.path.basename(missing[0]).removesuffix('.h5')
            raise RunFailed(
                f'job {job_id} is over, but {len(missing)} of its {num} {unit} are not done, first {first}; '
                f'see {spec.checkpt_dir}/logs, then submit again'
            )

    def is_gone(self, job_id: str, spec: Spec) -> bool:
        """Whether the cluster no longer knows a job; one that does not answer is no proof of that."""
        listed = self.query_job(job_id, spec)
        if listed.returncode == 0:
            return not listed.stdout.strip()
        return listed.returncode != 127 and is_unknown(listed.stderr)  # 127: the shell does not find the command

    def query_job(self, job_id: str, spec: Spec) -> subprocess.CompletedProcess:
        """What the cluster says of a job."""
        return _shell(fill(self.line('query', spec), {'job': job_id}))


def _shell(line: str) -> subprocess.CompletedProcess:
    return subprocess.run(['bash', '-o', 'pipefail', '-c', line], capture_output=True, text=True)


def submitted_spec(list_path: str) -> str:
    """The experiment as it was when the runs of a list were submitted, which it may not be any more when they begin."""
    return list_path.removesuffix('.runs') + '.yaml'


def requeue(signum: int, command: str | None) -> None:
    """Put the job that we are back into the queue, if it has such a command and was stopped by the warning of its time limit."""
    if command is None or signum != signal.SIGUSR1:
        return
    print(f'requeue: {command}', file=sys.stderr, flush=True)
    result = subprocess.run(shlex.split(command), capture_output=True, text=True)
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip()
        raise RunFailed(f'{command} failed with exit code {result.returncode}: {said}; submit again to go on')


def _share(at_once: int | None, num_arrays: int, i: int) -> int | None:
    """The places of array i: arrays do not know of each other, so that they share out those of all."""
    return None if at_once is None else (at_once + num_arrays - 1 - i) // num_arrays


def is_unknown(said: str) -> bool:
    """Whether a scheduler says that it does not know a job, or not any more."""
    return bool(re.search('invalid|unknown|finished|not exist|not found', said, re.IGNORECASE))
