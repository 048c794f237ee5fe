"""How long stage 1 will take: measure the first iterations of runs of every kind in a temporary folder.

A kind is an algorithm on a task; its run with a middle dataset size is measured. Runs on one machine slow each other down, so as many
runs are measured at once as will run at once. If there are fewer kinds than that, several runs of a kind are measured.

    seconds of a run = start-up + iterations left · seconds of an iteration after the first

Start-up is the time of a measured process outside of its iterations, plus the extra time of the first iteration compared with later
ones. If several runs of a kind were measured, these two numbers are means over them.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from policyopt import algorithms
from policyopt.cores import num_cores
from policyopt.errors import RunFailed, UserError
from policyopt.files.names import part_path
from policyopt.options import MAX_ITER
from policyopt.pipeline import launch
from policyopt.pipeline.plan import How, Plan, chosen_runs
from policyopt.pipeline.spec import Job, PlannedRun
from policyopt.progress import last_lines
from policyopt.signals import Stopped

if TYPE_CHECKING:
    import numpy as np


class MeasuredRunFailed(RunFailed):
    """A measured command failed; the user should know before hours of training."""


def estimate(plan: Plan, how: How) -> str:
    """One sentence on how many runs of a plan are left and how long they take.

    No file is left behind, even after an error or a stop signal. Of the experiment's folders, only the expert data and the unfinished
    runs are read.

    Raises:
        MeasuredRunFailed: a measured command failed; Stopped: by a signal; UserError, RunFailed or OSError: it
            cannot be measured, for example because a checkpoint is damaged or the disk is full.
    """
    runs, pending = plan.runs, plan.todo
    if not pending:
        return f'{len(runs)} of {len(runs)} runs are done: nothing to do'
    todo = f'{len(pending)} of {len(runs)} runs to do'
    known = [r for r in pending if r.command.is_trainer and r.command.is_literal]
    if not known:
        return f'{todo}; how long that takes is not known: only plain commands of imitate_mj.py can be measured'
    num_jobs = min(how.jobs or num_cores(), len(pending))
    kinds = {}
    for run in known:
        kinds.setdefault((run.alg, run.task), []).append(run)
    left = {r.id: max(0, max_iter(r) - _iterations_done(r)) for r in known}  # before measuring, because it can raise UserError
    if how.verbosity >= 0:
        print(f'estimate: running a few iterations of {_count(len(kinds), "kind")} of runs', file=sys.stderr, flush=True)
    measured = _chosen(kinds.values(), num_jobs)
    costs = _measure(plan, how, measured, num_jobs)
    seconds = _makespan([startup + left[r.id] * each for r in known for startup, each in [costs[r.alg, r.task]]], num_jobs)
    which = f'each of {len(kinds)} kinds' if len(kinds) > 1 else f'{len(measured) if len(measured) > 1 else "one"} of them'
    sentence = f'{todo}: {in_words(seconds)} with {num_jobs} at a time (measured by a few iterations of {which})'
    begun = sum(left[r.id] < max_iter(r) for r in known)
    sentence += f'; of {_count(begun, "begun run")} only what is left is counted' if begun else ''
    if len(known) < len(pending):
        others = _count(len(pending) - len(known), 'run')
        sentence += f'; {others} of commands that cannot be measured (not plain imitate_mj.py) come on top'
    return sentence


def max_iter(run: Job) -> int:
    """The number of iterations that a trainer's command asks for."""
    value = run.command.options.get('--max_iter')
    try:
        return MAX_ITER if value is None else int(value)
    except ValueError as e:
        raise UserError(f"{run.id}: its command has --max_iter '{value}'; expected a whole number") from e


def _iterations_done(run: PlannedRun) -> int:
    """How far the checkpoint of an unfinished run has come."""
    from policyopt.files.training_log import read_log

    part = part_path(run.out)
    return len(read_log(part)) if os.path.exists(part) else 0


def _chosen(kinds: Iterable[list[PlannedRun]], num_jobs: int) -> list[PlannedRun]:
    """The runs to measure: a middle one of each kind, then more of the kinds in turn, up to the number of runs at a time."""
    rows = [some[len(some) // 2 :] + some[: len(some) // 2] for some in kinds]
    in_turn = [r for r in itertools.chain.from_iterable(itertools.zip_longest(*rows)) if r is not None]
    return in_turn[: max(len(rows), num_jobs)]


def _measure(plan: Plan, how: How, measured: list[PlannedRun], num_jobs: int) -> dict[tuple[str, str], list[float]]:
    """{kind: (start-up, seconds of an iteration)}, measured by short versions of these runs."""
    with tempfile.TemporaryDirectory(prefix='policyopt_estimate_') as tmp:
        # an absolute folder for the runs leaves the expert data where they are
        elsewhere = dataclasses.replace(plan.spec, options=dataclasses.replace(plan.spec.options, checkpt_subdir=tmp))
        runs = {r.id: r for r in chosen_runs(elsewhere, plan.seed, how)}
        jobs = [_shortened(runs[r.id]) for r in measured]
        try:
            outcomes = launch.run_local(jobs, How(jobs=num_jobs, threads=how.threads, verbosity=-2))
        except Stopped as e:
            raise Stopped(e.signum, 'the estimate leaves nothing behind') from e
        ended = {o.job.id: o for o in outcomes}
        costs = {}
        for run, job in zip(measured, jobs, strict=True):
            outcome = ended[job.id]  # a run that was not started comes after one that failed, which raises
            if outcome.state != 'ok':
                said = last_lines(job.log, 1).removeprefix('  | ')
                raise MeasuredRunFailed(f'{job.id} {outcome.detail} when its first iterations were measured: {said}')
            assert outcome.seconds is not None  # no other pipeline works in our temporary folder
            costs.setdefault((run.alg, run.task), []).append(_cost(outcome.seconds, _ttotal(job)))
        return {kind: [statistics.fmean(column) for column in zip(*some, strict=True)] for kind, some in costs.items()}


def _shortened(run: Job) -> Job:
    """A run with its first few iterations only; if an option is given twice, argparse takes the last value."""
    options = run.command.options
    rounds = options.get('--dagger_rounds') or ''  # each needs a step
    num = max(algorithms.probe_iterations(options.get('--mode')), 1 + int(rounds) if rounds.isdecimal() else 0)
    num = min(max_iter(run), num)
    return dataclasses.replace(run, command=run.command.with_added('--max_iter', num))


def _ttotal(job: Job) -> np.ndarray:
    """The column ttotal of a measured run's log; a trainer of the same name as ours may not write one.

    The episodes of DAgger's rounds are left out: a short run has as many rounds as a long one, so they count as start-up.
    """
    from policyopt.files.training_log import read_log

    log = read_log(job.out)
    if not len(log) or 'ttotal' not in (log.dtype.names or ()):
        raise RunFailed(f'the log of {job.id} has no times (column ttotal of its table /log)')
    rounds = log['tsamp'].cumsum() if {'round', 'tsamp'} <= set(log.dtype.names or ()) else 0.0
    return log['ttotal'].astype(float) - rounds


def _cost(seconds: float, ttotal_N: np.ndarray) -> tuple[float, float]:
    """(start-up, seconds of an iteration) from a short run's duration and its log's column ttotal, which sums over iterations."""
    each = float((ttotal_N[-1] - ttotal_N[0]) / (len(ttotal_N) - 1) if len(ttotal_N) > 1 else ttotal_N[0])
    return seconds - each * len(ttotal_N), each


def _makespan(seconds: Sequence[float], num_jobs: int) -> float:
    """The time until the last run ends, if each run starts, in order, as soon as one of `num_jobs` places is free."""
    free = [0.0] * num_jobs
    for s in seconds:
        heapq.heapreplace(free, free[0] + s)
    return max(free)


def in_words(seconds: float) -> str:
    """A duration in words: in whole units, with one decimal below 10 hours and 10 days."""
    if seconds < 0.5:
        return 'less than a second'
    units = ((1, 'second', 90), (60, 'minute', 120), (3600, 'hour', 72), (86400, 'day', math.inf))
    size, unit, _ = next(u for u in units if seconds < u[0] * u[2])
    digits = 1 if size > 60 and seconds < 9.95 * size else 0
    number = f'{seconds / size:.{digits}f}'
    return f'about {number} {unit}{"s" * (number != "1")}'


def _count(number: int, what: str) -> str:
    return f'{number} {what}{"s" * (number != 1)}'
