"""Which runs an order asks for, their commands, and what of it is done: the step between an experiment file and its executor.

A plan is made from a Spec and the options of im_pipeline.py, checked, and then carried out by launch.py or clusters.py. Nothing here
writes anything.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Collection, Iterable, Sequence

from policyopt.command_line import format_table
from policyopt.errors import UserError
from policyopt.files.atomic import begins_as_hdf5
from policyopt.files.names import lock_path, part_path
from policyopt.pipeline import locks
from policyopt.pipeline.command import Command, fields_of
from policyopt.pipeline.spec import PlannedRun, Spec, select_runs
from policyopt.shipped import as_typed

STATES = ('done', 'running', 'unfinished', 'missing')


@dataclasses.dataclass(frozen=True)
class How:
    """How a stage is carried out: the options of im_pipeline.py, with their defaults."""

    jobs: int | None = None  # None: all cores, or on a cluster as many as it likes
    resume: bool = False
    keep_going: bool = False
    dry_run: bool = False
    estimate: bool = False  # say how long training will take: instead of it, or in a run of all stages before it
    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    rerun: Sequence[str] = ()  # runs to evaluate again
    executor: str = 'local'
    yes: bool = False
    wait: bool = False
    no_table: bool = False  # stage 2 prints no table of its results
    threads: int | None = None
    device: str | None = None
    verbosity: int = 0
    task_list: str | None = None  # an array task of a cluster does the runs in line `task_index` of this file
    task_index: int | None = None
    stop_after: int | None = None  # seconds until this process stops itself, as at the warning of a time limit
    requeue: str | None = None  # the command that starts this cluster job again, after such a warning

    def command(self, spec: Spec, stage: str) -> str:
        """The command that carries out a stage for the same runs."""
        filters = {'--only': self.only, '--exclude': self.exclude} | ({'--rerun': self.rerun} if stage.startswith('2_eval') else {})
        chosen = [word for flag, keys in filters.items() if keys for word in (flag, *keys)]
        return ' '.join([spec.command(stage), shlex.join(chosen)]).rstrip()

    def evaluation(self, spec: Spec) -> str:
        """The command that evaluates what has been trained, into results that are there already or not."""
        return self.command(spec, '2_eval --resume' if os.path.exists(spec.results_path) else '2_eval')


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, the file that it makes (`out`), and where its log and its lock go; `is_log`: that file must be a training log.

    renews: the command is our trainer's, which renews a lock of its own beside `out`.
    """

    id: str
    command: Command
    out: str
    log: str
    lock: str
    is_log: bool = True
    renews: bool = False

    @property
    def complete(self) -> bool:
        """Whether the whole output is there, as far as its form is known."""
        return os.path.exists(self.out) and self.fault is None

    @property
    def fault(self) -> str | None:
        """Why what is there is no run that stage 2 could evaluate; None for one that is. Our trainer writes it at once."""
        if self.renews:
            return None if begins_as_hdf5(self.out) else 'not an HDF5 file'
        from policyopt.files.runfile import fault_of

        return fault_of(self.out) if self.is_log else None

    @property
    def done(self) -> bool:
        """Whether the output is complete; one of unknown form is not while its program works, or if that was cut short."""
        return self.complete and (self.is_log or locks.inspect(self.lock)[0] == 'free')


@dataclasses.dataclass(frozen=True)
class Plan:
    """The selected runs of an experiment; `todo` are those that are to be carried out, with the commands that do so."""

    spec: Spec
    seed: int
    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]

    @property
    def jobs(self) -> list[Job]:
        return [job_of(self.spec, run) for run in self.todo]

    def of(self, ids: Collection[str]) -> Plan:
        """The part of the plan that is about these runs."""
        return dataclasses.replace(self, **{k: tuple(r for r in getattr(self, k) if r.id in ids) for k in ('runs', 'todo')})

    def states(self) -> dict[str, str]:
        """{run id: state}: 'done' has its .h5, 'running' is locked by someone, 'unfinished' was begun."""
        found = {}
        for run in self.runs:
            j = job_of(self.spec, run)
            if j.done:
                found[run.id] = 'done'
            elif any(locks.inspect(path)[0] in ('live', 'foreign') for path in (j.lock, lock_path(j.out))):
                found[run.id] = 'running'
            elif os.path.exists(part_path(j.out)) or os.path.exists(j.log):
                found[run.id] = 'unfinished'
            else:
                found[run.id] = 'missing'
        return found

    def summary(self) -> str:
        """A table of how many runs of each algorithm and task are in which state."""
        state = self.states()
        lines = [['alg', 'task', *STATES, 'total']]
        groups = list(dict.fromkeys((r.alg, r.task) for r in self.runs))
        for group in [*groups, None]:
            chosen = [state[r.id] for r in self.runs if group in (None, (r.alg, r.task))]
            lines.append([*(group or ('all', '')), *(str(chosen.count(s)) for s in STATES), str(len(chosen))])
        return format_table(lines)

    def check(self) -> None:
        """Raise UserError unless every run's program and expert data are there and fit."""
        spec = self.spec
        for run in {r.alg: r for r in self.runs}.values():
            script = run.command.missing_script
            if script:
                where = f'{spec.file}: {spec.algorithm(run.alg).place}.cmd'
                raise UserError(f"{where}: no such file '{script}'; expected a script, seen from {os.getcwd()} or from our checkout")
        paths = {(r.task, r.dataset): spec.traj_path(r.task, r.dataset) for r in self.runs}
        check_sampled(spec, paths)
        from policyopt.pipeline import sample_stage

        for run in self.runs:
            if 'policy' in fields_of(spec.algorithm(run.alg).cmd):
                sample_stage.expert_path(spec, spec.task(run.task))
        for (task, _), path in paths.items():
            sample_stage.check_trajs(spec, spec.task(task), path)


def check_sampled(spec: Spec, sets: Iterable[tuple[str, int]]) -> None:
    """Raise UserError unless the trajectory files of these expert sets, (task name, set index), are there."""
    for name, dataset in sets:
        path = spec.traj_path(name, dataset)
        if not os.path.exists(path):
            make = f'Make them with: {as_typed(spec.command("0_sampletrajs --resume"))}'
            way = f"Put your recordings there, or give the task '{name}' a policy" if spec.task(name).policy is None else make
            raise UserError(f'{path}: no such file; expected the expert trajectories. {way}')


def make_plan(spec: Spec, seed: int, how: How) -> Plan:
    """The plan of an order; a dry run without --resume lists every run as if none were there.

    Raises UserError as `chosen_runs`.
    """
    runs = chosen_runs(spec, seed, how)
    if how.dry_run:  # a line that is printed may be carried out more than once, by a pod that starts again for example
        todo = tuple(r for r in runs if not (how.resume and _is_done(spec, r)))
        return Plan(spec, seed, runs, tuple(_with(r, '--resume') for r in todo))
    todo = (r for r in runs if not _is_done(spec, r))
    return Plan(spec, seed, runs, tuple(_with(r, '--resume') if os.path.exists(part_path(r.out)) else r for r in todo))


def chosen_runs(spec: Spec, seed: int, how: How) -> tuple[PlannedRun, ...]:
    """The runs that the options choose.

    Raises UserError when --only or --exclude leaves no run, and for a device that our trainer cannot have.
    """
    if how.device is not None and not re.fullmatch(r'cpu|cuda(:\d{1,3})?', how.device, re.ASCII):
        raise UserError(f'--device {how.device!r}: expected cpu, or cuda (cuda:1 for the second one) on a machine with a GPU')
    runs = select_runs(spec.runs(seed), how.only, how.exclude)
    for run in runs if how.device is not None else ():
        if run.command.is_trainer and run.command.options.get('--device', how.device) != how.device:
            where = f'{spec.file}: {spec.algorithm(run.alg).place}.cmd'
            raise UserError(f'--device {how.device}: {where} has --device {run.command.options["--device"]}; give one of them')
    return tuple(runs if how.device is None else (_with(r, '--device', how.device) for r in runs))


def _is_done(spec: Spec, run: PlannedRun) -> bool:
    return os.path.exists(run.out) and job_of(spec, run).done


def job_of(spec: Spec, run: PlannedRun) -> Job:
    """The launcher's view of a run."""
    log, lock = (os.path.join(spec.checkpt_dir, sub, run.id + ending) for sub, ending in (('logs', '.txt'), ('locks', '.lock')))
    renews = run.command.is_trainer
    is_log = renews or spec.algorithm(run.alg).policy is None
    return Job(run.id, run.command, out=run.out, log=log, lock=lock, is_log=is_log, renews=renews)


def _with(run: PlannedRun, flag: str, value: str | None = None) -> PlannedRun:
    """A run whose command has an option more, if it is our trainer's."""
    return dataclasses.replace(run, command=run.command.with_option(flag, value))
