"""Stage 2: choose a snapshot of every run, let it play, and keep each row until the whole results file is written."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.files.h5files import attr_text, open_h5, set_attrs, write_h5
from policyopt.files.results import ResultRow, TaskRow
from policyopt.pipeline import experts, foreign, launch
from policyopt.util import STOP_SIGNALS, RunFailed, UserError, derive_seed, holding_signals, ignore_signals, parse_time

if TYPE_CHECKING:
    from policyopt.files.trajectories import TrajBatch
    from policyopt.pipeline.plan import How
    from policyopt.pipeline.spec import Run, Spec, Task


def evaluate_runs(spec: Spec, runs: Sequence[Run], seed: int, how: How) -> tuple[list[ResultRow], list[TaskRow]]:
    """The rows of /results and /tasks; rows that an interrupted attempt left are used when resumed."""
    names = dict.fromkeys(r.task for r in runs)
    sets = {key: experts.expert_returns(spec, spec.traj_path(*key)) for key in itertools.product(names, range(spec.training.datasets))}
    task_rows = [_task_row(spec, spec.task(name), sets, seed) for name in names]
    if not how.resume:
        forget_rows(spec)
    os.makedirs(_cache_dir(spec), exist_ok=True)
    jobs = [_job(spec, run, seed) for run in runs]
    for dotted, place in {(job['policy'], job['place']) for job in jobs if job['policy']}:
        foreign.loader(dotted, place)
    kept = {job['id'] for job in jobs if _read_row(job) is not None}
    if kept:
        print(f'{len(kept)} of {len(jobs)} runs were evaluated before', file=sys.stderr)
    _play_all([job for job in jobs if job['id'] not in kept], how)
    rows = []
    for run, job in zip(runs, jobs, strict=True):
        row = _read_row(job)
        if row is None:
            raise RunFailed(f'{job["cache"]}: the evaluation of {run.id} has vanished or changed; go on with --resume')
        which = (run.alg, run.task, run.num_trajs, run.run, row['seed'], row['snapshot'], run.dataset)
        rows.append(ResultRow(*which, *sets[run.task, run.dataset], row['returns'], row['lengths'], row['last_trueret']))
    return rows, task_rows


def training_facts(spec: Spec, runs: Sequence[Run]) -> dict[str, str]:
    """Where and when these runs were trained, for the results' root attributes; what a file does not say is left out.

    training_seconds sums the runs' times from first start to end, interruptions included.
    """
    said = []
    for run in (r for r in runs if spec.algorithm(r.alg).policy is None):
        with open_h5(run.out, 'a training log') as h5:
            said.append({k: attr_text(h5.root, k, '') for k in ('git_hash', 'host', 'machine', 'numerics', 'start_time', 'end_time')})
    facts = {f'training_{k}': ', '.join(sorted({s[k] for s in said if s[k]})) for k in ('git_hash', 'host', 'machine', 'numerics')}
    pairs = [(parse_time(s['start_time']), parse_time(s['end_time'])) for s in said]
    times = [(start, end) for start, end in pairs if start is not None and end is not None]
    if times:
        facts['training_start'], facts['training_end'] = min(t[0] for t in times).isoformat(), max(t[1] for t in times).isoformat()
        facts['training_seconds'] = f'{sum((end - start).total_seconds() for start, end in times):.0f}'
    return {k: v for k, v in facts.items() if v}


def forget_rows(spec: Spec) -> None:
    """Remove the rows kept between attempts."""
    shutil.rmtree(_cache_dir(spec), ignore_errors=True)


def _cache_dir(spec: Spec) -> str:
    return os.path.join(spec.checkpt_dir, 'evaluated' if spec.options.eval_deterministic else 'evaluated_sampled')


def _task_row(spec: Spec, task: Task, sets: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]], seed: int) -> TaskRow:
    mine = [sets[key] for key in sorted(sets) if key[0] == task.name]
    returns, lengths = (np.concatenate([s[i] for s in mine]) for i in (0, 1))
    return TaskRow(task.name, task.env, task.policy or '', returns, lengths, *experts.random_returns(spec, task, seed))


def _job(spec: Spec, run: Run, seed: int) -> dict[str, Any]:
    """All that a worker process needs to evaluate one run, as plain values."""
    task = spec.task(run.task)
    return {
        'id': run.id,
        'file': run.out,
        'cache': os.path.join(_cache_dir(spec), run.id + '.h5'),
        'rule': spec.algorithm(run.alg).eval,
        'num_trajs': spec.options.eval_num_trajs,
        'deterministic': spec.options.eval_deterministic,
        'eval_seed': derive_seed(seed, 'evaluate', run.id),
        'run_seed': run.seed,
        'env': task.env,
        'policy': spec.algorithm(run.alg).policy,
        'place': f'{spec.file}: {spec.algorithm(run.alg).place}.policy',
        'max_traj_len': task.max_traj_len,
    }


def choose_snapshot(path: str, rule: str) -> str:
    """The name of the snapshot that stands for a run: the last one, or the one with the highest `valacc` (NaN ignored)."""
    from policyopt.files.snapshots import read_log, snapshot_names

    names = snapshot_names(path)
    if rule == 'last':
        return names[-1]
    log = read_log(path)
    columns = log.dtype.names or ()
    if 'valacc' not in columns:
        has = ', '.join(columns)
        raise UserError(f"{path}: its log has no column 'valacc', which eval: best_valacc needs; it has {has}. Use eval: last")
    valacc = {f'iter{row["iter"]:07d}': row['valacc'] for row in log}
    judged = [n for n in names if not np.isnan(valacc.get(n, np.nan))]
    if not judged:
        raise UserError(f'{path}: no snapshot has a valacc that is a number; expected one. Use eval: last for this algorithm')
    return max(judged, key=valacc.__getitem__)


def _evaluate(job: dict[str, Any]) -> str:
    """Play one run's policy and store its row."""
    from policyopt.evaluation import evaluate_file
    from policyopt.files.snapshots import read_root

    if job['policy']:
        snapshot, seed, trajs, last_trueret = job['policy'], job['run_seed'], _play_foreign(job), np.nan
    else:
        snapshot = choose_snapshot(job['file'], job['rule'])
        policy_path = f'{job["file"]}/snapshots/{snapshot}'
        trajs = evaluate_file(policy_path, job['num_trajs'], job['eval_seed'], job['deterministic'], job['env'], job['max_traj_len'])[2]
        seed, last_trueret = int(read_root(job['file']).get('seed', job['run_seed'])), _last_trueret(job['file'])
    with write_h5(job['cache'], replace=True) as h5:
        h5.create_array('/', 'returns', trajs.returns)
        h5.create_array('/', 'lengths', trajs.lengths)
        set_attrs(h5.root, {'snapshot': snapshot, 'seed': seed, 'last_trueret': last_trueret, 'key': _key(job)})
    return job['id']


def _last_trueret(path: str) -> float:
    """Mean true return of the last batch of a training, NaN where its log has none: other programs write what they like."""
    from policyopt.files.snapshots import is_training_log, read_log

    if not is_training_log(path):
        return np.nan
    log = read_log(path)
    return float(log['trueret'][-1]) if len(log) and 'trueret' in (log.dtype.names or ()) else np.nan


def _play_foreign(job: dict[str, Any]) -> TrajBatch:
    """The episodes of a policy that the user's own function loads."""
    from policyopt.sampling.tasks import MDP, sample_trajectories

    load, source = foreign.loader(job['policy'], job['place']), f'{job["policy"]} of {job["file"]}'
    try:
        policy = load(job['file'])
    except Exception as e:
        raise RunFailed(f'{source}: failed with {type(e).__name__}: {" ".join(str(e).split())}') from e
    mdp = MDP(job['env'])
    actor = foreign.ForeignActor(policy, mdp.info, source)
    return sample_trajectories(actor, mdp, job['num_trajs'], mdp.longest(job['max_traj_len']), (job['eval_seed'], 'evaluate'), True)


def _key(job: dict[str, Any]) -> str:
    """What a stored row must agree with to be used again: how it was measured, and which file."""
    stat = os.stat(job['file'])
    measured = [job[k] for k in ('num_trajs', 'deterministic', 'eval_seed', 'env', 'max_traj_len')]
    return repr([job['policy'] or job['rule'], *measured, stat.st_size, stat.st_mtime_ns])


def _read_row(job: dict[str, Any]) -> dict[str, Any] | None:
    if not os.path.exists(job['cache']):
        return None
    with open_h5(job['cache'], 'the evaluation of one run') as h5:
        if attr_text(h5.root, 'key') != _key(job):
            return None
        found = {'snapshot': attr_text(h5.root, 'snapshot'), 'seed': int(attr_text(h5.root, 'seed', ''))}
        found['last_trueret'] = float(attr_text(h5.root, 'last_trueret', 'nan'))
        return found | {'returns': h5.root.returns.read(), 'lengths': h5.root.lengths.read()}


def _play_all(jobs: list[dict[str, Any]], how: How) -> None:
    num_jobs = min(how.jobs or launch.num_cores(), len(jobs))
    with launch.Progress(len(jobs), how.verbosity) as progress:
        if num_jobs <= 1:
            for job in jobs:
                progress.finished(_evaluate(job))
            return
        context = multiprocessing.get_context('spawn')
        stop = context.Event()
        pool = concurrent.futures.ProcessPoolExecutor(num_jobs, context, _start_worker, (os.getpid(), stop, how.threads or 1))
        try:
            with holding_signals(*STOP_SIGNALS):  # the first jobs start the workers
                futures = [pool.submit(_evaluate, job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                progress.finished(future.result())
        except concurrent.futures.process.BrokenProcessPool as e:
            raise RunFailed('a worker process of the evaluation was killed; rows evaluated so far are kept, go on with --resume') from e
        except BaseException:
            stop.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent: int, stop: Any, threads: int) -> None:
    """Give a worker its threads, leave stop signals to the pipeline, and let no worker outlive it, even when it is killed."""
    ignore_signals(*STOP_SIGNALS)
    for name in launch.THREAD_VARIABLES:
        os.environ[name] = str(threads)

    def watch():
        while os.getppid() == parent and not stop.wait(0.5):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
