"""The executors of Slurm and PBS: write an array job beside the checkpoints, show it, ask, submit, wait.

One array task does one run: it finds the run's id in the list beside the script by its index, and then behaves like
`1_train --resume` for that run alone. So submitting everything a second time does no harm.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from policyopt.pipeline import templates
from policyopt.util import RunFailed, UserError, as_typed, continuing_command

if TYPE_CHECKING:
    from policyopt.pipeline.plan import How, Plan
    from policyopt.pipeline.spec import Run, Spec

_WARNING_S = 120  # Slurm tells a task this long before its time limit, so that it can write a checkpoint


@dataclasses.dataclass(frozen=True)
class Array:
    """A prepared submission: the script, the list of run ids (line I is array index I), and where both will stand."""

    script: str
    list_path: str
    script_path: str
    run_ids: list[str]


class Cluster(abc.ABC):
    """What the executors of clusters have in common; a subclass says how its system writes and says things.

    name: the word after -e. submit_words, query_words, cancel_words: the commands that submit a script, that know whether a job is
    there, and that end it.
    """

    name: str
    away = True
    submit_words: tuple[str, ...]
    query_words: tuple[str, ...]
    cancel_words: tuple[str, ...]

    def __init__(self, how: How):
        self.how = how

    def chosen(self, plan: Plan) -> tuple[list[Run], int | None]:
        """(the runs to submit, at most how many at a time, or None to leave that to the cluster)."""
        return list(plan.todo), self.how.jobs

    @abc.abstractmethod
    def header(self, spec: Spec, num_runs: int, num_jobs: int | None, logs: str) -> tuple[list[str], str, str]:
        """(lines of directives, shell word for the array index, shell word for the number of cores of a task)."""

    def array(self, plan: Plan) -> Array:
        """The array job of what is to do; nothing is written."""
        how, spec = self.how, plan.spec
        runs, num_jobs = self.chosen(plan)
        folder = os.path.join(spec.checkpt_dir, 'cluster')
        number = 1 + max([int(m[1]) for n in _listdir(folder) if (m := re.fullmatch(r'\w+_(\d+)\..+', n))], default=0)
        base = os.path.abspath(os.path.join(folder, f'{self.name}_{number}'))
        header, index, cores = self.header(spec, len(runs), num_jobs, os.path.abspath(os.path.join(spec.checkpt_dir, 'logs')))
        task = [
            *(sys.executable, os.path.join(templates.REPO, 'scripts', 'im_pipeline.py')),
            *(os.path.abspath(os.path.join(spec.checkpt_dir, 'pipeline.yaml')), '1_train', '--task-list', base + '.runs'),
            *(('--device', how.device) if how.device else ()),
        ]
        each = str(how.threads) if how.threads else f'"{cores}"'
        script = '\n'.join(
            [
                '#!/bin/bash',
                *header,
                f'# {len(runs)} runs, listed in {base}.runs; submitting this again only does what is not done yet',
                f'cd {shlex.quote(os.getcwd())} || exit 1',
                f'exec {shlex.join(task)} --task-index "{index}" --threads {each}',
                '',
            ]
        )
        return Array(script, base + '.runs', base + '.sh', [r.id for r in runs])

    def script(self, plan: Plan) -> str:
        """The script of the array job."""
        return self.array(plan).script

    def notes(self, plan: Plan) -> list[str]:
        """Nothing that the script does not say itself."""
        return []

    def execute(self, plan: Plan) -> str:
        """Submit what is to do, and with --wait stay until it is done."""
        array = self.array(plan)
        job_id = self.submit(array)
        if not self.how.wait:
            return self.how.command(plan.spec, '1_train --summary') + '   (and 2_eval when the job is over)'
        try:
            self.wait(plan.of(set(array.run_ids)), job_id)
        except KeyboardInterrupt as e:
            state, cancel = self.how.command(plan.spec, '1_train --summary'), shlex.join([*self.cancel_words, job_id])
            goes_on = f'job {job_id} goes on ({cancel} ends it); how far it is: {as_typed(state)}; when it is over'
            raise KeyboardInterrupt(f'{goes_on}, continue with: {continuing_command()}') from e
        return self.how.command(plan.spec, '2_eval')

    def submit(self, array: Array) -> str:
        """Write the script and its list, show the script, ask unless --yes, submit; returns the cluster's job id."""
        if shutil.which(self.submit_words[0]) is None:
            here = f"no '{self.submit_words[0]}' on this machine"
            raise UserError(f'-e {self.name}: {here}; expected a login node of the cluster, or -e local')
        os.makedirs(os.path.dirname(array.script_path), exist_ok=True)
        for path, content in ((array.list_path, ''.join(i + '\n' for i in array.run_ids)), (array.script_path, array.script)):
            with open(path, 'x', encoding='utf-8') as f:
                f.write(content)
        print(f'{array.script_path}:\n{array.script}', file=sys.stderr)
        if not self.how.yes:
            if not sys.stdin.isatty():
                why = 'since nobody can be asked here; add -y, or submit it yourself'
                raise UserError(f'{array.script_path}: written, not submitted, {why}')
            print(f'submit {len(array.run_ids)} runs? [y/N] ', end='', file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
                raise UserError(f'{array.script_path}: written, not submitted, as you wished')
        words = [*self.submit_words, array.script_path]
        result = subprocess.run(words, capture_output=True, text=True)
        if result.returncode != 0:
            raise RunFailed(f'{shlex.join(words)} failed with exit code {result.returncode}: {(result.stderr or result.stdout).strip()}')
        job_id = result.stdout.strip().splitlines()[-1].partition(';')[0] if result.stdout.strip() else '?'
        print(f'submitted job {job_id} with {len(array.run_ids)} runs; see --summary', file=sys.stderr)
        return job_id

    def wait(self, plan: Plan, job_id: str) -> None:
        """Wait until the cluster no longer knows the job; RunFailed when runs of the plan are then still missing."""
        told, pause, num = -1, 0.5, len(plan.runs)
        while True:
            listed = subprocess.run([*self.query_words, job_id], capture_output=True, text=True)
            # a controller that does not answer is no proof that the job is gone
            answered = listed.returncode == 0
            gone = not listed.stdout.strip() if answered else bool(re.search('invalid|unknown|finished', listed.stderr, re.IGNORECASE))
            state = plan.states()
            done = sum(s == 'done' for s in state.values())
            if done != told:
                print(f'{done}/{num} runs done (job {job_id})', file=sys.stderr)
                told = done
            if gone or done == num:
                break
            time.sleep(pause)
            pause = min(1.3 * pause, 30)
        if done < num:
            open_ids = [i for i, s in state.items() if s != 'done']
            raise RunFailed(
                f'job {job_id} is over, but {len(open_ids)} of its {num} runs are not done, first {open_ids[0]}; '
                f'see {plan.spec.checkpt_dir}/logs, then submit again with --resume'
            )


class Slurm(Cluster):
    """The executor that submits to Slurm, with the wishes of options.slurm."""

    name, submit_words, query_words = 'slurm', ('sbatch', '--parsable'), ('squeue', '--noheader', '--jobs')
    cancel_words = ('scancel',)

    def header(self, spec: Spec, num_runs: int, num_jobs: int | None, logs: str) -> tuple[list[str], str, str]:
        o = spec.options.slurm
        wishes = {'partition': o.partition, 'time': o.time, 'mem': o.mem, 'account': o.account}
        lines = [
            f'#SBATCH --job-name={spec.run_name}',
            f'#SBATCH --array=1-{num_runs}' + (f'%{num_jobs}' if num_jobs else ''),
            f'#SBATCH --output={logs}/slurm_%A_%a.txt',
            '#SBATCH --ntasks=1',
            f'#SBATCH --cpus-per-task={o.cpus}',
            *(f'#SBATCH --{key}={value}' for key, value in wishes.items() if value),
            '#SBATCH --requeue',
            '#SBATCH --open-mode=append',
            f'#SBATCH --signal=B:USR1@{_WARNING_S}',
        ]
        return lines, '$SLURM_ARRAY_TASK_ID', f'${{SLURM_CPUS_PER_TASK:-{o.cpus}}}'


class Pbs(Cluster):
    """The executor that submits to PBS, with the wishes of options.pbs, in the dialect of TORQUE or OpenPBS."""

    name, submit_words, query_words, cancel_words = 'pbs', ('qsub',), ('qstat', '-t'), ('qdel',)

    def chosen(self, plan: Plan) -> tuple[list[Run], int | None]:
        """As above; of options.pbs.range, which counts all selected runs, only those that are to do."""
        text = plan.spec.options.pbs.range
        if not text:
            return super().chosen(plan)
        wanted = {plan.runs[i - 1].id for i in _indices(text, len(plan.runs))}
        runs = [r for r in plan.todo if r.id in wanted]
        if not runs:
            raise UserError(f'{plan.spec.file}: options.pbs.range: {text!r} names only finished runs; expected some that are not')
        limit = text.partition('%')[2]
        return runs, self.how.jobs or (int(limit) if limit else None)

    def header(self, spec: Spec, num_runs: int, num_jobs: int | None, logs: str) -> tuple[list[str], str, str]:
        o = spec.options.pbs
        limit = f'%{num_jobs}' if num_jobs else ''
        lines = [f'#PBS -N {o.jobname or spec.run_name}', *([f'#PBS -q {o.queue}'] if o.queue else [])]
        if o.dialect == 'torque':
            lines += [f'#PBS -l nodes=1:ppn={o.ppn}', f'#PBS -t 1-{num_runs}{limit}']
            index, cores = '$PBS_ARRAYID', 'PBS_NUM_PPN'
        else:
            lines += [f'#PBS -l select=1:ncpus={o.ppn}']
            lines += [f'#PBS -J 1-{num_runs}{limit}'] if num_runs > 1 else []  # OpenPBS knows no array of one
            index, cores = '${PBS_ARRAY_INDEX:-1}', 'NCPUS'
        lines += ['#PBS -j oe', f'#PBS -o {logs}/', '#PBS -r y', '#PBS -V']
        return lines, index, f'${{{cores}:-{o.ppn}}}'


def _indices(text: str, total: int) -> list[int]:
    """The indices of `3,7,20-30` that lie in 1 … total; a note says so where there are others, as in a range borrowed from elsewhere."""
    found, cut = [], False
    for part in text.partition('%')[0].split(','):
        first, _, last = part.partition('-')
        first, last = int(first), int(last or first)
        found += range(max(first, 1), min(last, total) + 1)
        cut |= first < 1 or last > total
    if not found:
        raise UserError(f'options.pbs.range: {text!r} names no run; expected indices from 1 to {total} (all runs)')
    if cut:
        print(f'note: options.pbs.range: {text!r} is cut to the {total} runs there are', file=sys.stderr)
    return found


def _listdir(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
