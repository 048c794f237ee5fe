"""The schedulers: Slurm, PBS in two dialects, and any other one with array jobs that an experiment describes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence

from policyopt.errors import UserError
from policyopt.pipeline import cluster_options
from policyopt.pipeline.clusters import WARNING_S, Cluster, Request, is_unknown
from policyopt.pipeline.plan import Plan
from policyopt.pipeline.spec import PlannedRun, Spec


class Slurm(Cluster):
    """The executor that submits to Slurm, with the wishes of options.slurm."""

    name = 'slurm'
    lines = {'submit': 'sbatch --parsable {script}', 'query': 'squeue --noheader --jobs {job}', 'cancel': 'scancel {job}'}
    plain = r'[^%\\]+'  # sbatch takes quotes, but neither a literal % nor a literal backslash for sure
    index, gpu = '$SLURM_ARRAY_TASK_ID', '--gres=gpu:1'

    def options(self, spec: Spec) -> cluster_options.BatchOptions:
        return spec.options.slurm

    def cores(self, spec: Spec) -> int:
        return spec.options.slurm.cpus

    def cores_word(self, cores: int) -> str:
        return f'"${{SLURM_CPUS_PER_TASK:-{cores}}}"'

    def max_array(self, spec: Spec) -> int:
        """As above; else what the cluster says. Its MaxArraySize is one more than the highest index."""
        if spec.options.slurm.max_array:
            return spec.options.slurm.max_array
        try:
            said = subprocess.run(['scontrol', 'show', 'config'], capture_output=True, text=True, timeout=30).stdout
        except (OSError, subprocess.TimeoutExpired):
            said = ''
        match = re.search(r'MaxArraySize\s*=\s*(\d+)', said)
        return max(1, int(match[1]) - 1) if match else 1000

    def requeue_options(self, spec: Spec) -> str:
        # an array's last task has the id of the whole array
        job = '${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}'
        return f'--requeue "scontrol requeue {job}"' if spec.options.slurm.requeue else ''

    def header(self, request: Request) -> list[str]:
        o, num = request.spec.options.slurm, request.num_tasks
        wishes = {'partition': o.partition, 'time': o.time, 'mem': o.mem, 'account': o.account}
        lines = [
            f'--job-name={job_name(request.spec.run_name)}',
            *([f'--array=1-{num}' + (f'%{request.at_once}' if request.at_once else '')] if num else []),
            f'--output={self.in_directive(request.logs)}/slurm_%{"A_%a" if num else "j"}.txt',
            '--ntasks=1',
            f'--cpus-per-task={request.cores}',
            *(f'--{key}={value}' for key, value in wishes.items() if value),
            '--requeue',
            '--open-mode=append',
            f'--signal=B:USR1@{WARNING_S}',
            *o.extra,
        ]
        return [f'#SBATCH {line}' for line in lines]


class Pbs(Cluster):
    """The executor that submits to PBS, with the wishes of options.pbs, in the dialect of TORQUE or OpenPBS."""

    name, lines = 'pbs', {'submit': 'qsub {script}', 'query': 'qstat -t {job}', 'cancel': 'qdel {job}'}
    gpu = '-l select=1:ncpus=4:ngpus=1'

    def options(self, spec: Spec) -> cluster_options.BatchOptions:
        return spec.options.pbs

    def cores(self, spec: Spec) -> int:
        return spec.options.pbs.ppn

    def cores_word(self, cores: int) -> str:
        return f'"${{PBS_NUM_PPN:-${{NCPUS:-{cores}}}}}"'

    def index_word(self, spec: Spec, num_tasks: int) -> str:
        """As above, but 1 where there is no array: -V would pass on the index of an array task that submits us."""
        if spec.options.pbs.dialect == 'torque':
            return '$PBS_ARRAYID'
        return '$PBS_ARRAY_INDEX' if num_tasks > 1 else '1'

    def chosen(self, plan: Plan) -> list[PlannedRun]:
        """As above; of options.pbs.range, which counts all selected runs, only those that are to do."""
        text = plan.spec.options.pbs.range
        if not text:
            return super().chosen(plan)
        wanted = {plan.runs[i - 1].id for i in _indices(plan.spec.file, text, len(plan.runs))}
        runs = [r for r in plan.todo if r.id in wanted]
        if not runs:
            raise UserError(f'{plan.spec.file}: options.pbs.range: {text!r} names only finished runs; expected some that are not')
        return runs

    def at_once(self, spec: Spec) -> int | None:
        limit = (spec.options.pbs.range or '').partition('%')[2]
        return super().at_once(spec) or (int(limit) if limit else None)

    def requeue_options(self, spec: Spec) -> str:
        """PBS gives no warning that could be told from a qdel, so that the task looks at the clock itself."""
        if not spec.options.pbs.requeue:
            return ''
        limit = walltime_s(spec.options.pbs.extra)
        if limit is None or limit <= WARNING_S:
            expected = f"the line '-l walltime=HH:MM:SS', of more than {WARNING_S} s, in options.pbs.extra"
            raise UserError(f'{spec.file}: options.pbs.requeue: the time limit is not known; expected {expected}')
        return f'--stop-after {limit - WARNING_S} --requeue "qrerun $PBS_JOBID"'

    def header(self, request: Request) -> list[str]:
        o, num = request.spec.options.pbs, request.num_tasks
        limit = f'%{request.at_once}' if request.at_once else ''
        torque = o.dialect == 'torque'
        size = f'-l nodes=1:ppn={request.cores}' if torque else f'-l select=1:ncpus={request.cores}'
        lines = [
            f'-N {self._name(request.spec)}',
            *([f'-q {o.queue}'] if o.queue else []),
            *([] if any(re.match(r'-l\s*(select|nodes)=', line) for line in o.extra) else [size]),
            *([f'-t 1-{num}{limit}'] if num and torque else []),
            *([f'-J 1-{num}{limit}'] if num > 1 and not torque else []),  # OpenPBS knows no array of one
            *('-j oe', f'-o {self.in_directive(request.logs)}/', '-r y', '-V'),
            *o.extra,
        ]
        return [f'#PBS {line}' for line in lines]

    def _name(self, spec: Spec) -> str:
        o = spec.options.pbs
        most = 15 if o.dialect == 'torque' else 230
        if o.jobname and (len(o.jobname) > most or not o.jobname[0].isalpha()):
            expected = f'at most {most} characters, the first one a letter, as PBS has it'
            raise UserError(f'{spec.file}: options.pbs.jobname: {o.jobname!r}; expected {expected}')
        return o.jobname or job_name(spec.run_name, most)


class ArrayJobs(Cluster):
    """The executor of any other system with array jobs, which options.array describes."""

    name = 'array'

    def options(self, spec: Spec) -> cluster_options.ArrayOptions:
        if spec.options.array is None:
            keys = 'submit, query, cancel, directives and index'
            raise UserError(f'{spec.file}: options.array: is missing; expected {keys} of the cluster, as docs/clusters.md shows them')
        return spec.options.array

    def cores(self, spec: Spec) -> int:
        return self.options(spec).cores

    def index_word(self, spec: Spec, num_tasks: int) -> str:
        return self.options(spec).index

    def header(self, request: Request) -> list[str]:
        values = self.values(request) | {'logs': self.in_directive(request.logs)}
        return [line.format(**values) for line in self.options(request.spec).directives]

    def values(self, request: Request) -> dict[str, object]:
        num = max(1, request.num_tasks)
        name, at_once = job_name(request.spec.run_name, 15), min(num, request.at_once or num)
        return {'name': name, 'num': num, 'max_running': at_once, 'cores': request.cores, 'logs': request.logs}

    def line(self, what: str, spec: Spec) -> str:
        return getattr(self.options(spec), what)

    def is_gone(self, job_id: str, spec: Spec) -> bool:
        """As above; a filter such as grep that finds nothing has nothing to complain about either."""
        listed = self.query_job(job_id, spec)
        return not listed.stdout.strip() and (not listed.stderr.strip() or is_unknown(listed.stderr))


def job_name(name: str, most: int = 80) -> str:
    """A name of ours as every scheduler takes it: ASCII letters, digits and _ . -, a letter first, at most so many characters."""
    plain = re.sub(r'[^\w.-]', '_', name, flags=re.ASCII)
    return (plain if plain[:1].isalpha() else f'im_{plain}')[:most]


def walltime_s(directives: Sequence[str]) -> int | None:
    """The seconds of `walltime=HH:MM:SS` in PBS directives, of several the last; None where there is none."""
    found = [match[1] for line in directives for match in re.finditer(r'\bwalltime=((?:\d+:){0,3}\d+)(?![\d:])', line)]
    if not found:
        return None
    parts = [int(part) for part in found[-1].split(':')]
    return sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600, 86400), strict=False))


def _indices(file: str, text: str, total: int) -> list[int]:
    """The indices of `3,7,20-30` that lie in 1 … total; a note says so where there are others, as in a range borrowed from elsewhere."""
    found, cut = [], False
    for part in text.partition('%')[0].split(','):
        first, _, last = part.partition('-')
        first, last = int(first), int(last or first)
        found += range(max(first, 1), min(last, total) + 1)
        cut |= first < 1 or last > total
    if not found:
        raise UserError(f'{file}: options.pbs.range: {text!r} names no run; expected indices from 1 to {total} (all runs)')
    if cut:
        print(f'note: options.pbs.range: {text!r} is cut to the {total} runs there are', file=sys.stderr)
    return found
