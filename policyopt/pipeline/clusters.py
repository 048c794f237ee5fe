"""The executor for clusters: write job scripts next to the checkpoints, show them, ask, submit, wait.

Stage 1 is an array job. Each of its tasks does the runs in one line of the list next to the script, as `1_train --resume` would.
Stages 0 and 2 are one job each, also with --resume. So submitting everything a second time does no harm.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from policyopt.errors import RunFailed, UserError, printable
from policyopt.pipeline.command import fill
from policyopt.pipeline.plan import How, Plan
from policyopt.pipeline.schedulers import SCHEDULERS, Size
from policyopt.pipeline.spec import PlannedRun, Spec
from policyopt.shipped import as_typed, continuing_command, shipped


@dataclasses.dataclass(frozen=True)
class Submission:
    """A prepared job: its script, the path of the script, the command that submits it, and the run ids of each task of an array."""

    script: str
    script_path: str
    line: str
    tasks: tuple[tuple[str, ...], ...] = ()

    @property
    def list_path(self) -> str:
        """The list next to the script, with the run ids of task I in line I."""
        return self.script_path.removesuffix('.sh') + '.runs'

    @property
    def run_ids(self) -> list[str]:
        return [run_id for task in self.tasks for run_id in task]


class Cluster:
    """The executor that submits to a cluster."""

    def __init__(self, spec: Spec, how: How):
        self.spec, self.how, self.scheduler = spec, how, SCHEDULERS[how.executor](spec)

    def arrays(self, runs: Sequence[PlannedRun]) -> list[Submission]:
        """The array jobs of these runs, as few as the limit on their size allows; nothing is written."""
        options, ids = self.scheduler.options, [run.id for run in runs]
        tasks = [tuple(ids[i : i + options.runs_per_task]) for i in range(0, len(ids), options.runs_per_task)]
        most, at_once = options.max_array or self.scheduler.max_tasks(), self.how.jobs or self.scheduler.max_running
        parts = [tasks[i : i + most] for i in range(0, len(tasks), most)]
        if at_once and at_once < len(parts):
            seen = f'at most {at_once} tasks at a time with {len(tasks)} tasks, which need {len(parts)} arrays of {most}'
            raise UserError(f'{self.spec.file}: options.{self.how.executor}: {seen}; give at least {len(parts)}, or a larger runs_per_task')
        arrays = []
        for i, part in enumerate(parts):
            # arrays run independently: each gets a share of `at_once`, and the shares differ by at most 1
            share = None if at_once is None else (at_once + len(parts) - 1 - i) // len(parts)
            arrays.append(self._array(part, share, i))
        return arrays

    def _array(self, tasks: list[tuple[str, ...]], at_once: int | None, later: int) -> Submission:
        base, threads, cores = self._base(later), self.how.threads, self.scheduler.cores
        words = [os.path.abspath(os.path.join(self.spec.checkpt_dir, 'pipeline.yaml')), '1_train', '--task-list', base + '.runs']
        words += ['--device', self.how.device] if self.how.device else []
        index = self.scheduler.index if len(tasks) > 1 else '1'  # not every system has an array of one
        tail = f'--task-index "{index}" --threads {threads or self.scheduler.granted.format(cores=cores)}'
        if threads and len(tasks[0]) > 1:  # the runs of a task share its cores
            tail += f' -j {max(1, cores // threads)}'
        comment = f'{sum(map(len, tasks))} runs in {len(tasks)} tasks, listed beside this script'
        return self._submission(Size(len(tasks), at_once, cores), base, f'{shlex.join(words)} {tail}', comment, tuple(tasks))

    def stage(self, stage: str) -> Submission:
        """The job of stage 0 or 2, with --jobs cores."""
        cores = self.how.jobs or self.scheduler.cores
        command = self.how.command(self.spec, stage).partition(' ')[2]
        tail = f'--resume -j {self.scheduler.granted.format(cores=cores)}' + (f' --threads {self.how.threads}' if self.how.threads else '')
        return self._submission(Size(0, None, cores), self._base(), f'{command} {tail}', f'stage {stage}')

    def _submission(self, size: Size, base: str, options: str, comment: str, tasks: tuple[tuple[str, ...], ...] = ()) -> Submission:
        spec, scheduler, script_path = self.spec, self.scheduler, base + '.sh'
        variables = [name for name in dict.fromkeys(re.findall(r'\$\{?(\w+)', spec.options.storagedir)) if name in os.environ]
        lines = [
            '#!/bin/bash',
            *scheduler.header(size),
            f'# {comment}; submitting this again only does what is not done yet',
            *(f'export {name}={shlex.quote(os.environ[name])}' for name in variables),
            *([] if tasks else [f'export POLICYOPT_WORKERS={scheduler.granted.format(cores=size.cores)}']),
            f'cd {shlex.quote(os.getcwd())} || exit 1',
            f'exec {shlex.join([sys.executable, shipped("scripts/im_pipeline.py")])} {options} {scheduler.requeue}'.rstrip(),
        ]
        script = '\n'.join(lines) + '\n'
        if printable(script, keep='\n') != script:
            raise UserError(f'{spec.file}: a name in its job script has control characters or marks of direction; choose another one')
        return Submission(script, script_path, fill(scheduler.submit, scheduler.fields(size) | {'script': script_path}), tasks)

    def _base(self, later: int = 0) -> str:
        """The path of a new job's files without a suffix; later: how many other new jobs are written before this one."""
        folder = os.path.join(self.spec.checkpt_dir, 'cluster')
        there = [int(m[1]) for n in (os.listdir(folder) if os.path.isdir(folder) else ()) if (m := re.fullmatch(r'\w+_(\d+)\..+', n))]
        return os.path.abspath(os.path.join(folder, f'{self.how.executor}_{1 + max(there, default=0) + later}'))

    def script(self, plan: Plan) -> str:
        """The scripts of the array jobs of a plan."""
        return '\n'.join(array.script for array in self.arrays(self.scheduler.chosen(plan)))

    def notes(self, plan: Plan) -> list[str]:
        """A warning if runs use a GPU for which the script does not ask."""
        wants, gpu = any((run.command.options.get('--device') or '').startswith('cuda') for run in plan.todo), self.scheduler.gpu
        if not gpu or not wants or re.search('gpu|gres', repr(self.scheduler.options), re.IGNORECASE):
            return []
        where = f'options.{self.how.executor}.extra'
        return [f"warning: --device cuda, but the job asks for no GPU; add a directive such as '{gpu}' to {where}"]

    # submit and wait

    def execute(self, plan: Plan) -> str:
        """Submit the runs of a plan, and with --wait stay until they are done."""
        state, runs = plan.states(), self.scheduler.chosen(plan)
        held = [run.id for run in runs if state[run.id] == 'running']
        if held:
            print(f'note: {len(held)} runs are being worked on and left out, first {held[0]}', file=sys.stderr)
            runs = [run for run in runs if run.id not in held]
        if not runs:
            return self.how.command(self.spec, '1_train --summary')
        for note in self.notes(plan):
            print(note, file=sys.stderr)
        if self.submit(self.arrays(runs), f'{len(runs)} runs', [run.out for run in runs]):
            return self.how.evaluation(self.spec)
        return self.how.command(self.spec, '1_train --summary') + '   (and 2_eval when the job is over)'

    def submit(self, jobs: Sequence[Submission], what: str, outputs: Sequence[str]) -> bool:
        """Submit jobs that make the files `outputs`, once the user agrees; returns whether it waited until they were done."""
        self._write(jobs, what)
        job_ids = []
        for job in jobs:
            out = _output_of(job.line, f'; job {" ".join(job_ids)} had been submitted before' if job_ids else '').strip()
            job_ids.append(out.splitlines()[-1].partition(';')[0] if out else '?')
            of = f'{len(job.run_ids)} runs' if job.tasks else what
            print(f'submitted job {job_ids[-1]} with {of}; see --summary', file=sys.stderr)
        if not self.how.wait:
            return False
        try:
            self._wait(job_ids, 'runs' if jobs[0].tasks else 'files', outputs)
        except KeyboardInterrupt as e:
            state = self.how.command(self.spec, '1_train --summary')
            cancel = ' && '.join(fill(self.scheduler.cancel, {'job': job_id}) for job_id in job_ids)
            goes_on = f'job {" ".join(job_ids)} goes on ({cancel} ends it); how far it is: {as_typed(state)}; when it is over'
            raise KeyboardInterrupt(f'{goes_on}, continue with: {continuing_command()}') from e
        return True

    def _write(self, jobs: Sequence[Submission], what: str) -> None:
        """Write the scripts and their lists, show them, and ask unless --yes."""
        program = shlex.split(self.scheduler.submit)[0]
        if shutil.which(program) is None:
            here = f"no '{program}' on this machine"
            raise UserError(f'-e {self.how.executor}: {here}; expected a login node of the cluster, or -e local')
        for folder in ('cluster', 'logs'):
            os.makedirs(os.path.join(self.spec.checkpt_dir, folder), exist_ok=True)
        for job in jobs:
            listing = ''.join(' '.join(task) + '\n' for task in job.tasks)
            beside = [(job.list_path, listing), (submitted_spec(job.list_path), self.spec.text)] if job.tasks else []
            for path, content in [*beside, (job.script_path, job.script)]:
                with open(path, 'x', encoding='utf-8') as f:
                    f.write(content)
        print(f'{jobs[0].script_path}:\n{jobs[0].script}', file=sys.stderr)
        for job in jobs[1:]:
            print(f'and {job.script_path}, the same for {len(job.run_ids)} further runs', file=sys.stderr)
        if self.how.yes:
            return
        written = ', '.join(job.script_path for job in jobs)
        if not sys.stdin.isatty():
            raise UserError(f'{written}: written, not submitted, since nobody can be asked here; add -y, or submit it yourself')
        print(f'submit {what}? [y/N] ', end='', file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
            raise UserError(f'{written}: written, not submitted, as you wished')

    def _wait(self, job_ids: Sequence[str], unit: str, outputs: Sequence[str]) -> None:
        """Wait until the jobs have left the cluster, or all runs are done; RunFailed if files of `outputs` are missing then."""
        told, pause, num, job_id = -1, 0.5, len(outputs), ' '.join(job_ids)
        while True:
            gone = all(map(self._is_gone, job_ids))
            missing = [path for path in outputs if not os.path.exists(path)]
            if num - len(missing) != told:
                told = num - len(missing)
                print(f'{told}/{num} {unit} done (job {job_id})', file=sys.stderr)
            if gone or (not missing and unit == 'runs'):  # the file of a stage can be an older one, which the job adds to
                break
            time.sleep(pause)
            pause = min(1.3 * pause, 30)
        if missing:
            first = os.path.basename(missing[0]).removesuffix('.h5')
            raise RunFailed(
                f'job {job_id} is over, but {len(missing)} of its {num} {unit} are not done, first {first}; '
                f'see {self.spec.checkpt_dir}/logs, then submit again'
            )

    def _is_gone(self, job_id: str) -> bool:
        """Whether the cluster no longer knows a job; a cluster that does not answer is taken to know it still."""
        listed = _shell(fill(self.scheduler.query, {'job': job_id}))
        said, code = listed.stderr.strip(), listed.returncode
        if listed.stdout.strip() or code == 127:  # it is listed, or the shell did not find the command
            return False
        if code == 0 or (code == 1 and not said):  # nothing is listed, or a filter such as grep found nothing
            return True
        return bool(re.search('invalid|unknown|finished|not exist|not found', said, re.IGNORECASE))


def _shell(line: str) -> subprocess.CompletedProcess:
    return subprocess.run(['bash', '-o', 'pipefail', '-c', line], capture_output=True, text=True)


def _output_of(line: str, then: str) -> str:
    """What a command prints; RunFailed if it fails, with `then` after the reason."""
    result = _shell(line)
    if result.returncode != 0:
        raise RunFailed(f'{line} failed with exit code {result.returncode}: {(result.stderr or result.stdout).strip()}{then}')
    return result.stdout


def submitted_spec(list_path: str) -> str:
    """The path of the experiment as submitted with this list; the original file may have changed when the runs begin."""
    return list_path.removesuffix('.runs') + '.yaml'


def requeue(signum: int, command: str | None) -> None:
    """Requeue the job of this process by `command`, if one is given and the warning of the time limit (SIGUSR1) has stopped it."""
    if command is not None and signum == signal.SIGUSR1:
        print(f'requeue: {command}', file=sys.stderr, flush=True)
        _output_of(command, '; submit again to go on')


def cluster_for(spec: Spec, how: How) -> Cluster | None:
    """The cluster of --executor; None for this computer."""
    return None if how.executor == 'local' else Cluster(spec, how)
