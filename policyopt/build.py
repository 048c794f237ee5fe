"""From options to what a training run is made of: reward function, value function, optimiser; and whether the expert data fit.

The optimiser of a mode and the class of a reward function are those of the table in algorithms.py.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policyopt import algorithms
from policyopt.arguments import as_path
from policyopt.cloning import BehavioralCloningOptimizer
from policyopt.dagger import DaggerOptimizer, Rounds
from policyopt.errors import UserError
from policyopt.files.training_log import last_of, read_snapshot
from policyopt.imitation import ImitationOptimizer
from policyopt.options import ImitationOptions, names
from policyopt.sampling.actors import FunctionActor
from policyopt.sampling.mdp import MDP, RecordedTask, SimConfig
from policyopt.trajectories import Expert
from policyopt.valuefuncs import ValueFunc

if TYPE_CHECKING:
    from policyopt.interfaces import Optimizer, Reward
    from policyopt.options import CommonOptions
    from policyopt.policies import Policy
    from policyopt.sampling.actors import AnyActor
    from policyopt.trajectories import TrajBatch


def optimizer(args: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: dict[str, Any], **more: Any) -> Optimizer:
    """The optimiser of the options' mode, built by the function that algorithms.MODES names; more: what that mode alone needs."""
    return algorithms.load(algorithms.MODES[args.mode].optimizer)(args, mdp, policy, expert, nets, **more)


def cloning_optimizer(args: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: dict[str, Any]) -> BehavioralCloningOptimizer:
    """The optimiser of mode bclone."""
    return BehavioralCloningOptimizer(
        policy, expert[0], expert[1], nets['rng'], args.bclone_lr, args.bclone_batch_size, args.bclone_eval_freq, args.bclone_train_frac
    )


def dagger_optimizer(
    args: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: dict[str, Any], teacher: AnyActor | None = None
) -> DaggerOptimizer:
    """The optimiser of mode dagger; `teacher` is the expert that labels."""
    if teacher is None:
        raise UserError('--mode dagger asks an expert for labels; give --expert FILE.h5/snapshots/…, a policy for this task')
    assert args.seed is not None and args.max_iter is not None  # see training.resolved
    if isinstance(teacher, FunctionActor) and (args.sim_batch_size or 1) > 1:
        raise UserError(f'sim_batch_size {args.sim_batch_size}: worker processes cannot ask a function for labels; give 1')
    if args.max_iter <= args.dagger_rounds:
        raise UserError(
            f'--max_iter {args.max_iter} leaves some of {args.dagger_rounds} --dagger_rounds without a step; give more than that'
        )
    cloning = cloning_optimizer(args, mdp, policy, expert, nets)
    horizon = mdp.longest(args.max_traj_len) if args.dagger_rounds else 0
    rounds = Rounds(
        args.dagger_rounds, args.dagger_round_trajs, args.max_iter, args.dagger_beta, args.dagger_beta_schedule, args.dagger_label, horizon,
        args.data_subsamp_freq, args.sim_batch_size,
    )  # fmt: skip
    return DaggerOptimizer(mdp, cloning, teacher, expert, rounds, args.seed)


def imitation_optimizer(args: ImitationOptions, mdp: MDP, policy: Policy, expert: Expert, nets: dict[str, Any]) -> ImitationOptimizer:
    """Reward function, value function and optimiser of the adversarial modes."""
    assert args.seed is not None and args.max_iter is not None  # see training.resolved
    if args.reward_include_time:
        mdp.horizon(args.max_traj_len, 'reward_include_time')
    horizon, time_scale = mdp.longest(args.max_traj_len), mdp.time_scale(args.max_traj_len)
    reward = algorithms.load(algorithms.rewards()[args.reward_type]).from_options(args, mdp, expert, time_scale, nets)
    vf = value_function(args, mdp, time_scale, nets, args.obsnorm_mode != 'none') if not args.no_vf else None
    if args.obsnorm_mode == 'expertdata':
        reward.update_inputnorm(expert[0], expert[1])
        if vf is not None:
            vf.update_obsnorm(expert[0])
    return ImitationOptimizer(
        mdp, policy, vf, reward, expert, sim_config(args, horizon), args.discount, args.lam, args.policy_max_kl, args.policy_cg_damping,
        args.policy_ent_reg, args.seed, nets['rng'], args.obsnorm_mode, args.policy_final_kl, args.max_iter,
        args.bootstrap_time_limit,
    )  # fmt: skip


def load_reward(path: str | os.PathLike, mdp: MDP, max_traj_len: int | None = None) -> Reward:
    """The reward function that 'FILE.h5/snapshots/iter0000100' or '…/snapshots/last' holds; 'FILE.h5' is its last one.

    mdp: the task that it is to judge; it must have the observation and action dims of the one that it was learned on. Its
    `learned_reward` gives rewards, which do not change any more. Raises UserError where there is none, or where it does not fit.
    """
    snapshot = read_snapshot(last_of(as_path(path)))
    known = {k: v for k, v in snapshot.args.items() if k in names(ImitationOptions)}
    where = f"{snapshot.file}: {snapshot.path} (for env '{mdp.env_name}')"
    kinds = {name.split('/')[1] for name in snapshot.variables}
    reward_class = algorithms.rewards().get(known.get('reward_type', ''), '')
    if known.get('mode') not in algorithms.adversarial_modes() or reward_class.rpartition(':')[2] not in kinds:
        raise UserError(
            f'{snapshot.file}: {snapshot.path} holds {", ".join(sorted(kinds))} and no reward function; '
            'imitate_mj.py --mode ga keeps it with --save_reward 1 (airl unless that is 0)'
        )
    nothing = Expert(
        np.zeros((1, mdp.obs_space.dim)), np.zeros((1, mdp.action_space.storage_size), mdp.action_space.storage_type), np.zeros(1)
    )
    nets = {'rng': np.random.RandomState(0), 'dtype': torch.float64, 'device': 'cpu'}
    if known.get('reward_include_time'):
        mdp.horizon(max_traj_len, 'a reward that sees the time')
    time_scale = mdp.time_scale(max_traj_len)
    reward = algorithms.load(reward_class).from_options(ImitationOptions(**known), mdp, nothing, time_scale, nets)
    reward.load_learned(snapshot.variables, where)
    mdp.warn_of_another_task(snapshot.file, known.get('env_name'))
    return reward


def value_function(args: CommonOptions, mdp: MDP, time_scale: float, nets: dict[str, Any], enable_obsnorm: bool) -> ValueFunc:
    assert args.policy_hidden_spec is not None  # see training.resolved
    return ValueFunc(
        mdp.obs_space.dim, args.policy_hidden_spec, time_scale, args.vf_max_kl, args.vf_cg_damping, enable_obsnorm=enable_obsnorm,
        steps=args.vf_steps, **nets,
    )  # fmt: skip


def sim_config(args: CommonOptions, horizon: int | None) -> SimConfig:
    return SimConfig(0, args.min_total_sa, horizon, args.sim_batch_size, args.max_envs)


def task_of(env: Any, options: ImitationOptions, trajs: TrajBatch) -> MDP:
    """The task of an environment, or of the demonstrations themselves where there is none, which is enough for cloning."""
    if env is None and options.mode == 'bclone':
        return RecordedTask(trajs, options.num_actions)
    if options.num_actions is not None and options.mode == 'bclone':
        raise UserError(f'--num_actions {options.num_actions}: the env says it; leave it out')
    return MDP(env)  # pyright: ignore[reportArgumentType] (None is answered there)


def action_bounds(options: CommonOptions, mdp: MDP) -> np.ndarray | None:
    """The box (lowest, highest) that --clip_actions clips to; None where actions are finite or a side of the box is open."""
    low_high = (mdp.info.a_low, mdp.info.a_high)
    return np.array(low_high) if options.clip_actions and None not in low_high else None


def check_data_fits(path: str, trajs: TrajBatch, mdp: MDP) -> None:
    """Raise UserError when expert data cannot come from the task; warn when it could, but says that it does not."""
    trajs.take_whole_actions(mdp.info)
    if misfit := trajs.misfit(mdp.info):
        says = f" The file says env '{trajs.env_name}'." if trajs.env_name else ''
        raise UserError(f'{path}: {misfit}; use data of this env.{says}')
    if not mdp.info.finite:
        trajs.a.stacked = trajs.a.stacked.astype(np.float64)
    mdp.warn_of_another_task(path, trajs.env_name)


def warn_of_constant_features(obs_N_Do: np.ndarray) -> None:
    """Say which observation features have no variance: standardised, any other value of theirs is divided by ε = 1e-6, as in 2016."""
    constant = np.flatnonzero(np.ptp(obs_N_Do, axis=0) == 0)
    if len(constant):
        first = ', '.join(map(str, constant[:5])) + (', …' if len(constant) > 5 else '')
        print(
            f'warning: {len(constant)} of {obs_N_Do.shape[1]} observation features never change in the expert data used ({first}); '
            'normalised with it, a policy sees any other value of them as huge', file=sys.stderr,
        )  # fmt: skip
