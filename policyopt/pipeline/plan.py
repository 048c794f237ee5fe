"""The plan of a stage: which runs are selected, their commands, and which of them are done.

A plan is made from a Spec and the options of im_pipeline.py, checked, and then carried out by launch.py or clusters.py. Nothing here
writes anything.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Collection, Sequence

from policyopt.command_line import format_table
from policyopt.errors import UserError
from policyopt.files.names import lock_path, part_path
from policyopt.pipeline import locks
from policyopt.pipeline.spec import PlannedRun, Spec, select_runs

STATES = ('done', 'running', 'unfinished', 'missing')


@dataclasses.dataclass(frozen=True)
class How:
    """How a stage is carried out: the options of im_pipeline.py, with their defaults."""

    jobs: int | None = None  # None: all cores; on a cluster, no limit of ours
    resume: bool = False
    keep_going: bool = False
    dry_run: bool = False
    estimate: bool = False  # print how long training will take; stage 1 alone then trains nothing
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
        """The command that evaluates the trained runs, with --resume if the results file exists."""
        return self.command(spec, '2_eval --resume' if os.path.exists(spec.results_path) else '2_eval')


@dataclasses.dataclass(frozen=True)
class Plan:
    """The selected runs of an experiment; `todo` are the runs to carry out, with the commands to carry out."""

    spec: Spec
    seed: int
    runs: tuple[PlannedRun, ...]
    todo: tuple[PlannedRun, ...]

    def of(self, ids: Collection[str]) -> Plan:
        """The part of the plan for these runs."""
        return dataclasses.replace(self, **{k: tuple(r for r in getattr(self, k) if r.id in ids) for k in ('runs', 'todo')})

    def states(self) -> dict[str, str]:
        """{run id: state}: 'done' has its .h5, 'running' is locked by someone, 'unfinished' was begun."""
        found = {}
        for run in self.runs:
            if run.done:
                found[run.id] = 'done'
            elif any(locks.inspect(path)[0] in ('live', 'foreign') for path in (run.lock, lock_path(run.out))):
                found[run.id] = 'running'
            elif os.path.exists(part_path(run.out)) or os.path.exists(run.log):
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


def make_plan(spec: Spec, seed: int, how: How) -> Plan:
    """The plan for these options; a dry run without --resume lists every run, also the finished ones.

    Raises UserError for the same reasons as `chosen_runs`.
    """
    runs = chosen_runs(spec, seed, how)
    if how.dry_run:  # a printed command may run more than once, for example when a pod restarts
        return Plan(spec, seed, runs, tuple(r.with_option('--resume') for r in runs if not (how.resume and r.done)))
    todo = (r for r in runs if not r.done)
    return Plan(spec, seed, runs, tuple(r.with_option('--resume') if os.path.exists(part_path(r.out)) else r for r in todo))


def chosen_runs(spec: Spec, seed: int, how: How) -> tuple[PlannedRun, ...]:
    """The runs that the options choose.

    Raises UserError when --only or --exclude leaves no run, or if our trainer cannot use the device.
    """
    if how.device is not None and not re.fullmatch(r'cpu|cuda(:\d{1,3})?', how.device, re.ASCII):
        raise UserError(f'--device {how.device!r}: expected cpu, or cuda (cuda:1 for the second one) on a machine with a GPU')
    runs = select_runs(spec.runs(seed), how.only, how.exclude)
    for run in runs if how.device is not None else ():
        if run.command.is_trainer and run.command.options.get('--device', how.device) != how.device:
            where = f'{spec.file}: {spec.algorithm(run.alg).place}.cmd'
            raise UserError(f'--device {how.device}: {where} has --device {run.command.options["--device"]}; give one of them')
    return tuple(runs if how.device is None else (r.with_option('--device', how.device) for r in runs))
