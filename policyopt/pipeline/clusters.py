"""Array jobs for Slurm and PBS: write the script beside the checkpoints, show it, ask, submit, wait.

One array task does one run: it finds the run's id in the list beside the script by its index, and then behaves like
`1_train --resume` for that run alone. So submitting everything a second time does no harm.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import time

from policyopt.pipeline import templates
from policyopt.pipeline.folder import states
from policyopt.util import RunFailed, UserError

_WARNING_S = 120  # Slurm tells a task this long before its time limit, so that it can write a checkpoint


@dataclasses.dataclass(frozen=True)
class Array:
    """A prepared submission: the script, the list of run ids (line I is array index I), and the command that submits it."""

    kind: str
    script: str
    list_path: str
    script_path: str
    submit: list
    run_ids: list


def prepare_array(kind, spec, runs, pending, num_jobs=None, threads=None, device=None):
    """The array job of the runs that are still to be done; nothing is written.

    Args:
        runs: all selected runs, which options.pbs.range counts.
        pending: those of them that are not done.
        num_jobs: at most so many at a time; None leaves it to the cluster.
        threads: threads of each run; None takes the task's allocation.
    """
    if kind == 'pbs' and spec.options.pbs.range:
        wanted = _indices(spec.options.pbs.range, len(runs))
        ids = {runs[i - 1].id for i in wanted}
        pending = [r for r in pending if r.id in ids]
        limit = spec.options.pbs.range.partition('%')[2]
        num_jobs = num_jobs or (int(limit) if limit else None)
    if not pending:
        raise UserError(f'{spec.file}: options.pbs.range: {spec.options.pbs.range!r} names only finished runs; expected some that are not')
    folder = os.path.join(spec.checkpt_dir, 'cluster')
    number = 1 + max([int(m[1]) for n in _listdir(folder) if (m := re.fullmatch(r'\w+_(\d+)\.sh', n))], default=0)
    base = os.path.abspath(os.path.join(folder, f'{kind}_{number}'))
    logs = os.path.abspath(os.path.join(spec.checkpt_dir, 'logs'))
    header, index, cores = (_slurm if kind == 'slurm' else _pbs)(spec, len(pending), num_jobs, logs)
    task = [
        *(sys.executable, os.path.join(templates.REPO, 'scripts', 'im_pipeline.py')),
        *(os.path.abspath(os.path.join(spec.checkpt_dir, 'pipeline.yaml')), '1_train', '--task-list', base + '.runs'),
        *(('--device', device) if device else ()),
    ]
    each = str(threads) if threads else f'"{cores}"'
    script = '\n'.join(
        [
            '#!/bin/bash',
            *header,
            f'# {len(pending)} runs, listed in {base}.runs; submitting this again only does what is not done yet',
            f'cd {shlex.quote(os.getcwd())} || exit 1',
            f'exec {shlex.join(task)} --task-index "{index}" --threads {each}',
            '',
        ]
    )
    submit = ['sbatch', '--parsable', base + '.sh'] if kind == 'slurm' else ['qsub', base + '.sh']
    return Array(kind, script, base + '.runs', base + '.sh', submit, [r.id for r in pending])


def _slurm(spec, num_runs, num_jobs, logs):
    o = spec.options.slurm
    wishes = {'partition': o.partition, 'time': o.time, 'mem': o.mem, 'account': o.account}
    header = [
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
    return header, '$SLURM_ARRAY_TASK_ID', f'${{SLURM_CPUS_PER_TASK:-{o.cpus}}}'


def _pbs(spec, num_runs, num_jobs, logs):
    o = spec.options.pbs
    torque = o.dialect == 'torque'
    limit = f'%{num_jobs}' if num_jobs else ''
    header = [f'#PBS -N {o.jobname or spec.run_name}', *([f'#PBS -q {o.queue}'] if o.queue else [])]
    header += [f'#PBS -l nodes=1:ppn={o.ppn}' if torque else f'#PBS -l select=1:ncpus={o.ppn}']
    if torque:
        header += [f'#PBS -t 1-{num_runs}{limit}']
    elif num_runs > 1:  # OpenPBS knows no array of one
        header += [f'#PBS -J 1-{num_runs}{limit}']
    header += ['#PBS -j oe', f'#PBS -o {logs}/', '#PBS -r y', '#PBS -V']
    index = '$PBS_ARRAYID' if torque else '${PBS_ARRAY_INDEX:-1}'
    return header, index, f'${{{"PBS_NUM_PPN" if torque else "NCPUS"}:-{o.ppn}}}'


def _indices(text, total):
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


def _listdir(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []


def submit(array, spec, yes):
    """Write the script and its list, show the script, ask unless `yes`, submit; returns the cluster's job id."""
    if shutil.which(array.submit[0]) is None:
        raise UserError(f"-e {array.kind}: no '{array.submit[0]}' on this machine; expected a login node of the cluster, or -e local")
    os.makedirs(os.path.dirname(array.script_path), exist_ok=True)
    for path, content in ((array.list_path, ''.join(i + '\n' for i in array.run_ids)), (array.script_path, array.script)):
        with open(path, 'x', encoding='utf-8') as f:
            f.write(content)
    print(f'{array.script_path}:\n{array.script}', file=sys.stderr)
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f'{array.script_path}: written, not submitted, since nobody can be asked here; add -y, or submit it yourself')
        print(f'submit {len(array.run_ids)} runs? [y/N] ', end='', file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
            raise UserError(f'{array.script_path}: written, not submitted, as you wished')
    result = subprocess.run(array.submit, capture_output=True, text=True)
    if result.returncode != 0:
        raise RunFailed(f'{shlex.join(array.submit)} failed with exit code {result.returncode}: {(result.stderr or result.stdout).strip()}')
    job_id = result.stdout.strip().splitlines()[-1].partition(';')[0] if result.stdout.strip() else '?'
    print(f'submitted job {job_id} with {len(array.run_ids)} runs; see --summary', file=sys.stderr)
    return job_id


def wait(array, spec, runs, job_id):
    """Wait until the cluster no longer knows the job; RunFailed when runs are then still missing."""
    query = ['squeue', '--noheader', '--jobs', job_id] if array.kind == 'slurm' else ['qstat', '-t', job_id]
    mine = [r for r in runs if r.id in set(array.run_ids)]
    told, pause = -1, 0.5
    while True:
        listed = subprocess.run(query, capture_output=True, text=True)
        # a controller that does not answer is no proof that the job is gone
        answered = listed.returncode == 0
        gone = not listed.stdout.strip() if answered else bool(re.search('invalid|unknown|finished', listed.stderr, re.IGNORECASE))
        state = states(spec, mine)
        done = sum(s == 'done' for s in state.values())
        if done != told:
            print(f'{done}/{len(mine)} runs done (job {job_id})', file=sys.stderr)
            told = done
        if gone or done == len(mine):
            break
        time.sleep(pause)
        pause = min(1.3 * pause, 30)
    if done < len(mine):
        open_ids = [i for i, s in state.items() if s != 'done']
        raise RunFailed(
            f'job {job_id} is over, but {len(open_ids)} of its {len(mine)} runs are not done, first {open_ids[0]}; '
            f'see {spec.checkpt_dir}/logs, then submit again with --resume'
        )
