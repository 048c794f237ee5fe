"""The training runs behind imitate_mj.py and run_rl_mj.py: from options to a finished log, stopped and continued at will."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policyopt import algorithms, optim, rl, trajectories
from policyopt.cores import threads_from_env
from policyopt.errors import RunFailed, UserError
from policyopt.evaluation import load_policy, load_reward
from policyopt.files.atomic import check_output
from policyopt.files.names import lock_path, part_path
from policyopt.files.runfile import best_snapshot_in
from policyopt.files.training_log import TrainingLog, last_of, read_root, read_snapshot, read_state
from policyopt.files.trajectory_file import load_trajs
from policyopt.imitation import ImitationOptimizer
from policyopt.interfaces import uses_transitions
from policyopt.nn import SIMPLE_ARCHITECTURE, TINY_ARCHITECTURE
from policyopt.options import MAX_ITER, ImitationOptions, check_together, default_of
from policyopt.pipeline import locks
from policyopt.policies import Policy, make_policy
from policyopt.progress import Eta
from policyopt.provenance import draw_seed, now, provenance
from policyopt.sampling.mdp import MDP, RecordedTask, sample_trajectories
from policyopt.shipped import as_typed, continuing_command
from policyopt.signals import INTERRUPTED, STOPPED, mute, stop_signals
from policyopt.torchutil import DTYPES, NetConfig, as_device, numerics
from policyopt.trajectories import Expert
from policyopt.valuefuncs import ValueFunc

if TYPE_CHECKING:
    from policyopt.interfaces import Fields, Optimizer
    from policyopt.options import AnyOptions, CommonOptions, RLOptions
    from policyopt.sampling.actors import AnyActor
    from policyopt.trajectories import TrajBatch

EVAL_EPISODES = 10  # of each evaluation that --eval_every asks for
STOP_WINDOW = 10  # iterations whose mean return --stop_at_return is compared with
FIRST_ITERATIONS, LAST_ITERATIONS = 10, 20  # what is compared to say that a run does not learn
DIVERGED = 'diverged'  # root attribute of a part file whose run reached NaN or infinity after its last save: JSON
# options that may differ between a run and its continuation; of files, the contents are compared
HARMLESS = ('log', 'resume', 'print_freq', 'verbose', 'data', 'expert', 'reward', 'init_policy', 'max_iter', 'stop_at_return', 'max_envs')


def train_imitation(options: ImitationOptions) -> int:
    """Run imitate_mj.py's options (ImitationOptions) to the end; returns an exit code."""
    options = prepare(options)
    log = full_path(options.log)
    data = options.data
    assert data is not None  # required on the command line
    if options.env_name is None and options.mode != 'bclone':
        raise UserError(f'--mode {options.mode} plays in an environment; give --env_name (bclone does without one)')
    trajs = load_trajs(data, options.limit_trajs)
    mdp = task_of(options.env_name, options, trajs)
    if options.env_name is None:
        print('No --env_name: nothing is played. Judge by valloss, the loss on pairs that are held out.')
    options = with_reward_sign(options, trajs, mdp)
    expert = expert_pairs(options, trajs, mdp, data)
    teacher = None if options.expert is None else load_policy(options.expert, mdp)
    print(f'Expert dataset: {len(trajs.r.stacked)} pairs in {len(trajs)} trajectories, average return {trajs.returns.mean():.2f}')
    print(f'Every {options.data_subsamp_freq}. pair is used: {len(expert.obs_N_Do)} pairs')
    start = None if options.init_policy is None else load_start(options.init_policy)
    return imitation_run(options, mdp, expert, teacher, start).execute(log)


def train_rl(options: RLOptions) -> int:
    """Run run_rl_mj.py's options (RLOptions) to the end; returns an exit code."""
    options = prepare(options)
    log = full_path(options.log)
    assert options.env_name is not None  # required on the command line
    return rl_run(options, MDP(options.env_name)).execute(log)


@dataclasses.dataclass
class Start:
    """What --init_policy names: the variables of a policy, and the state of its run if a whole run is named that keeps one."""

    where: str
    variables: Mapping[str, np.ndarray]
    hidden_spec: str | None = None
    state: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def load_start(path: str) -> Start:
    """Read the Start from 'FILE.h5/snapshots/…', or from a whole 'RUN.h5': its last policy, or after cloning the best one by valacc.

    Raises UserError as `load_policy`.
    """
    whole = last_of(path)
    snapshot = read_snapshot(whole)
    if whole != path and snapshot.args.get('mode') == 'bclone':
        best = best_snapshot_in(path)
        snapshot = snapshot if best is None else read_snapshot(f'{path}/snapshots/{best}')
    state = read_state(snapshot.file) if whole.endswith('/snapshots/last') else {}
    return Start(f'{snapshot.file}: {snapshot.path}', snapshot.variables, snapshot.args.get('policy_hidden_spec'), state)


def load_models(models: Iterable[Any], state: Mapping[str, np.ndarray], where: str, first: int = 0) -> None:
    """Load models from the `state` of a Run; first: the number of the first of them among the models of the run."""
    for i, model in enumerate(models, start=first):
        model.load(state, where)
        prefix = f'/state/model{i}'
        if own := {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(f'{prefix}/')}:
            model.load_state(own)


def load_critics(learner: ImitationOptimizer, start: Start) -> bool:
    """Load value function and reward from the run of a start, if that has both; returns whether it has."""
    critics: list[Any] = [m for m in (learner.vf, learner.reward) if m is not None]
    shapes = {name: value.shape for model in critics for name, value in model.export().items()}
    if any(name not in start.state or start.state[name].shape != shape for name, shape in shapes.items()):
        return False
    load_models(critics, start.state, start.where, first=1)
    return True


def imitation_run(
    options: ImitationOptions, mdp: MDP, expert: Expert, teacher: Policy | AnyActor | None = None, start: Start | None = None
) -> Run:
    """One run of imitation, at its start.

    teacher: the expert that labels in mode dagger. start: the policy to begin with, of --init_policy.
    """
    if options.eval_every and options.env_name is None:
        raise UserError(f'--eval_every {options.eval_every} plays episodes, and there is no --env_name; give one, or leave it out')
    nets = net_config(options)
    policy = new_policy(options, mdp, nets, options.obsnorm_mode != 'none')
    if options.obsnorm_mode == 'expertdata':
        warn_of_constant_features(expert.obs_N_Do)
        policy.update_obsnorm(expert.obs_N_Do)
    if start is not None:
        bounds = {name: value for name, value in policy.export().items() if name.endswith('/bounds_2_Da')}
        policy.load({**start.variables, **bounds}, start.where)
    labelling = {} if teacher is None else {'teacher': teacher.actor() if isinstance(teacher, Policy) else teacher}
    learner = algorithms.load(algorithms.MODES[options.mode].optimizer)(options, mdp, policy, expert, nets, **labelling)
    if start is not None and isinstance(learner, ImitationOptimizer) and not load_critics(learner, start):
        learner.num_critics_only = options.init_iterations
    labels = teacher.export().values() if isinstance(teacher, Policy) else ()
    begun = () if start is None else (*start.variables.values(), *start.state.values())
    return Run(options, learner, mdp, digest([*expert, *labels, *begun]))


def rl_run(options: RLOptions, mdp: MDP) -> Run:
    """One run of TRPO, on the true reward or a learned one, at its start; its file identifies a learned reward by its contents."""
    nets, enable_obsnorm = net_config(options), bool(options.enable_obsnorm)
    assert nets.rng is not None
    policy = new_policy(options, mdp, nets, enable_obsnorm)
    time_scale = options.vf_include_time * mdp.time_scale(options.max_traj_len)
    vf = ValueFunc(options, mdp.obs_space.dim, time_scale, nets, enable_obsnorm)
    reward = load_reward(options.reward, mdp, options.max_traj_len) if options.reward else None
    learner = rl.SamplingPolicyOptimizer(options, mdp, policy, vf, rng=nets.rng, learned=reward)
    return Run(options, learner, mdp, '' if reward is None else digest(reward.learned().values()))


def expert_pairs(options: ImitationOptions, trajs: TrajBatch, mdp: MDP, path: str) -> Expert:
    """The pairs to learn from, and what follows them if the reward needs it; raises UserError where `trajs`, called `path`, do not fit."""
    check_data_fits(path, trajs, mdp)
    rows_N, _ = trajectories.subsampled_rows(trajs, options.data_subsamp_freq)
    a_N_Da = trajs.a.stacked[rows_N]
    if (bounds_2_Da := action_bounds(options, mdp)) is not None:
        a_N_Da = a_N_Da.clip(*bounds_2_Da)
    pairs = trajs.obs.stacked[rows_N], a_N_Da, trajs.time.stacked[rows_N]
    if not algorithms.MODES[options.mode].adversarial or not uses_transitions(algorithms.load(algorithms.rewards()[options.reward_type])):
        return Expert(*pairs)
    horizon = mdp.horizon(options.max_traj_len, f'reward_type {options.reward_type}')
    nextobs_N_Do, terminal_N, known_N = trajs.successors(horizon)
    kept = known_N[rows_N]  # a last step whose successor the file does not hold is left out
    if not kept.any():
        raise UserError(f'{path}: what follows its pairs is not known; give longer trajectories or a smaller --data_subsamp_freq')
    after = np.maximum(horizon - 1 - trajs.time.stacked[terminal_N], 0).sum()
    ended = float(after), float(len(terminal_N) + after)
    rows_N = rows_N[kept]
    return Expert(*(x[kept] for x in pairs), nextobs_N_Do=nextobs_N_Do[rows_N], terminal_N=terminal_N[rows_N], ended=ended)


def with_reward_sign(options: ImitationOptions, trajs: TrajBatch, mdp: MDP) -> ImitationOptions:
    """Decide --favor_zero_expert_reward where it was left open: 1 where most of the expert's episodes end before the time limit.

    An expert seldom fails, so what ends its episodes is success, and rewards must then not pay for every further step.
    """
    if options.favor_zero_expert_reward is not None:
        return options
    longest = mdp.longest(options.max_traj_len)
    if longest is None and trajs.terminal_B is None:
        mdp.horizon(None, 'favor_zero_expert_reward, left open,')
    early_B = np.ones(len(trajs), bool) if longest is None else trajs.lengths < longest
    if trajs.terminal_B is not None:
        early_B = early_B & trajs.terminal_B
    return dataclasses.replace(options, favor_zero_expert_reward=int(early_B.mean() > 0.5))


def net_config(options: CommonOptions) -> NetConfig:
    """What the nets of a run share. Gives torch OMP_NUM_THREADS threads, or 1: nets of this size gain nothing from more."""
    torch.set_num_threads(threads_from_env() or 1)
    return NetConfig(np.random.RandomState(options.seed), DTYPES[options.dtype], as_device(options.device))


def new_policy(options: CommonOptions, mdp: MDP, nets: NetConfig, enable_obsnorm: bool) -> Policy:
    assert options.policy_hidden_spec is not None  # see `resolved`
    shared = {'rng': nets.rng, 'dtype': nets.dtype, 'device': nets.device, 'bounds_2_Da': action_bounds(options, mdp)}
    return make_policy(mdp.obs_space, mdp.action_space, options.policy_hidden_spec, enable_obsnorm, **shared)


def imitation_optimizer(args: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: NetConfig) -> ImitationOptimizer:
    """Reward function, value function and optimiser of the adversarial modes."""
    assert nets.rng is not None
    if args.reward_include_time:
        mdp.horizon(args.max_traj_len, 'reward_include_time')
    time_scale = mdp.time_scale(args.max_traj_len)
    reward = algorithms.load(algorithms.rewards()[args.reward_type]).from_options(args, mdp, expert, time_scale, nets)
    vf = None if args.no_vf else ValueFunc(args, mdp.obs_space.dim, time_scale, nets, args.obsnorm_mode != 'none')
    if args.obsnorm_mode == 'expertdata':
        reward.update_inputnorm(expert.obs_N_Do, expert.a_N_Da)
        if vf is not None:
            vf.update_obsnorm(expert.obs_N_Do)
    return ImitationOptimizer(args, mdp, policy, vf, reward, expert=expert, rng=nets.rng)


def task_of(env: Any, options: ImitationOptions, trajs: TrajBatch) -> MDP:
    """The task of an environment, or of the demonstrations themselves where there is none, which is enough for cloning."""
    if env is None and options.mode == 'bclone':
        return RecordedTask(trajs, options.num_actions)
    if options.num_actions is not None and options.mode == 'bclone':
        raise UserError(f'--num_actions {options.num_actions}: the env says it; leave it out')
    return MDP(env)  # None is answered there


def action_bounds(options: CommonOptions, mdp: MDP) -> np.ndarray | None:
    """The box (lowest, highest) that --clip_actions clips to; None where actions are finite or a side of the box is open."""
    low_high = (mdp.info.a_low, mdp.info.a_high)
    return np.array(low_high) if options.clip_actions and None not in low_high else None


def check_data_fits(path: str, trajs: TrajBatch, mdp: MDP) -> None:
    """Raise UserError when expert data cannot come from the task; warn when it could, but says that it does not."""
    if misfit := trajs.misfit(mdp.info):
        says = f" The file says env '{trajs.env_name}'." if trajs.env_name else ''
        raise UserError(f'{path}: {misfit}; use data of this env.{says}')
    if not mdp.info.finite:
        trajs.a.stacked = trajs.a.stacked.astype(np.float64)
    mdp.warn_of_another_task(path, trajs.env_name)


def warn_of_constant_features(obs_N_Do: np.ndarray) -> None:
    """Warn of observation features without variance: standardising divides any other value of them by ε = 1e-6, as in 2016."""
    constant = np.flatnonzero(np.ptp(obs_N_Do, axis=0) == 0)
    if len(constant):
        first = ', '.join(map(str, constant[:5])) + (', …' if len(constant) > 5 else '')
        print(
            f'warning: {len(constant)} of {obs_N_Do.shape[1]} observation features never change in the expert data used ({first}); '
            'normalised with it, a policy sees any other value of them as huge', file=sys.stderr,
        )  # fmt: skip


def prepare(options: AnyOptions) -> AnyOptions:
    """The options of a command as they are stored, after checking its log; switches autograd off."""
    if options.log is not None:
        check_log(options.log, options.resume, inputs=[getattr(options, name, None) for name in ('data', 'reward')])
    elif options.resume:
        raise UserError('--resume needs --log, the file of the run to continue')
    begun = [path for path in (part_path(options.log), options.log) if os.path.exists(path)] if options.log and options.resume else []
    if begun and (options.seed is None or options.max_iter is None):
        started = read_root(begun[0])['args']  # drawn or left to its default when the run was started
        options = dataclasses.replace(options, **{k: started.get(k) for k in ('seed', 'max_iter') if getattr(options, k) is None})
    drawn = options.seed is None
    options = resolved(options)
    if drawn:
        print(f'seed: {options.seed}')
    torch.set_grad_enabled(False)
    return options


def resolved(options: AnyOptions) -> AnyOptions:
    """Options with nothing left open: the nets, the seed, the number of iterations, and how often a mode saves and prints.

    Raises UserError for options that contradict each other.
    """
    check_together(options)
    spec, init_policy = options.policy_hidden_spec, getattr(options, 'init_policy', None)
    if spec is None and not options.tiny_policy and init_policy:
        spec = read_snapshot(last_of(init_policy)).args.get('policy_hidden_spec')
    if spec is None:
        spec = TINY_ARCHITECTURE if options.tiny_policy else SIMPLE_ARCHITECTURE
    seed = draw_seed() if options.seed is None else options.seed
    options = dataclasses.replace(options, policy_hidden_spec=spec, seed=seed, max_iter=options.max_iter or MAX_ITER)
    if isinstance(options, ImitationOptions) and options.save_reward is None:
        rows = [row for row in algorithms.ALGORITHMS.values() if row.reward_type == options.reward_type]
        keeps = algorithms.MODES[options.mode].adversarial and any(row.saves_reward for row in rows)
        options = dataclasses.replace(options, save_reward=int(keeps))
    mode = getattr(options, 'mode', None)
    if mode is not None and algorithms.MODES[mode].save_option != 'save_freq':
        freq = getattr(options, algorithms.MODES[mode].save_option)
        options = dataclasses.replace(options, print_freq=freq, save_freq=freq)
    return options


def check_log(path: str, resume: bool = False, name: str = '--log', inputs: Iterable[str | None] = ()) -> None:
    """Raise UserError where the log of a new (or, with resume, a continued) run cannot be written, or would overwrite another.

    name: what the user calls the path; inputs: files that the run reads.
    """
    if os.path.isfile(path):
        if not resume:
            raise UserError(f'{path}: exists already, and finished data is never overwritten; choose another {name}')
    else:
        check_output(path, 'the log', inputs)
    if os.path.exists(part_path(path)) and not resume:
        raise UserError(f'{part_path(path)}: an unfinished run; continue it with --resume, or delete it to start again')


def full_path(path: str | None) -> str | None:
    """A path that leads to the same place after an environment has changed the working folder."""
    return None if path is None else os.path.abspath(path)


def digest(arrays: Iterable[Any]) -> str:
    """A digest of the arrays that a run learns from, by which a checkpoint with other data is recognised; skips other values."""
    sha = hashlib.sha256()
    for a in arrays:
        if isinstance(a, np.ndarray):
            sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


class Run:
    """One training run: iterate, log, save every save_freq iterations, stop on a signal, continue bit for bit."""

    def __init__(self, args: CommonOptions, opt: Optimizer, mdp: MDP, data_digest: str = ''):
        self.args: Any = args  # with nothing left open, see `resolved`
        self.opt, self.mdp = opt, mdp
        attrs = provenance() | {'numerics': numerics(), 'args': args.as_json(), 'seed': args.seed, 'data_digest': data_digest}
        self.started_with = attrs
        self.log = TrainingLog(full_path(args.log), attrs)
        self.lock: locks.Lock | None = None  # while `execute` writes to a log

    @property
    def depends_on_max_iter(self) -> bool:
        """Whether iterations depend on --max_iter, so that the run cannot be made longer."""
        mode = getattr(self.args, 'mode', None)
        return getattr(self.args, 'policy_final_kl', None) is not None or (mode is not None and algorithms.MODES[mode].depends_on_max_iter)

    def iterate(self) -> Fields:
        """One iteration: step, check, log, and a snapshot where one is due; returns the log fields."""
        iteration = self.opt.iteration
        try:
            fields = self.opt.step()
        except optim.NotFinite as e:
            raise self.not_finite(f'iteration {iteration}: {e} is not a finite number') from e
        if self.args.eval_every:
            due = iteration % self.args.eval_every == 0 or iteration == self.args.max_iter - 1
            fields = [*fields, ('evalret', self.evaluate(iteration) if due else None, float)]
        self.check_finite(fields)
        self.log.append(fields)
        if iteration % self.args.save_freq == 0 or self.is_done:
            self.log.add_snapshot(iteration, self.snapshot())
        return fields

    def evaluate(self, iteration: int) -> float:
        """The mean true return of the most likely actions, over episodes that depend on seed and iteration alone."""
        longest, key = self.mdp.horizon(self.args.max_traj_len), (self.args.seed, 'evaluate', iteration)
        actor, how = self.opt.policy.actor(), {'deterministic': True, 'sim_batch_size': 1}
        return float(sample_trajectories(actor, self.mdp, EVAL_EPISODES, longest, key, **how).returns.mean())

    def returns(self, iterations: slice) -> np.ndarray:
        """The mean true returns of some iterations, as far as there are any."""
        names = [name for name, _ in self.log.columns or []]
        column = next((names.index(name) for name in ('trueret', 'ret') if name in names), None)
        return np.array([] if column is None else [row[column] for row in self.log.rows[iterations]], dtype=np.float64)

    def has_reached_return(self) -> bool:
        """Whether --stop_at_return ends the run here."""
        wanted = self.args.stop_at_return
        if wanted is None or len(self.log.rows) < STOP_WINDOW:
            return False
        return bool(self.returns(slice(-STOP_WINDOW, None)).mean() >= wanted)

    @property
    def is_done(self) -> bool:
        return self.opt.iteration >= self.args.max_iter or self.has_reached_return()

    def warning(self) -> str | None:
        """A warning where the return is lower than in all of the first iterations, else None."""
        first, last = self.returns(slice(FIRST_ITERATIONS)), self.returns(slice(-LAST_ITERATIONS, None))
        if len(self.log.rows) < FIRST_ITERATIONS + LAST_ITERATIONS or not len(last) or not last.max() < first.min():
            return None
        return (
            f'the true return of the last {LAST_ITERATIONS} iterations, {last.mean():.4g} on average, is below all of the first '
            f'{FIRST_ITERATIONS} ({first.mean():.4g}): the run does not learn so far; see "When GAIL does not learn" in docs/algorithms.md'
        )

    def snapshot(self) -> dict[str, np.ndarray]:
        """The policy's variables, and with save_reward what the reward function has learned."""
        reward = getattr(self.opt, 'reward', None) if getattr(self.args, 'save_reward', 0) else None
        return self.opt.policy.export() | (reward.learned() if reward is not None else {})

    def execute(self, log: str | None = None) -> int:
        """Run to the end; returns an exit code. log: the full path of args.log, from before any environment was made."""
        args = self.args
        if args.log is None:
            return self.complete()
        self.log.path = log or self.log.path
        try:
            self.lock = locks.acquire_leased(lock_path(self.log.path))
        except locks.Held as held:
            raise RunFailed(f'{args.log}: {held}. Two runs cannot have one --log; wait for that one, or choose another name') from held
        try:
            check_log(self.log_name, args.resume)  # another run may have written it since the options were checked
            return self.complete()
        finally:
            self.lock.release()

    @property
    def log_name(self) -> str:
        """The log as the user named it, as long as that name leads there."""
        return self.args.log if full_path(self.args.log) == self.log.path else self.log.path

    def complete(self) -> int:
        args = self.args
        if args.log is not None and os.path.exists(self.log.path):
            root = read_root(self.log_name)
            if args.max_iter <= root['args'].get('max_iter', args.max_iter):
                if 'data_digest' in root:  # a file of ours, not of 2016
                    self.check_options(args.log, root['args'])
                    self.check_data(args.log, root['data_digest'])
                print(f'{args.log}: is complete already; a larger --max_iter makes it longer')
                return 0
            self.log.extends = True
        if args.resume and os.path.exists(self.log.part_path):
            self.restore(part_path(self.log_name))
        elif self.log.extends:
            self.restore(self.log_name)
        with stop_signals() as signals, np.errstate(all='ignore'):  # NaN and infinity end the run with one error, see check_finite
            if not self.run_loop(signals):
                return self.stopped(signals[0])
        self.check_lock()
        if self.has_reached_return():
            print(f'ended after iteration {self.opt.iteration - 1}: the mean return of {STOP_WINDOW} iterations reached --stop_at_return')
        if warning := self.warning():
            print(f'warning: {warning}', file=sys.stderr)
        self.log.finish(self.end_attrs(), self.state())
        if args.log is not None:
            print(f'done: {args.log}\nlearning curve:', as_typed(f'showlog.py {args.log}'))
        return 0

    def end_attrs(self) -> dict[str, str]:
        """What a finished log says beyond the attributes of its start."""
        return {'end_time': now(), 'wall_time': f'{self.opt.total_time:.3f}'}

    def run_loop(self, signals: list[int]) -> bool:
        """Do the remaining iterations; False where one of `signals` stopped them before the last one, with the state saved."""
        args, eta, warned = self.args, Eta(self.args.max_iter), False
        while not self.is_done:
            iteration = self.opt.iteration
            fields = self.iterate()
            last = self.is_done
            try:
                if not warned and not last and (warning := self.warning()):
                    warned = True
                    eta.clear()
                    print(f'warning: {warning}', file=sys.stderr)
                if iteration % args.print_freq == 0 or last:
                    eta.clear()
                    self.print_row(fields)
                if signals or last:
                    eta.clear()
                else:
                    eta.update(iteration)
            except OSError as e:
                with contextlib.suppress(OSError):  # a closed terminal takes standard error with it
                    print(self.how_to_continue(f'its output, which cannot be written ({e.strerror}),'), file=sys.stderr)
                mute()
                signals.append(signal.SIGHUP)  # a terminal that closes can break our output before it sends this signal
            stop = bool(signals)
            if (iteration % args.save_freq == 0 or stop) and not last:
                self.check_lock()
                self.log.save(self.state())
            if stop and not last:
                return False
        return True

    def stopped(self, num: int) -> int:
        """Print how to continue after a stop signal; returns the exit code."""
        with contextlib.suppress(OSError):  # of an output that cannot be written, which has been said
            print(self.how_to_continue(signal.Signals(num).name), flush=True)
        return INTERRUPTED if num == signal.SIGINT else STOPPED

    def how_to_continue(self, why: str) -> str:
        kept = 'nothing is kept without --log' if self.args.log is None else f'continue with: {continuing_command()}'
        return f'stopped by {why} after iteration {self.opt.iteration - 1}; {kept}'

    def check_lock(self) -> None:
        if self.lock is not None:
            self.lock.check()

    def check_finite(self, fields: Fields) -> None:
        """Raise RunFailed where a number is not finite as the log holds it, and note that in the part file."""
        with np.errstate(over='ignore'):
            bad = [name for name, value, _ in fields if value is not None and not np.isfinite(np.float32(value))]
        if bad or not torch.isfinite(self.opt.policy.theta_P).all():
            what = bad[0] if bad else 'the policy'
            raise self.not_finite(f'iteration {self.opt.iteration - 1}: {what} is not a finite number (in float32, as logs hold it)')

    def not_finite(self, seen: str) -> RunFailed:
        """The error that ends a run with NaN or infinity, which is noted in the part file."""
        if self.lock is not None and os.path.exists(self.log.part_path):
            self.check_lock()
            with contextlib.suppress(OSError):  # of a full disk, which is not the message here
                self.log.mark_part({DIVERGED: json.dumps({'seen': seen} | self.code())})
        return RunFailed(
            f'{seen}; nothing after the last save is kept. Look at the scale of rewards and observations, or lower the step sizes'
        )

    def code(self) -> dict[str, str]:
        """The versions that, with equal options, lead to the same numbers again."""
        return {key: self.started_with[key] for key in ('git_hash', 'versions', 'numerics')}

    def print_row(self, fields: Fields) -> None:
        if self.opt.iteration == 1 or self.opt.iteration % (20 * self.args.print_freq) == 1:
            print(' '.join(f'{name:>9}' for name, _, _ in fields))
        print(' '.join(f'{_cell(value):>9}' for _, value, _ in fields), flush=True)

    def state(self) -> dict[str, np.ndarray]:
        """Everything a continued run needs beyond the log."""
        state = {k: v for m in self.models() for k, v in m.export().items()}
        state |= {f'/state/model{i}{k}': v for i, m in enumerate(self.models()) for k, v in m.state().items()}
        state |= {f'/optimizer/{k}': np.array(v) for k, v in self.opt.counters().items()}
        _, keys, pos, has_gauss, cached = self.opt.rng.get_state()
        return state | {'/rng/keys': keys, '/rng/pos': np.array([pos, has_gauss]), '/rng/cached_gaussian': np.array(cached)}

    def models(self) -> list[Any]:
        return [m for m in (self.opt.policy, getattr(self.opt, 'vf', None), getattr(self.opt, 'reward', None)) if m is not None]

    def check_options(self, path: str, theirs: Mapping[str, Any]) -> None:
        """Raise UserError where the run at `path`, with the options `theirs`, is not this one, whatever their --max_iter."""
        for field in dataclasses.fields(self.args):
            key, value = field.name, getattr(self.args, field.name)
            was = theirs.get(key, default_of(field, theirs.get('mode')))  # the file may be older than the option
            if key not in HARMLESS and was != value:
                raise UserError(f'{path}: was started with --{key} {was}, not {value}; give the same options, or delete it')

    def check_data(self, path: str, theirs: str) -> None:
        """Raise UserError where the run at `path` learned from data of another digest."""
        if theirs != self.started_with['data_digest']:
            args = vars(self.args)
            given = [f'--{name} {args[name]}' for name in ('data', 'expert', 'reward') if args.get(name)] or ['the true reward']
            raise UserError(f'{path}: was started with other data than {" and ".join(given)}; give the same, or delete it')

    def check_resumable(self, path: str, theirs: Mapping[str, Any], done: int) -> None:
        """Raise UserError where the run at `path`, with the options `theirs` and `done` iterations, cannot be continued by this one."""
        diverged = json.loads(self.log.attrs.get(DIVERGED, '{}'))
        if diverged and {k: diverged.get(k) for k in self.code()} == self.code():
            raise UserError(
                f'{path}: reached NaN or infinity ({diverged.get("seen")}), and --resume with equal options and versions repeats '
                'that; start a run with smaller step sizes or scaled rewards under another --log, or delete this file'
            )
        self.check_options(path, theirs)
        if self.args.max_iter < done:
            raise UserError(f'{path}: has done {done} iterations already, more than --max_iter {self.args.max_iter}; {done} ends it there')
        if self.depends_on_max_iter and self.args.max_iter not in (theirs['max_iter'], done):  # at `done` it ends here
            raise UserError(
                f'{path}: was started with --max_iter {theirs["max_iter"]}, not {self.args.max_iter}, on which all iterations of '
                f'--mode {self.args.mode} depend; give the same number, or delete it'
            )
        self.check_data(path, self.log.attrs['data_digest'])

    def load_state(self, state: Mapping[str, np.ndarray], path: str) -> None:
        """Take what `state` gave back, from the file at `path`."""
        load_models(self.models(), state, path)
        self.opt.load_counters({k.removeprefix('/optimizer/'): v for k, v in state.items() if k.startswith('/optimizer/')})
        pos, has_gauss = state['/rng/pos']
        self.opt.rng.set_state(('MT19937', state['/rng/keys'], int(pos), int(has_gauss), float(state['/rng/cached_gaussian'])))

    def drop_last_only_entries(self) -> None:
        """Drop the snapshot and the evaluation that a finished run has only because its last iteration was its last."""
        last = self.opt.iteration - 1
        if self.args.save_freq and last % self.args.save_freq:
            self.log.snapshots.pop(f'iter{last:07d}', None)
        if self.args.eval_every and last % self.args.eval_every:
            names = [name for name, _ in self.log.columns or []]
            self.log.rows[-1] = tuple(np.nan if n == 'evalret' else x for n, x in zip(names, self.log.rows[-1], strict=True))

    def restore(self, path: Any) -> None:
        """Continue from the part file or the finished one, after checking that it is a state of this run."""
        mine = dict(self.log.attrs)
        state = self.log.restore(path)
        theirs, done = json.loads(self.log.attrs['args']), int(state['/optimizer/iteration'])
        self.check_resumable(path, theirs, done)
        self.log.attrs.pop(DIVERGED, None)
        self.load_state(state, path)
        if self.args.max_iter != theirs['max_iter']:  # store the new number: a run that was started with it has the same bits
            changed = {'args': json.dumps(theirs | {'max_iter': self.args.max_iter})}
            self.log.attrs |= changed | {'command': f'{self.log.attrs["command"]}; {mine["command"]}'}
        if self.args.max_iter == done and done < theirs['max_iter']:  # the new --max_iter ends the run here
            self.log.add_snapshot(done - 1, self.snapshot())
        else:
            self.drop_last_only_entries()
        print(f'continuing {path} at iteration {self.opt.iteration} of {self.args.max_iter}')
        kinds = self.log.attrs.get('numerics', 'a processor that it does not name').split('; ')
        if mine['numerics'] != kinds[-1]:
            print(f'{path}: was computed with {kinds[-1]}, here with {mine["numerics"]}: what follows will not be equal to the bit')
            self.log.attrs['numerics'] = '; '.join([*kinds, mine['numerics']])


def _cell(value: Any) -> str:
    if value is None:
        return 'nan'
    return str(value) if isinstance(value, (int, np.integer)) else f'{value:.4g}'
