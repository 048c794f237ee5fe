"""Stage 2: choose a snapshot of every run, let it play, and keep each row until the whole results file is written."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.cores import num_cores
from policyopt.errors import RunFailed, UserError
from policyopt.files.atomic import check_regular
from policyopt.files.hdf5 import attr_text, open_h5, set_attrs, write_h5
from policyopt.files.names import id_of
from policyopt.files.results_file import ResultRow, Results, TaskRow, read_results
from policyopt.files.runfile import read_run
from policyopt.pipeline import external_policies, launch, sample_stage
from policyopt.progress import Progress
from policyopt.provenance import derive_seed, parse_time
from policyopt.signals import STOP_SIGNALS, holding_signals, ignore_signals

if TYPE_CHECKING:
    from policyopt.pipeline.plan import How
    from policyopt.pipeline.spec import Run, Spec, Task
    from policyopt.trajectories import TrajBatch


@dataclasses.dataclass(frozen=True)
class Standing:
    """What the results of an experiment hold already, and what is to do: `stale` is {run id: what has changed since it was evaluated}."""

    stored: Results | None
    todo: list[Run]
    stale: dict[str, str]


def standing(spec: Spec, runs: Sequence[Run], seed: int, rerun: Collection[str] = ()) -> Standing:
    """How far the evaluation of these runs is, those with an id in `rerun` once more; reads only.

    Raises UserError where the results cannot be read, or belong to other numbers of episodes or other actions.
    """
    if not os.path.exists(spec.results_path):
        return Standing(None, list(runs), {})
    stored = read_results(spec.results_path)
    rows = {_id(row): row for row in stored.rows}
    todo = [r for r in runs if r.id not in rows or r.id in rerun]
    kept = rows.keys() - {r.id for r in todo}
    stale = {}
    for run in spec.runs(seed):
        if run.id in kept and (changed := _changed(_job(spec, run, seed), rows[run.id])):
            stale[run.id] = changed
    num = spec.options.eval_num_trajs
    other = next((i for i in kept if len(rows[i].alg_traj_returns) != num), None)
    if todo and other:
        seen = f'{other} was evaluated with {len(rows[other].alg_traj_returns)} episodes, but options.eval_num_trajs is {num}'
        raise UserError(f"{spec.results_path}: {seen}; set it back, or redo all runs with --rerun 'alg=*'")
    return Standing(stored, todo, stale)


def _id(row: ResultRow) -> str:
    return id_of(row.alg, row.task, row.num_trajs, row.run)


def _changed(job: dict[str, Any], row: ResultRow) -> str:
    """What has changed since a row was made; empty for nothing, and where an older file does not say it."""
    asked = _measured(job)
    if row.evaluated not in ('', asked):
        return f"was evaluated as '{row.evaluated}', but {asked!r} is asked for"
    if row.run_sha256 and os.path.exists(job['file']) and file_sha256(job['file']) != row.run_sha256:
        return 'its run file has changed since it was evaluated'
    return ''


def check_runs(spec: Spec, runs: Sequence[Run], seed: int) -> None:
    """Raise UserError unless the files of these runs hold what their evaluation will need, before any of them plays."""
    from policyopt.files.training_log import read_snapshot
    from policyopt.policies import policy_from_snapshot
    from policyopt.sampling.mdp import MDP

    check_policies(spec, runs)
    mdps = {}
    for run in runs:
        job = _job(spec, run, seed)
        if not job['policy']:
            mdp = mdps[run.task] = mdps.get(run.task) or MDP(job['env'])
            policy_from_snapshot(read_snapshot(f'{run.out}/snapshots/{read_run(run.out).choose_snapshot(job["rule"])}'), mdp)


def check_policies(spec: Spec, runs: Sequence[Run]) -> None:
    """Raise UserError or RunFailed unless the functions that load the policies of other programs can be imported."""
    algs = [spec.algorithm(name) for name in dict.fromkeys(r.alg for r in runs)]
    external_policies.check_loaders({a.policy: f'{spec.file}: {a.place}.policy' for a in algs if a.policy}.items())


def evaluate_runs(spec: Spec, runs: Sequence[Run], seed: int, how: How, stored: Results | None) -> tuple[list[ResultRow], list[TaskRow]]:
    """The rows of /results and /tasks: those of `runs`, which play, and the stored ones of all other runs.

    Rows that an interrupted attempt left are used when resumed.
    """
    check_runs(spec, runs, seed)
    old = {} if stored is None else {_id(row): row for row in stored.rows}
    old_tasks = {} if stored is None else {task.task: task for task in stored.tasks}
    sets = _expert_sets(spec, dict.fromkeys(r.task for r in runs))
    task_rows = old_tasks | {name: _task_row(spec, spec.task(name), sets, seed) for name in dict.fromkeys(r.task for r in runs)}
    _give_all_episodes(spec, old, task_rows)  # before anything plays, because their files may be missing
    if not how.resume:
        forget_rows(spec)
    os.makedirs(_cache_dir(spec), exist_ok=True)
    jobs = [_job(spec, run, seed) for run in runs]
    for job in (j for j in jobs if j['id'] in old):  # to be done again
        with contextlib.suppress(FileNotFoundError):
            os.unlink(job['cache'])
    kept = {job['id'] for job in jobs if _read_row(job) is not None}
    if kept:
        print(f'{len(kept)} of {len(jobs)} runs were evaluated before', file=sys.stderr)
    _play_all([job for job in jobs if job['id'] not in kept], how)
    rows = dict(old)
    for run, job in zip(runs, jobs, strict=True):
        row = _read_row(job)
        if row is None:
            raise RunFailed(f'{job["cache"]}: the evaluation of {run.id} has vanished or changed; go on with --resume')
        which = (run.alg, run.task, run.num_trajs, run.run, row['seed'], row['snapshot'], run.dataset)
        values = (*sets[run.task, run.dataset], row['returns'], row['lengths'], row['last_trueret'], file_sha256(run.out), _measured(job))
        rows[run.id] = ResultRow(*which, *values)
    return _in_order(spec, seed, rows, task_rows)


def _expert_sets(spec: Spec, names: Iterable[str]) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """{(task, set): (returns, lengths) of its episodes}."""
    return {key: sample_stage.expert_returns(spec, spec.traj_path(*key)) for key in itertools.product(names, range(spec.training.datasets))}


def _in_order(spec: Spec, seed: int, rows: dict[str, ResultRow], tasks: dict[str, TaskRow]) -> tuple[list[ResultRow], list[TaskRow]]:
    """Rows and tasks in the order of the experiment, those that it does not have (any more) behind them."""
    ids, names = [r.id for r in spec.runs(seed)], [t.name for t in spec.tasks]
    return [rows[i] for i in dict.fromkeys([*ids, *rows]) if i in rows], [tasks[n] for n in dict.fromkeys([*names, *tasks]) if n in tasks]


def _give_all_episodes(spec: Spec, rows: dict[str, ResultRow], tasks: dict[str, TaskRow]) -> None:
    """Give kept rows from before full_dataset_num_trajs was changed the episodes of their expert set again, which begin with the same.

    The columns of expert episodes have one width.
    """
    num, sets = spec.training.full_dataset_num_trajs, {}
    for row in rows.values():
        if len(row.ex_traj_returns) != num:
            sets = sets or _expert_sets(spec, tasks)
            if (row.task, row.dataset) not in sets:
                of_set = f'{spec.results_path}: {_id(row)} learned from expert set {row.dataset}'
                seen = f'{of_set}, but training.datasets is {spec.training.datasets}'
                raise UserError(f'{seen}; set that to {row.dataset + 1} or more, or give options.results_filename another name')
            returns, lengths = sets[row.task, row.dataset]
            rows[_id(row)] = dataclasses.replace(row, ex_traj_returns=returns, ex_traj_lengths=lengths)
    for name, task in tasks.items():
        if len(task.ex_traj_returns) != num * spec.training.datasets:
            sets = sets or _expert_sets(spec, tasks)
            returns, lengths = _all_episodes(name, sets)
            tasks[name] = dataclasses.replace(task, ex_traj_returns=returns, ex_traj_lengths=lengths)


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


def facts_of_rows(spec: Spec, seed: int, rows: Sequence[ResultRow], stored: Results | None) -> dict[str, str]:
    """`training_facts` of all these rows; of those whose files are gone what `stored` says, but without times, not known for all then."""
    ids = set(map(_id, rows))
    here = [r for r in spec.runs(seed) if r.id in ids and os.path.exists(r.out)]
    facts = training_facts(spec, here)
    if stored is None or len(here) == len(rows):
        return facts
    for key in ('training_git_hash', 'training_host', 'training_machine', 'training_numerics'):
        texts = dict.fromkeys(text for text in (stored.attrs.get(key), facts.get(key)) if text)
        facts[key] = ', '.join(text for text in texts if not any(text in other for other in texts if other != text))
    return {k: v for k, v in facts.items() if v and k not in ('training_start', 'training_end', 'training_seconds')}


def forget_rows(spec: Spec) -> None:
    """Remove the rows kept between attempts."""
    shutil.rmtree(_cache_dir(spec), ignore_errors=True)


def _cache_dir(spec: Spec) -> str:
    return os.path.join(spec.checkpt_dir, 'evaluated' if spec.options.eval_deterministic else 'evaluated_sampled')


def _task_row(spec: Spec, task: Task, sets: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]], seed: int) -> TaskRow:
    returns, lengths = _all_episodes(task.name, sets)
    of_random = sample_stage.random_returns(spec, task, seed)
    return TaskRow(
        task.name,
        task.env,
        expert_policy=task.policy or '',
        ex_traj_returns=returns,
        ex_traj_lengths=lengths,
        random_returns=of_random[0],
        random_lengths=of_random[1],
    )


def _all_episodes(name: str, sets: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """[returns, lengths] of all expert sets of a task together."""
    return [np.concatenate(column) for column in zip(*(sets[key] for key in sorted(sets) if key[0] == name), strict=True)]


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
    """The name of the snapshot that stands for a run, by one of algorithms.RULES."""
    return read_run(path).choose_snapshot(rule)


def _evaluate(job: dict[str, Any]) -> str:
    """Play one run's policy and store its row; code of strangers plays in a process of its own."""
    if job['policy']:
        return external_policies.apart(f'{job["policy"]} of {job["file"]}', _store_row, job)
    return _store_row(job)


def _store_row(job: dict[str, Any]) -> str:
    from policyopt.evaluation import evaluate_file

    if job['policy']:
        snapshot, seed, trajs, last_trueret = job['policy'], job['run_seed'], _play_foreign(job), np.nan
    else:
        run = read_run(job['file'])
        snapshot, last_trueret = run.choose_snapshot(job['rule']), run.last_trueret
        policy_path = f'{job["file"]}/snapshots/{snapshot}'
        trajs = evaluate_file(
            policy_path,
            job['num_trajs'],
            job['eval_seed'],
            deterministic=job['deterministic'],
            env_name=job['env'],
            max_traj_len=job['max_traj_len'],
        )[2]
        seed = job['run_seed'] if run.seed is None else run.seed
    with write_h5(job['cache'], replace=True) as h5:
        h5.create_array('/', 'returns', trajs.returns)
        h5.create_array('/', 'lengths', trajs.lengths)
        set_attrs(h5.root, {'snapshot': snapshot, 'seed': seed, 'last_trueret': last_trueret, 'key': _key(job)})
    return job['id']


def _play_foreign(job: dict[str, Any]) -> TrajBatch:
    """The episodes of a policy that the user's own function loads."""
    from policyopt.sampling.mdp import MDP, sample_trajectories

    load, source = external_policies.loader(job['policy'], job['place']), f'{job["policy"]} of {job["file"]}'
    try:
        policy = load(job['file'])
    except BaseException as e:
        raise RunFailed(f'{source}: failed with {external_policies.said(e)}') from e
    mdp = MDP(job['env'])
    actor = external_policies.ForeignActor(policy, mdp.info, source)
    key, one_process = (job['eval_seed'], 'evaluate'), 1  # a policy of another program need not survive being sent to others
    return sample_trajectories(
        actor, mdp, job['num_trajs'], mdp.longest(job['max_traj_len']), key, deterministic=True, sim_batch_size=one_process
    )


def _measured(job: dict[str, Any]) -> str:
    """How a row is measured, as results hold it."""
    actions = 'most likely' if job['deterministic'] else 'sampled'
    what = f'{job["policy"] or job["rule"]}, {job["num_trajs"]} episodes of {job["env"]}, {actions} actions, seed {job["eval_seed"]}'
    return what + (f', max_traj_len {job["max_traj_len"]}' if job['max_traj_len'] else '')


def file_sha256(path: str) -> str:
    """SHA-256 of a run's output: of a file, or of all files in a folder."""
    sha = hashlib.sha256()
    files = [path] if os.path.isfile(path) else sorted(os.path.join(d, f) for d, _, names in os.walk(path) for f in names)
    for file in files:
        sha.update(b'' if file == path else os.path.relpath(file, path).encode('utf-8', 'surrogateescape') + b'\0')
        check_regular(file, 'the output of a run')
        with open(file, 'rb') as f:
            while block := f.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


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
    num_jobs = min(how.jobs or num_cores(), len(jobs))
    with Progress(len(jobs), how.verbosity) as progress:
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
