"""How long stage 1 will take: one run of every kind begins in a temporary folder, and its first iterations stand for all the others.

A kind is an algorithm on a task; its run with a middle dataset size is measured, as many kinds at once as runs will be.

    seconds of a run = start-up + iterations left · seconds of an iteration after the first

Start-up is all that a measured process did besides iterating, and what its first iteration took longer than the later ones.
"""

import dataclasses
import heapq
import math
import os
import sys
import tempfile

from policyopt.pipeline import folder, launch, templates
from policyopt.util import RunFailed, UserError

MAX_ITER = 1000000  # imitate_mj.py's own, for commands that do not say it
ITERATIONS = {'bclone': 300, 'ga': 4}  # measured by mode: about a second on the classic tasks


def estimate(spec, runs_of, jobs=None, threads=None, verbosity=0):
    """One sentence on how much is to do and how long that takes; nothing is left behind, whatever happens.

    Args:
        spec: the experiment; of its folders only the expert data and unfinished runs are read.
        runs_of: function of a Spec that returns its selected runs.
        jobs: runs at a time, None for all cores.
        threads: of each run, as for run_local.
        verbosity: below 0 no progress is shown.
    Raises:
        RunFailed: a measured command failed, as its training would; launch.Stopped: by a signal.
    """
    runs = runs_of(spec)
    pending = [r for r in runs if not os.path.exists(r.out)]
    if not pending:
        return f'{len(runs)} of {len(runs)} runs are done: nothing to do'
    todo = f'{len(pending)} of {len(runs)} runs to do'
    known = [r for r in pending if templates.is_trainer(r.command) and not templates.has_operators(r.command)]
    if not known:
        return f'{todo}; how long that takes is not known: only plain commands of imitate_mj.py can be measured'
    num_jobs = min(jobs or launch.num_cores(), len(pending))
    kinds = {}
    for run in known:
        kinds.setdefault((run.alg, run.task), []).append(run)
    left = {r.id: max_iter(r) - _iterations_done(r) for r in known}  # before measuring, because it may find a mistake
    if verbosity >= 0:
        print(f'estimate: running a few iterations of {_count(len(kinds), "kind")} of runs', file=sys.stderr, flush=True)
    costs = _measure(spec, runs_of, {kind: some[len(some) // 2].id for kind, some in kinds.items()}, num_jobs, threads)
    seconds = _makespan([startup + left[r.id] * each for r in known for startup, each in [costs[r.alg, r.task]]], num_jobs)
    sentence = f'{todo}: about {in_words(seconds)} with {num_jobs} at a time (measured by a few iterations of {_each(len(kinds))})'
    begun = sum(left[r.id] < max_iter(r) for r in known)
    sentence += f'; of {_count(begun, "begun run")} only what is left is counted' if begun else ''
    if len(known) < len(pending):
        others = _count(len(pending) - len(known), 'run')
        sentence += f'; {others} of commands that cannot be measured (not plain imitate_mj.py) come on top'
    return sentence


def max_iter(run):
    """The number of iterations that a trainer's command asks for."""
    value = templates.option(run.command, '--max_iter')
    try:
        return MAX_ITER if value is None else int(value)
    except ValueError as e:
        raise UserError(f"{run.id}: its command has --max_iter '{value}'; expected a whole number") from e


def _iterations_done(run):
    """How far the checkpoint of an unfinished run has come."""
    part = run.out + '.part'
    if not os.path.exists(part):
        return 0
    from policyopt.snapshots import read_log

    return len(read_log(part))


def _measure(spec, runs_of, ids, num_jobs, threads):
    """{kind: (start-up, seconds of an iteration)} by a short run for each {kind: run id}."""
    from policyopt.snapshots import read_log

    with tempfile.TemporaryDirectory(prefix='policyopt_estimate_') as tmp:
        # an absolute folder for the runs leaves the expert data where they are
        elsewhere = dataclasses.replace(spec, options=dataclasses.replace(spec.options, checkpt_subdir=tmp))
        os.mkdir(os.path.join(tmp, 'logs'))
        runs = {r.id: r for r in runs_of(elsewhere)}
        jobs = {kind: folder.job(elsewhere, _shortened(runs[run_id])) for kind, run_id in ids.items()}
        try:
            outcomes = launch.run_local(list(jobs.values()), num_jobs, threads=threads, verbosity=-2)
        except launch.Stopped as e:
            raise launch.Stopped(e.signum, 'the estimate leaves nothing behind') from e
        for outcome in outcomes:
            if outcome.state != 'ok':
                said = launch.last_lines(outcome.job.log, 1).removeprefix('  | ')
                raise RunFailed(f'no estimate: {outcome.job.id} {outcome.detail}, as it would in training: {said}')
        seconds = {o.job.id: o.seconds for o in outcomes}
        return {kind: _cost(seconds[job.id], read_log(job.out)['ttotal'].astype(float)) for kind, job in jobs.items()}


def _shortened(run):
    """A run with its first few iterations only; of an option that stands twice, argparse takes the last."""
    num = min(max_iter(run), ITERATIONS.get(templates.option(run.command, '--mode'), min(ITERATIONS.values())))
    return dataclasses.replace(run, command=f'{run.command} --max_iter {num}')


def _cost(seconds, ttotal_N):
    """(start-up, seconds of an iteration) from a short run's duration and its log's column ttotal, which sums over iterations."""
    each = float((ttotal_N[-1] - ttotal_N[0]) / (len(ttotal_N) - 1) if len(ttotal_N) > 1 else ttotal_N[0])
    return seconds - each * len(ttotal_N), each


def _makespan(seconds, num_jobs):
    """When the last of these runs ends, if each starts in its turn as soon as one of `num_jobs` places is free."""
    free = [0.0] * num_jobs
    for s in seconds:
        heapq.heapreplace(free, free[0] + s)
    return max(free)


def in_words(seconds):
    """A duration as people say it, to about two digits."""
    units = ((1, 'second', 90), (60, 'minute', 120), (3600, 'hour', 72), (86400, 'day', math.inf))
    size, unit, _ = next(u for u in units if seconds < u[0] * u[2])
    digits = 1 if size > 60 and seconds < 9.95 * size else 0
    return f'{seconds / size:.{digits}f} {unit}s'


def _count(number, what):
    return f'{number} {what}{"s" * (number != 1)}'


def _each(number):
    return 'one of them' if number == 1 else f'each of {number} kinds'
