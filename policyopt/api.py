"""The front door for scripts and notebooks: demonstrations in, a trained policy out, and files that the commands read too.

    demos = policyopt.Demonstrations.load('trajs.h5')
    run = policyopt.train('ga', env='CartPole-v1', demos=demos, iterations=100, seed=0)

Nothing here prints, starts a process, or leaves a global setting changed, unless an argument says so.

Letters: B trajectories or rows, T time, N stacked rows, Do observation dim, Da action dims (1 for finite actions).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import tqdm
from threadpoolctl import ThreadpoolController

from policyopt import algorithms, training
from policyopt import options as settings
from policyopt.arguments import as_array, as_flag, as_integer, as_path, kind_of
from policyopt.environments.checks import check_name
from policyopt.errors import RunFailed, UserError, closest
from policyopt.evaluation import load_policy, sample_episodes
from policyopt.files import importers
from policyopt.files.ends import Episode
from policyopt.files.runfile import best_snapshot
from policyopt.files.training_log import TrainingLog
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.options import CommonOptions, ImitationOptions, RLOptions
from policyopt.policies import Policy
from policyopt.provenance import now, provenance
from policyopt.sampling.actors import FunctionActor
from policyopt.sampling.mdp import MDP
from policyopt.trajectories import TrajBatch

# {name: the options that it stands for}; 'trpo', on the true reward, is run_rl_mj.py
ALGORITHMS = {
    name: {'mode': row.mode} | ({'reward_type': row.reward_type} if row.reward_type else {}) for name, row in algorithms.ALGORITHMS.items()
} | {'trpo': None}
KNOWN_AS = {'bc': 'bclone', 'cloning': 'bclone'}  # elsewhere
# what other arguments of `train` decide, or what belongs to commands only
NOT_OPTIONS = ('mode', 'reward_type', 'data', 'env_name', 'max_iter', 'log', 'resume', 'verbose', 'print_freq', 'plot_freq', 'seed')
BAR_FIELDS = ('trueret', 'ret', 'racc', 'bcloss', 'valloss', 'nlabels')  # shown by the progress bar where the algorithm has them
MAX_NAME = 1000  # characters of the name of a log's column
MAX_HEADER = 65_400  # bytes: HDF5 describes all columns of a log, `iter` among them, in 64 KiB
RESERVED = '_f_', '_c_', '_g_', '_v_'  # beginnings of names that PyTables keeps for itself
# of the commands' options: what the arguments of `train` are called
ARGUMENTS = {'max_iter': 'iterations', 'data': 'demos', 'env_name': 'env', 'env': 'env', 'obs_keys': 'obs_keys', 'download': 'download'}


@contextlib.contextmanager
def _python_names() -> Iterator[None]:
    """Raise errors in the words of a caller from Python: `max_traj_len=`, where a command says `--max_traj_len`."""
    try:
        yield
    except (UserError, RunFailed) as e:
        known = {*settings.option_names(ImitationOptions), *settings.option_names(RLOptions)}
        e.args = (re.sub(_OPTION, lambda m: _argument(m, known), str(e)),)
        raise


_OPTION = r'--mode (?P<mode>\w+)|--(?P<name>[a-z_]+)(?: (?=[-.\d]+\b|\w+:|\w+;|\w+ with |[A-Z]{2}))?'


def _argument(option: re.Match, known: set[str]) -> str:
    if option['mode']:
        return repr(option['mode'])
    name = ARGUMENTS.get(option['name'], option['name'] if option['name'] in known else None)
    return option[0] if name is None else f'{name}='


class Demonstrations(TrajBatch):
    """Recorded episodes of an expert: `len(demos)`, `demos[i]`, `demos.lengths` (B,), `demos.returns` (B,)."""

    source: str | None = None  # the file that they come from

    @classmethod
    def load(cls, path: str | os.PathLike) -> Demonstrations:
        """The trajectories of a file (obs_B_T_Do, a_B_T_Da, r_B_T, len_B). Raises UserError for anything else."""
        path = as_path(path)
        found = load_trajs(path)
        return cls._copy(found, found.env_name, path)

    @classmethod
    def from_arrays(cls, obs: Sequence, actions: Sequence, rewards: Sequence | None = None, env_name: str | None = None,
                    terminated: Sequence | np.ndarray | None = None) -> Demonstrations:  # fmt: skip
        """Episodes from arrays, one of each kind per episode.

        Args:
            obs: arrays (T, Do); the observation at t is the one that the action at t was chosen from. With `terminated` also
                (T + 1, Do), the last one being what the last action led to.
            actions: arrays (T,) or (T, Da): integers for a finite action space, floats for a continuous one.
            rewards: arrays (T,) of true rewards, only reported, never learned from; None: zeros.
            env_name: the task that was recorded, if that should be stored; where it can be made here, the arrays must fit it.
            terminated: of each episode, whether it ended in a terminal state and not by a time limit; only `airl` learns from it.
        Raises UserError for no episode, an empty one, shapes that disagree, NaN, things that are not numbers, and another task.
        """
        lists = {'obs': obs, 'actions': actions} | ({} if rewards is None else {'rewards': rewards})
        for name, episodes in lists.items():
            if not isinstance(episodes, Sequence | np.ndarray) or isinstance(episodes, str) or getattr(episodes, 'ndim', 1) == 0:
                raise UserError(f'{name} is a {type(episodes).__name__}; give a list with one array per episode')
        if len(obs) == 0:
            raise UserError('obs is empty; give at least one episode')
        if env_name is not None:
            check_name(env_name, 'env_name')
        for name, episodes in lists.items():
            if len(episodes) != len(obs):
                raise UserError(f'{name} holds {len(episodes)} episodes, but obs holds {len(obs)}')
        ended = [None] * len(obs) if terminated is None else _ended(terminated, len(obs)).tolist()
        recorded = [_episode(i, ended[i], *arrays) for i, arrays in enumerate(zip(*lists.values(), strict=True))]
        demos = cls._copy(importers.batch_of(recorded, 'the arrays'), env_name)
        if env_name is not None:
            importers.check_task(demos, env_name, 'arrays')
        return demos

    @classmethod
    @_python_names()
    def from_minari(cls, dataset: Any, download: bool = False, obs_keys: str | Sequence[str] | None = None) -> Demonstrations:
        """The episodes of a Minari data set, given by its id or as it is. Raises UserError where it cannot be read.

        obs_keys: the parts of observations that are dictionaries or tuples, in the order in which they are put side by side.
        """
        keys = obs_keys.split(',') if isinstance(obs_keys, str) else obs_keys
        if keys is not None and not (isinstance(keys, Sequence) and all(isinstance(key, str) for key in keys)):
            raise UserError(f'obs_keys is {kind_of(obs_keys)}; expected the names of parts of the observations, as texts')
        options = importers.ReadOptions(download=as_flag(download, 'download'), obs_keys=None if keys is None else tuple(keys))
        found = importers.read_minari(dataset, options)
        return cls._copy(importers.batch_of(found.episodes, 'the Minari data set'), found.env_name)

    def __repr__(self) -> str:
        if not len(self):
            return '<Demonstrations: no episodes>'
        actions = self.a.stacked
        kind = f'integers {actions.min()} to {actions.max()}' if actions.dtype.kind == 'i' else f'{actions.shape[1]} numbers'
        mean, what = self.returns.mean(), f' of {self.env_name}' if self.env_name else ''
        size = f'{len(self)} episodes{what}, {len(self.r.stacked)} pairs'
        return f'<Demonstrations: {size}; observations {self.obs.stacked.shape[1]} numbers, actions {kind}; mean return {mean:.4g}>'

    @classmethod
    @_python_names()
    def record(cls, policy: Any, env: Any, episodes: int = 10, *, seed: int = 0, deterministic: bool = False,
               max_traj_len: int | None = None) -> Demonstrations:  # fmt: skip
        """Episodes of a policy, or of whoever else plays, as in `evaluate`; actions are sampled unless deterministic. Raises as it."""
        trajs, env_name = _play(policy, env, episodes=episodes, seed=seed, deterministic=deterministic, max_traj_len=max_traj_len)
        return cls._copy(trajs, env_name)

    @classmethod
    def _copy(cls, trajs: TrajBatch, env_name: str | None, source: str | None = None) -> Demonstrations:
        demos = cls(trajs.obs.stacked, trajs.adist.stacked, trajs.a.stacked, trajs.r.stacked, trajs.lengths)
        demos.env_name, demos.source = env_name, source
        demos.lastobs_B_Do, demos.terminal_B = trajs.lastobs_B_Do, trajs.terminal_B
        return demos

    def save(self, path: str | os.PathLike) -> None:
        """Write a trajectory file, whole or not at all. Raises UserError where the file exists, or cannot be written."""
        with _new_file(path) as path:
            save_trajs(path, self, provenance() | ({'env_name': self.env_name} if self.env_name else {}))


@contextlib.contextmanager
def _new_file(path: str | os.PathLike) -> Iterator[str]:
    """Yield a path as text; UserError where there is a file already, or none can be written in the block."""
    path = as_path(path)
    training.check_log(path, name='path')
    try:
        yield path
    except OSError as e:
        raise UserError(f'{path}: cannot be written: {e.strerror or e}; choose another path') from e


def _ended(terminated: Any, num: int) -> np.ndarray:
    """`terminated` as (B,) bool, or UserError."""
    ended = as_array(terminated, 'terminated')
    if ended.shape != (num,) or ended.dtype.kind not in 'biuf' or not np.isin(ended, (0, 1)).all():
        raise UserError(f'terminated is {ended.dtype} of shape {ended.shape}; give True or False for each of {num} episodes')
    return ended.astype(bool)


def _episode(i: int, ended: bool | None, obs: Any, actions: Any, rewards: Any = None) -> Episode:
    """Episode i, with the observation after its last action where `ended` says whether that was a terminal state."""
    obs, actions = as_array(obs, f'obs[{i}]'), as_array(actions, f'actions[{i}]')
    num = len(actions) if actions.ndim else 0
    longer = obs.ndim == 2 and len(obs) == num + 1
    if longer and ended is None:
        raise UserError(
            f'obs[{i}] has {num + 1} rows for {num} actions; is the last one what the last action led to? Then say terminated=[…]'
        )
    if ended is False and not longer:
        raise UserError(f'obs[{i}] lacks the observation after the last action, and terminated[{i}] is False; give {num + 1} rows')
    return Episode(f'episode {i}', obs, actions, np.zeros(num) if rewards is None else as_array(rewards, f'rewards[{i}]'), ended)


@dataclasses.dataclass(repr=False, eq=False)
class TrainedRun:
    """What `train` returns: the policy, the log, and all that `save` writes.

    algorithm: its name. policy: the learned Policy. log: structured array with one row per iteration; `log.dtype.names` are its
    columns (times in seconds). options: all settings, the seed among them. interrupted: whether Ctrl-C ended it early. ended: what
    else ended it before its last iteration, 'callback' or 'stop_at_return'. state: what `train(init=run)` starts from.
    """

    algorithm: str
    policy: Policy
    options: CommonOptions
    training_log: dataclasses.InitVar[TrainingLog]
    interrupted: bool
    state: Mapping[str, np.ndarray]
    ended: str | None = None

    def __post_init__(self, training_log: TrainingLog):
        self.log: np.ndarray = training_log.table()
        self._training_log = training_log

    def save(self, path: str | os.PathLike) -> None:
        """Write the file that the command would have written: for showlog.py, vis_mj.py and stage 2. Whole or not at all.

        Raises UserError where the file exists already, or cannot be written.
        """
        log = self._training_log
        with _new_file(path) as path:
            written = TrainingLog(path, log.attrs | {'args': dataclasses.replace(self.options, log=path).as_json()})
            written.columns, written.rows, written.snapshots = log.columns, log.rows, log.snapshots
            written.finish({}, self.state)

    def __repr__(self) -> str:
        ended = ', interrupted' if self.interrupted else f', ended by {self.ended}' if self.ended else ''
        task = self.options.env_name or 'demonstrations alone'
        return f'<TrainedRun: {self.algorithm} on {task}, {len(self.log)} iterations, seed {self.options.seed}{ended}>'


class Evaluation(NamedTuple):
    """Undiscounted true return and number of steps of each episode, in the order in which they were started."""

    returns: np.ndarray
    lengths: np.ndarray


@_python_names()
def train(algorithm: str, env: Any, demos: TrajBatch | str | os.PathLike | None = None, *, iterations: int, seed: int | None = None,
          options: CommonOptions | None = None, expert: Policy | str | os.PathLike | Callable[[np.ndarray], Any] | None = None,
          progress: bool = True, callback: Callable[..., Any] | None = None, init: Any = None, **changes: Any) -> TrainedRun:  # fmt: skip
    """Train a policy; the same seed and options give the log and the policy of the command, bit for bit.

    Args:
        algorithm: 'bclone', 'dagger', 'gail', 'ga' (GAIL of 2016), 'fem', 'simplex' or 'airl', as imitate_mj.py; 'trpo' on the true
            reward, as run_rl_mj.py.
        env: the id of an environment, a function (or class) that returns a new gymnasium.Env, or one such environment, which then
            plays one episode after the other and is left open. None for 'bclone': nothing is played, the spaces are those of the
            demonstrations (num_actions= says more), and what is judged by is `run.log['valloss']`.
            It is played in this process unless sim_batch_size is above 1.
        demos: Demonstrations, or the path of a trajectory file; none for 'trpo'.
        iterations: how many; of 'bclone' and 'dagger', updates with one batch.
        seed: 0 to 2³² − 1; None draws one, which is `run.options.seed` then.
        expert: for 'dagger', who labels: a Policy, the path of one, or any function obs_B_Do → a_B_Da, a program or a
            person; it gets a batch of observations and returns as many actions, for a finite space integers (B,) or (B, 1).
        options: an ImitationOptions or RLOptions, which has all other options of the command.
        progress: show a bar on stderr where that is a terminal.
        init: a Policy to start from, a run whose classifier and value function are taken too, or the path of either.
        callback: called after each iteration with its number, {column: value} of its row of the log, and the policy if it takes three
            arguments; returning False (or raising StopIteration) ends the run there.
        **changes: single options by name, such as min_total_sa=5000; they have priority over `options`.
    Ctrl-C returns the run as of its last complete iteration; before there is one it raises KeyboardInterrupt.
    Raises UserError, one sentence, for bad arguments; RunFailed when the environment fails or a number is not finite any more.
    Source: Ross et al. 2011 (dagger), Ho & Ermon 2016 (ga), Abbeel & Ng 2004 (fem), Syed et al. 2008 (simplex), Fu et al. 2018
    (airl), Schulman et al. 2015 (trpo).
    """
    progress = as_flag(progress, 'progress')
    if inspect.iscoroutinefunction(callback) or inspect.isgeneratorfunction(callback):
        raise UserError('callback is async, or a generator, so calling it does nothing; expected a plain function')
    if callback is not None and not callable(callback):
        raise UserError(f'callback is {kind_of(callback)}; expected a function of the iteration and its row of the log')
    if callback is not None and _takes(callback, 0, {}) is False and not _takes(callback, 0, {}, None):
        raise UserError(f'callback takes {inspect.signature(callback)}; expected a function of the iteration and its row of the log')
    algorithm = KNOWN_AS.get(str(algorithm).lower(), algorithm)
    chosen = _options(algorithm, options, changes)
    if expert is not None and getattr(chosen, 'mode', None) != 'dagger':
        raise UserError(f"algorithm '{algorithm}' does not query an expert; leave expert out, or train 'dagger'")
    init_policy = getattr(chosen, 'init_policy', None)
    if init is not None and init_policy is not None:
        raise UserError(f'init and init_policy ({init_policy}) both name a policy to start from; give one of them')
    known: dict[str, Any] = {'max_iter': as_integer(iterations, 'iterations', 1)}
    trajs, source = None, None
    if isinstance(chosen, ImitationOptions):
        trajs, source = _demonstrated(algorithm, demos, chosen.limit_trajs)
    mdp = training.task_of(env, chosen, trajs) if isinstance(chosen, ImitationOptions) and trajs is not None else MDP(env)
    known |= {'env_name': mdp.env_name, 'seed': seed, 'sim_batch_size': chosen.sim_batch_size or 1}
    try:
        if isinstance(chosen, ImitationOptions) and trajs is not None:
            teacher, path = _teacher(chosen.expert if expert is None else expert, mdp)
            start, known['init_policy'] = _start(chosen.init_policy if init is None else init)
            if start is not None and chosen.policy_hidden_spec is None and not chosen.tiny_policy:
                known['policy_hidden_spec'] = start.hidden_spec
            chosen = training.resolved(settings.with_changes(chosen, known | {'data': source, 'expert': path}))
            chosen = training.with_reward_sign(chosen, trajs, mdp)
            pairs = training.expert_pairs(chosen, trajs, mdp, source or 'demos')
            with _as_the_commands_compute():
                run = training.imitation_run(chosen, mdp, pairs, teacher, start)
        else:
            if demos is not None:
                raise UserError(f"algorithm '{algorithm}' learns from the true reward; leave demos out")
            if init is not None:
                raise UserError(f"algorithm '{algorithm}' starts from a new policy; leave init out")
            chosen = training.resolved(settings.with_changes(chosen, known))
            assert isinstance(chosen, RLOptions)
            with _as_the_commands_compute():
                run = training.rl_run(chosen, mdp)
        return _iterate(algorithm, run, progress, callback)
    finally:
        mdp.close()


def _options(algorithm: str, options: CommonOptions | None, changes: Mapping[str, Any]) -> CommonOptions:
    """The options of an algorithm by its name, with the user's own."""
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise UserError(f'there is no algorithm {algorithm!r}.{closest(str(algorithm), ALGORITHMS)} Algorithms: {", ".join(ALGORITHMS)}')
    meant = ALGORITHMS[algorithm]
    cls = RLOptions if meant is None else ImitationOptions
    if options is not None and not isinstance(options, cls):
        raise UserError(f"options is a {type(options).__name__}; algorithm '{algorithm}' takes {cls.__name__}")
    for name in changes:
        if name in NOT_OPTIONS and name in settings.option_names(cls):
            instead = {'max_iter': 'iterations', 'data': 'demos', 'env_name': 'env', 'log': 'run.save(path)'}.get(name)
            raise UserError(f"train() does not take the option '{name}'{f'; use {instead}' if instead else ''}")
    spec = changes.get('policy_hidden_spec')
    if spec is not None and not isinstance(spec, str):
        try:
            changes = {**changes, 'policy_hidden_spec': json.dumps(spec)}
        except (TypeError, ValueError) as e:
            raise UserError(f'policy_hidden_spec is {kind_of(spec)}; expected a list of layers, or the JSON text of one') from e
    mine = dict.fromkeys(('log', 'seed', 'max_iter'), None) | {'resume': False, 'verbose': False}
    return settings.with_changes(options or cls(), {**changes, **mine, **(meant or {})})


def _demonstrated(algorithm: str, demos: Any, limit_trajs: int | None) -> tuple[TrajBatch, str | None]:
    """(the trajectories to learn from, the file that they come from or None)."""
    if demos is None:
        raise UserError(f"algorithm '{algorithm}' imitates an expert; give demos=Demonstrations.load(…) or .from_arrays(…)")
    if isinstance(demos, str | os.PathLike):
        demos = Demonstrations.load(demos)
    if not isinstance(demos, TrajBatch):
        raise UserError(f'demos is a {type(demos).__name__}; give Demonstrations, or the path of a trajectory file')
    if not len(demos):
        raise UserError('demos holds no episode; give at least one')
    num = len(demos) if limit_trajs is None else limit_trajs
    if not 1 <= num <= len(demos):
        raise UserError(f'limit_trajs is {num}, but there are {len(demos)} demonstrations; give 1 to {len(demos)}')
    return demos.first(num), getattr(demos, 'source', None)


def _teacher(expert: Any, mdp: MDP) -> tuple[Policy | FunctionActor | None, str | None]:
    """(who labels, the path that it comes from or None)."""
    if expert is None:
        return None, None
    if isinstance(expert, str | os.PathLike):
        return load_policy(expert, mdp), os.fspath(expert)
    if isinstance(expert, Policy):
        _check_fits(expert, mdp)
        return expert, None
    if not callable(expert):
        raise UserError(f'expert is a {type(expert).__name__}; give a Policy, the path of one, or a function obs_B_Do → a_B_Da')
    return FunctionActor(expert, mdp.info), None


def _start(init: Any) -> tuple[training.Start | None, str | None]:
    """(what a run begins with, what its file calls that)."""
    if init is None:
        return None, None
    if isinstance(init, str | os.PathLike):
        return training.load_start(os.fspath(init)), os.fspath(init)
    policy = init.policy if isinstance(init, TrainedRun) else init
    if not isinstance(policy, Policy):
        raise UserError(f'init is a {type(init).__name__}; give a Policy, a run that train returned, or the path of one')
    spec = policy.hidden_spec if isinstance(policy.hidden_spec, str) else json.dumps(policy.hidden_spec)
    if not isinstance(init, TrainedRun):
        return training.Start('init', policy.export(), spec), None
    snapshots = init._training_log.snapshots
    best = best_snapshot(init.log, snapshots) if init.algorithm == 'bclone' else None
    return training.Start('init', policy.export() if best is None else snapshots[best], spec, init.state), None


def _check_fits(policy: Policy, mdp: MDP) -> None:
    if (policy.obs_space, policy.action_space) != (mdp.obs_space, mdp.action_space):
        theirs, takes = f'{policy.obs_space} and {policy.action_space}', f'{mdp.obs_space} and {mdp.action_space}'
        raise UserError(f"the policy is for {theirs}, but env '{mdp.env_name}' has {takes}")


@functools.cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()  # takes 2 ms to find the libraries


@contextlib.contextmanager
def _as_the_commands_compute() -> Iterator[None]:
    """Without autograd, and with one thread in torch and BLAS, so that sums are those of a command; then all is as before."""
    threads = torch.get_num_threads()
    with torch.no_grad(), _thread_pools().limit(limits=1):
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)


def _takes(function: Callable, *arguments: Any) -> bool | None:
    """Whether a function can be called so; None where it does not say what it takes."""
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:
        return None
    except TypeError:
        return False
    return True


def _iterate(algorithm: str, run: training.Run, progress: bool, callback: Callable[..., Any] | None) -> TrainedRun:
    """Iterate a training.Run to its end, or until the callback or Ctrl-C ends it: then as of the last iteration that was complete."""
    num, interrupted, policy = run.args.max_iter, False, run.opt.policy
    kept, ended = (0, policy.export()), None
    with_policy, midway = callback is not None and bool(_takes(callback, 0, {}, None)), False
    bar = tqdm.tqdm(total=num, disable=None if progress else True, desc=f'{algorithm} {run.args.env_name or ""}', unit='it')
    try:
        while kept[0] < num and ended is None:
            midway = True
            with _as_the_commands_compute():
                row = {name: value for name, value, _ in run.iterate()}
            midway = False
            kept = kept[0] + 1, policy.export()
            bar.set_postfix({k: f'{row[k]:.4g}' for k in BAR_FIELDS if row.get(k) is not None}, refresh=False)
            bar.update()
            if run.has_reached_return():
                ended = 'stop_at_return'
            if callback is not None:
                try:
                    going_on = callback(kept[0] - 1, row, *((policy,) if with_policy else ()))
                except StopIteration:
                    going_on = False
                ended = 'callback' if isinstance(going_on, bool | np.bool_) and not going_on else ended
        if ended is not None and kept[0] < num:
            run.log.add_snapshot(kept[0] - 1, run.snapshot())
    except KeyboardInterrupt:
        if not kept[0]:
            raise
        interrupted = kept[0] < num
        policy.load(kept[1], 'the last complete iteration')
        run.log.rows = run.log.rows[: kept[0]]
        last = f'iter{kept[0] - 1:07d}'
        run.log.snapshots = {name: x for name, x in run.log.snapshots.items() if name < last} | {last: kept[1]}
    finally:
        bar.close()
    run.log.attrs |= run.end_attrs()
    # a run that was interrupted is what one of fewer iterations would have been, where their number shapes nothing
    options = run.args if run.depends_on_max_iter else dataclasses.replace(run.args, max_iter=kept[0])
    if warning := run.warning():
        print(f'warning: {warning}', file=sys.stderr)
    state = {} if midway else run.state()  # an interrupted iteration has updated some models and not others
    return TrainedRun(algorithm, policy, options=options, training_log=run.log, interrupted=interrupted, state=state, ended=ended)


@_python_names()
def evaluate(policy: Any, env: Any, episodes: int = 50, *, seed: int = 0, deterministic: bool = True, max_traj_len: int | None = None,
             sim_batch_size: int = 1) -> Evaluation:  # fmt: skip
    """Play a policy, by default its most likely actions: (returns (B,), lengths (B,)) of exactly `episodes` episodes.

    Args:
        policy: a Policy; a model with `predict`, as Stable-Baselines3 has it; an object with `act`; or a function that gets one
            observation (Do,) and returns an integer or (Da,) numbers.
        env: as in `train`.
        episodes: how many are played.
        seed: of a Policy, the result is a pure function of the arguments.
        deterministic: most likely actions, as stage 2 takes them; False draws them, as training and vis_mj.py do.
        max_traj_len: steps of an episode at most.
        sim_batch_size: above 1, as many processes play.
    Raises UserError where the policy does not fit the env; RunFailed when the env fails.
    """
    trajs, _ = _play(
        policy, env, episodes=episodes, seed=seed, deterministic=deterministic, max_traj_len=max_traj_len, sim_batch_size=sim_batch_size
    )
    return Evaluation(trajs.returns, trajs.lengths)


def _play(
    policy: Any, env: Any, episodes: int, seed: int, deterministic: bool, max_traj_len: int | None, sim_batch_size: int = 1
) -> tuple[TrajBatch, str]:
    """(TrajBatch, env_name) of a policy at play."""
    if isinstance(policy, str | os.PathLike | TrainedRun):
        raise UserError(f'policy is a {type(policy).__name__}; give run.policy, load_policy(…), or a function obs → action')
    if env is None:
        raise UserError("env is None, so there is nothing to play in; a run of 'bclone' without one is judged by run.log['valloss']")
    episodes, seed = as_integer(episodes, 'episodes', 1), as_integer(seed, 'seed', 0)
    max_traj_len = None if max_traj_len is None else as_integer(max_traj_len, 'max_traj_len', 1)
    mdp = MDP(env)
    try:
        workers = as_integer(sim_batch_size, 'sim_batch_size', 1)
        if isinstance(policy, Policy):
            _check_fits(policy, mdp)
        elif workers > 1:
            raise UserError(f'sim_batch_size {workers}: worker processes play a Policy only; give 1')
        with _as_the_commands_compute():
            return sample_episodes(
                policy,
                mdp,
                episodes,
                seed,
                deterministic=as_flag(deterministic, 'deterministic'),
                max_traj_len=max_traj_len,
                sim_batch_size=workers,
            ), mdp.env_name
    finally:
        mdp.close()


def write_run(path: str | os.PathLike, policy: Policy, log: Mapping[str, Sequence] | np.ndarray, *, env_name: str | None = None,
              seed: int | None = None) -> None:  # fmt: skip
    """Write the run of an algorithm of your own: a file that stage 2 evaluates, and showlog.py and vis_mj.py read.

    Args:
        path: the file, `{out}` of a command template; written whole or not at all.
        policy: a Policy, from `make_policy` or `load_policy`, with what was learned.
        log: {column: one number per iteration}, or a structured array; `iter` is added where it is missing.
        env_name, seed: of the run, to be stored with it; where the task can be made here, the policy must fit it.
    Raises UserError where the file exists or cannot be written, and for a log that is empty or not numbers.
    """
    if not isinstance(policy, Policy):
        raise UserError(f'policy is a {type(policy).__name__}; give one of make_policy(…) or load_policy(…)')
    columns = _columns(log)
    seed = None if seed is None else as_integer(seed, 'seed', 0, 2**32 - 1)
    if env_name is not None:
        check_name(env_name, 'env_name')
        if importers.known_task(env_name, 'policy') is not None:
            _check_fits(policy, MDP(env_name))
    spec = policy.hidden_spec if isinstance(policy.hidden_spec, str) else json.dumps(policy.hidden_spec)
    args = {'policy_hidden_spec': spec, 'obsnorm_mode': 'none' if policy.obsnorm is None else 'online', 'env_name': env_name, 'seed': seed}
    attrs = provenance() | {'args': json.dumps(args)} | ({} if seed is None else {'seed': int(seed)})
    # logs hold int32; what is larger is a float, exact up to 2^53
    kinds = [int if x.dtype.kind in 'biu' and np.abs(x.astype(float)).max() < 2**31 else float for x in columns.values()]
    with _new_file(path) as path:
        written = TrainingLog(path, attrs)
        for row in zip(*columns.values(), strict=True):
            written.append(list(zip(columns, row, kinds, strict=True)))
        written.add_snapshot(int(columns['iter'][-1]), policy.export())
        written.finish({'end_time': now()})


def _columns(log: Mapping[str, Sequence] | np.ndarray) -> dict[str, np.ndarray]:
    """{column: (N,) array} of a log, `iter` among them; or UserError."""
    names = log.dtype.names if isinstance(log, np.ndarray) else list(log) if isinstance(log, Mapping) else None
    if not names:
        raise UserError('log: give {column: one number per iteration}, or a structured array')
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or '/' in name or not 0 < len(name) <= MAX_NAME or name[:3] in RESERVED:
            expected = f"a text without '/', of at most {MAX_NAME} printable characters, that does not begin with {' or '.join(RESERVED)}"
            raise UserError(f'log has a column called {repr(name)[:80]}; expected {expected}')
    sizes = [len(name.encode()) for name in names]
    if sum(52 + size // 8 * 8 + 8 for size in sizes) > MAX_HEADER:
        raise UserError(
            f'log has {len(names)} columns with names of {sum(sizes)} bytes, more than a file can hold; expected fewer or shorter ones'
        )
    columns = {str(name): as_array(log[name], f"log['{name}']") for name in names}
    num = len(next(iter(columns.values()))) if columns[names[0]].ndim else 0
    if num and 'iter' not in columns:
        columns = {'iter': np.arange(num)} | columns
    for name, x in columns.items():
        if not num or x.shape != (num,) or x.dtype.kind not in 'biuf':
            raise UserError(f"log['{name}'] has shape {x.shape} and type {x.dtype}; expected as many numbers as iterations, at least one")
        if (np.abs(x[np.isfinite(x)].astype(np.float64)) > np.finfo(np.float32).max).any():
            raise UserError(f"log['{name}'] holds numbers beyond 3.4e38, more than a log keeps; expected smaller ones")
    if columns['iter'].dtype.kind not in 'iu' or columns['iter'].min() < 0 or columns['iter'].max() >= 2**31:
        raise UserError("log['iter'] holds other things than iteration numbers; expected 0, 1, 2, …, below 2^31")
    if (np.diff(columns['iter'].astype(np.int64)) <= 0).any():
        raise UserError("log['iter'] does not rise from each row to the next; expected 0, 1, 2, …")
    return columns
