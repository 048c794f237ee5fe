"""Stage 2: choose a snapshot of every run, let it play, and keep each row until the whole results file is written."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from policyopt.cores import num_cores
from policyopt.errors import RunFailed, UserError
from policyopt.files.atomic import check_regular
from policyopt.files.hdf5 import attr_text, open_h5, set_attrs, write_h5
from policyopt.files.names import KEYS, id_of
from policyopt.files.results_file import ResultRow, Results, TaskRow, read_results
from policyopt.files.runfile import RunFile, read_facts, read_run
from policyopt.files.training_log import Snapshot
from policyopt.pipeline import external_policies, launch, sample_stage
from policyopt.pipeline.plan import How
from policyopt.pipeline.spec import PlannedRun, Spec, select_runs
from policyopt.progress import Progress
from policyopt.provenance import derive_seed, parse_time
from policyopt.signals import follow_parent, holding_signals
from policyopt.trajectories import TrajBatch


@dataclasses.dataclass(frozen=True)
class Standing:
    """The state of an evaluation: the stored results, the runs still to evaluate, and {run id: what has changed since} of stale rows."""

    stored: Results | None
    todo: list[PlannedRun]
    stale: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How one run is evaluated in an experiment with this base seed; worker processes get it as it is."""

    spec: Spec
    run: PlannedRun
    base_seed: int

    @property
    def cache(self) -> str:
        """Where the row is kept until the results are written."""
        return os.path.join(_cache_dir(self.spec), self.run.id + '.h5')

    @property
    def policy(self) -> str | None:
        """package.module:load of a policy of another program."""
        return self.spec.algorithm(self.run.alg).policy

    @property
    def seed(self) -> int:
        """The seed of its episodes."""
        return derive_seed(self.base_seed, 'evaluate', self.run.id)

    def __str__(self) -> str:
        """How the row is measured, as stored in the results."""
        task, options = self.spec.task(self.run.task), self.spec.options
        actions = 'most likely' if options.eval_deterministic else 'sampled'
        what = f'{self.policy or self.spec.algorithm(self.run.alg).eval}, {options.eval_num_trajs} episodes of {task.env}'
        limit = f', max_traj_len {task.max_traj_len}' if task.max_traj_len else ''
        return f'{what}, {actions} actions, seed {self.seed}{limit}'

    def key(self) -> str:
        """Identifies the measurement and the run's file; a kept row is used again only if its key is equal."""
        stat = os.stat(self.run.out)
        return f'{self}, {stat.st_size} bytes, {stat.st_mtime_ns}'


def standing(spec: Spec, runs: Sequence[PlannedRun], seed: int, how: How) -> Standing:
    """How far the evaluation of these runs is; the runs of --rerun count as not evaluated. Writes nothing.

    Raises UserError where the results cannot be read, or belong to other numbers of episodes or other actions.
    """
    rerun = {r.id for r in select_runs(runs, how.rerun, flag='--rerun')} if how.rerun else set()
    if not os.path.exists(spec.results_path):
        return Standing(None, list(runs), {})
    stored = read_results(spec.results_path)
    rows = {_id(row): row for row in stored.rows}
    todo = [r for r in runs if r.id not in rows or r.id in rerun]
    kept = rows.keys() - {r.id for r in todo}
    stale = {}
    for run in spec.runs(seed):
        if run.id in kept and (changed := _changed(Evaluation(spec, run, seed), rows[run.id])):
            stale[run.id] = changed
    num = spec.options.eval_num_trajs
    other = next((i for i in kept if len(rows[i].alg_traj_returns) != num), None)
    if todo and other:
        seen = f'{other} was evaluated with {len(rows[other].alg_traj_returns)} episodes, but options.eval_num_trajs is {num}'
        raise UserError(f"{spec.results_path}: {seen}; set it back, or redo all runs with --rerun 'alg=*'")
    return Standing(stored, todo, stale)


def _id(row: ResultRow) -> str:
    return id_of(row.alg, row.task, row.num_trajs, row.run)


def _changed(asked: Evaluation, row: ResultRow) -> str:
    """What has changed since a row was made; empty for nothing, and where an older file does not say it."""
    if row.evaluated not in ('', str(asked)):
        return f"was evaluated as '{row.evaluated}', but {str(asked)!r} is asked for"
    if row.run_sha256 and os.path.exists(asked.run.out) and file_sha256(asked.run.out) != row.run_sha256:
        return 'its run file has changed since it was evaluated'
    return ''


def read_runs(spec: Spec, runs: Sequence[PlannedRun]) -> dict[str, RunFile]:
    """{run id: its file}, those with policies of other programs left out.

    Raises UserError unless they hold what their evaluation will need, before any of them plays.
    """
    from policyopt.policies import policy_from_snapshot
    from policyopt.sampling.mdp import MDP

    check_policies(spec, runs)
    mdps = {}
    files = {run.id: read_run(run.out, alg.eval) for run in runs for alg in [spec.algorithm(run.alg)] if not alg.policy}
    for run in (run for run in runs if run.id in files):
        mdp = mdps[run.task] = mdps.get(run.task) or MDP(spec.task(run.task).env)
        snapshot = files[run.id].snapshot
        policy_from_snapshot(snapshot, mdp)
        mdp.warn_of_another_task(f'{snapshot.file}/{snapshot.path}', snapshot.args.get('env_name'))
    return files


def check_policies(spec: Spec, runs: Sequence[PlannedRun]) -> None:
    """Raise UserError or RunFailed unless the functions that load the policies of other programs can be imported."""
    algs = [spec.algorithm(name) for name in dict.fromkeys(r.alg for r in runs)]
    for policy, where in {a.policy: f'{spec.file}: {a.place}.policy' for a in algs if a.policy}.items():
        external_policies.check_loader(policy, where)


def evaluated_rows(
    spec: Spec, runs: Sequence[PlannedRun], seed: int, how: How, stored: Results | None
) -> tuple[list[ResultRow], list[TaskRow], dict[str, str]]:
    """Evaluate `runs`; return the rows of /results and /tasks and the facts of the training, those of stored other runs included.

    With --resume, rows that an interrupted attempt has left are used.
    """
    files = read_runs(spec, runs)
    rows = {} if stored is None else {_id(row): row for row in stored.rows}
    tasks = {} if stored is None else {task.task: task for task in stored.tasks}
    sets = _read_expert_episodes(spec, runs, seed, rows, tasks)  # before anything plays, because files may be missing
    if not how.resume:
        forget_rows(spec)
    os.makedirs(_cache_dir(spec), exist_ok=True)
    jobs = [Evaluation(spec, run, seed) for run in runs]
    for job in (j for j in jobs if j.run.id in rows):  # evaluated again: drop the kept row
        with contextlib.suppress(FileNotFoundError):
            os.unlink(job.cache)
    todo = [job for job in jobs if _read_row(job) is None]
    if len(todo) < len(jobs):
        print(f'{len(jobs) - len(todo)} of {len(jobs)} runs were evaluated before', file=sys.stderr)
    _play_all([(job, files[job.run.id].snapshot if job.run.id in files else None) for job in todo], how)
    for job in jobs:
        run, row, file = job.run, _read_row(job), files.get(job.run.id)
        if row is None:
            raise RunFailed(f'{job.cache}: the evaluation of {run.id} has vanished or changed; continue with --resume')
        returns, lengths = sets[run.task, run.dataset]
        rows[run.id] = ResultRow(
            **{key: getattr(run, key) for key in KEYS},
            seed=run.seed if file is None or file.seed is None else file.seed,
            snapshot=file.name if file else str(job.policy),
            dataset=run.dataset,
            ex_traj_returns=returns,
            ex_traj_lengths=lengths,
            alg_traj_returns=row[0],
            alg_traj_lengths=row[1],
            last_trueret=file.last_trueret if file else np.nan,
            run_sha256=file.sha256 if file else file_sha256(run.out),
            evaluated=str(job),
        )
    ordered = _in_order(spec, seed, rows, tasks)
    return *ordered, _facts_of_rows(spec, seed, ordered[0], files, stored)


def _read_expert_episodes(
    spec: Spec, runs: Sequence[PlannedRun], seed: int, rows: dict[str, ResultRow], tasks: dict[str, TaskRow]
) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
    """{(task, set): (returns, lengths)} of the expert sets that these runs need; adds the tasks of the runs to `tasks`.

    All rows store equally many expert episodes. If full_dataset_num_trajs or datasets has changed, the kept rows and tasks read their
    expert episodes again. A larger full_dataset_num_trajs only adds episodes to the old ones.
    """
    num, datasets = spec.training.full_dataset_num_trajs, spec.training.datasets
    played = dict.fromkeys(r.task for r in runs)
    widths = [len(row.ex_traj_returns) - num for row in rows.values()] + [len(t.ex_traj_returns) - num * datasets for t in tasks.values()]
    names = played | dict.fromkeys(tasks) if any(widths) else played
    sets = {key: sample_stage.expert_returns(spec, spec.traj_path(*key)) for key in itertools.product(names, range(datasets))}
    for name in names:
        returns, lengths = (np.concatenate(column) for column in zip(*(sets[name, i] for i in range(datasets)), strict=True))
        if name in tasks and not np.isin(tasks[name].ex_traj_returns, returns).all():
            seen = f"the results have other returns of the expert of task '{name}' than its trajectories in {spec.traj_dir}"
            raise UserError(f'{spec.results_path}: {seen}, on which kept runs have learned; put those back, or choose another storagedir')
        if name in played:
            task, of_random = spec.task(name), sample_stage.random_returns(spec, spec.task(name), seed)
            tasks[name] = TaskRow(
                name,
                task.env,
                expert_policy=task.policy or '',
                ex_traj_returns=returns,
                ex_traj_lengths=lengths,
                random_returns=of_random[0],
                random_lengths=of_random[1],
            )
        else:
            tasks[name] = dataclasses.replace(tasks[name], ex_traj_returns=returns, ex_traj_lengths=lengths)
    for name, row in rows.items():
        if len(row.ex_traj_returns) != num:
            if (row.task, row.dataset) not in sets:
                seen = f'{name} learned from expert set {row.dataset}, but training.datasets is {datasets}'
                way = f'set that to {row.dataset + 1} or more, or give options.results_filename another name'
                raise UserError(f'{spec.results_path}: {seen}; {way}')
            returns, lengths = sets[row.task, row.dataset]
            rows[name] = dataclasses.replace(row, ex_traj_returns=returns, ex_traj_lengths=lengths)
    return sets


def _in_order(spec: Spec, seed: int, rows: dict[str, ResultRow], tasks: dict[str, TaskRow]) -> tuple[list[ResultRow], list[TaskRow]]:
    """Rows and tasks in the order of the experiment; those that the experiment no longer has come last."""
    ids, names = [r.id for r in spec.runs(seed)], [t.name for t in spec.tasks]
    return [rows[i] for i in dict.fromkeys([*ids, *rows]) if i in rows], [tasks[n] for n in dict.fromkeys([*names, *tasks]) if n in tasks]


def training_facts(said: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Where and when runs were trained, for the results' root attributes; unknown facts are left out.

    training_seconds sums the runs' times from first start to end, interruptions included.
    """
    facts = {f'training_{k}': ', '.join(sorted({s[k] for s in said if s[k]})) for k in ('git_hash', 'host', 'machine', 'numerics')}
    pairs = [(parse_time(s['start_time']), parse_time(s['end_time'])) for s in said]
    times = [(start, end) for start, end in pairs if start is not None and end is not None]
    if times:
        facts['training_start'], facts['training_end'] = min(t[0] for t in times).isoformat(), max(t[1] for t in times).isoformat()
        facts['training_seconds'] = f'{sum((end - start).total_seconds() for start, end in times):.0f}'
    return {k: v for k, v in facts.items() if v}


def _facts_of_rows(
    spec: Spec, seed: int, rows: Sequence[ResultRow], files: Mapping[str, RunFile], stored: Results | None
) -> dict[str, str]:
    """`training_facts` of all these rows. If run files are gone, the facts in `stored` are added, and the times are left out."""
    ids = set(map(_id, rows))
    here = [r for r in spec.runs(seed) if r.id in ids and os.path.exists(r.out)]
    ours = [r for r in here if spec.algorithm(r.alg).policy is None]
    facts = training_facts([files[r.id].facts if r.id in files else read_facts(r.out) for r in ours])
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


def _evaluate(job: Evaluation, snapshot: Snapshot | None) -> str:
    """Play one run's policy and store its row; a policy of another program plays in a process of its own."""
    if job.policy:
        return external_policies.apart(f'{job.policy} of {job.run.out}', _store_row, job, None)
    return _store_row(job, snapshot)


def _store_row(job: Evaluation, snapshot: Snapshot | None) -> str:
    key, cache = job.key(), os.path.abspath(job.cache)  # a policy's module may change the working folder
    trajs = _play(job, snapshot)
    with write_h5(cache, replace=True) as h5:
        h5.create_array('/', 'returns', trajs.returns)
        h5.create_array('/', 'lengths', trajs.lengths)
        set_attrs(h5.root, {'key': key})
    return job.run.id


def _play(job: Evaluation, snapshot: Snapshot | None) -> TrajBatch:
    """The episodes of a snapshot's policy, or of the one that the user's own function loads."""
    from policyopt.evaluation import sample_episodes
    from policyopt.policies import policy_from_snapshot
    from policyopt.sampling.mdp import MDP

    spec, task, alg = job.spec, job.spec.task(job.run.task), job.spec.algorithm(job.run.alg)
    mdp = MDP(task.env)

    def episodes(player):
        num, most_likely = spec.options.eval_num_trajs, spec.options.eval_deterministic
        return sample_episodes(player, mdp, num, job.seed, deterministic=most_likely, max_traj_len=task.max_traj_len)

    if snapshot is not None:
        return episodes(policy_from_snapshot(snapshot, mdp))
    load = external_policies.loader(str(alg.policy), f'{spec.file}: {alg.place}.policy')
    try:
        policy = load(job.run.out)

        def act(obs_Do):  # the policy itself decides whether it draws actions
            return policy.act(obs_Do)

        return episodes(act if hasattr(policy, 'act') else policy)
    except (UserError, RunFailed) as e:
        raise RunFailed(f'{alg.policy} of {job.run.out}: {e}') from e


def file_sha256(path: str) -> str:
    """SHA-256 of a run's output: of a file, or of all files in a folder."""
    files = [path] if os.path.isfile(path) else sorted(os.path.join(d, f) for d, _, names in os.walk(path) for f in names)
    return _sha256(path, tuple((file, stat.st_size, stat.st_mtime_ns) for file in files for stat in [os.stat(file)]))


@functools.lru_cache(maxsize=10000)
def _sha256(path: str, state: tuple[tuple[str, int, int], ...]) -> str:
    sha = hashlib.sha256()
    for file, *_ in state:
        sha.update(b'' if file == path else os.path.relpath(file, path).encode('utf-8', 'surrogateescape') + b'\0')
        check_regular(file, 'the output of a run')
        with open(file, 'rb') as f:
            while block := f.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def _read_row(job: Evaluation) -> tuple[np.ndarray, np.ndarray] | None:
    """(returns, lengths) of a run's episodes, None if they are not stored or were measured in another way."""
    if not os.path.exists(job.cache):
        return None
    with open_h5(job.cache, 'the evaluation of one run') as h5:
        is_current = attr_text(h5.root, 'key') == job.key()
        return (h5.root.returns.read(), h5.root.lengths.read()) if is_current else None


def _play_all(jobs: list[tuple[Evaluation, Snapshot | None]], how: How) -> None:
    num_jobs, threads = min(how.jobs or num_cores(), len(jobs)), how.threads or 1
    with Progress(len(jobs), how.verbosity) as progress:
        if num_jobs <= 1:
            for job in jobs:
                progress.finished(_evaluate(*job))
            return
        # a fork has torch and the environments' modules loaded; a spawned process must import them
        context = multiprocessing.get_context('fork' if launch.can_fork(launch.thread_environment(threads)) else 'spawn')
        pool = concurrent.futures.ProcessPoolExecutor(num_jobs, context, _start_worker, (threads,))
        try:
            with holding_signals():  # the first jobs start the workers
                futures = [pool.submit(_evaluate, *job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                progress.finished(future.result())
        except concurrent.futures.process.BrokenProcessPool as e:
            raise RunFailed('a worker process of the evaluation was killed; rows evaluated so far are kept, continue with --resume') from e
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(threads: int) -> None:
    follow_parent()
    np.random.seed()  # some environments draw from numpy's global generator; no two workers may share its state
    for name in launch.THREAD_VARIABLES:
        os.environ[name] = str(threads)
