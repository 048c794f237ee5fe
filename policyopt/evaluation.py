"""Loading and playing policies: exactly N episodes of a policy on its task, for expert data, results and scores."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from policyopt import algorithms
from policyopt.arguments import as_path
from policyopt.environments.rlgymenv import SingleEnv, exits_raise
from policyopt.errors import UserError, printable
from policyopt.files.atomic import check_output, replacing
from policyopt.files.ends import Episode
from policyopt.files.training_log import last_of, read_snapshot
from policyopt.files.trajectory_file import batch_of
from policyopt.interfaces import Reward
from policyopt.options import MAX_TRAJS, ImitationOptions, option_names
from policyopt.policies import Policy, policy_from_snapshot
from policyopt.sampling.actors import PlayerActor
from policyopt.sampling.mdp import MDP, check_mdp, sample_trajectories
from policyopt.sampling.rollout import Streams
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Expert, TrajBatch

FPS = 30  # pictures per second of an animation


def load_policy(policy_path: str | os.PathLike, mdp: MDP | None = None) -> Policy:
    """The policy stored at 'FILE.h5/snapshots/iter0000100' or '…/snapshots/last', of ours or of 2016; 'FILE.h5' is its last one.

    mdp: the task that it must fit; without one, its observation and action dims are those of its variables.
    Raises UserError for a file that is missing, damaged or of another kind, and for a policy that does not fit the task.
    """
    policy_path = as_path(policy_path, 'policy_path')
    check_mdp(mdp)
    snapshot = read_snapshot(last_of(policy_path))
    policy = policy_from_snapshot(snapshot, mdp)
    if mdp is not None:
        mdp.warn_of_another_task(policy_path, snapshot.args.get('env_name'))
    return policy


def load_reward(path: str | os.PathLike, mdp: MDP, max_traj_len: int | None = None) -> Reward:
    """The reward function that 'FILE.h5/snapshots/iter0000100' or '…/snapshots/last' holds; 'FILE.h5' is its last one.

    mdp: the task that it is to judge; it must have the observation and action dims of the one that it was learned on. Its
    `learned_reward` gives rewards, which do not change any more. Raises UserError where there is none, or where it does not fit.
    """
    check_mdp(mdp)
    snapshot = read_snapshot(last_of(as_path(path)))
    known = {k: v for k, v in snapshot.args.items() if k in option_names(ImitationOptions)}
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
    nets = NetConfig(np.random.RandomState(0))
    if known.get('reward_include_time'):
        mdp.horizon(max_traj_len, 'a reward that sees the time')
    time_scale = mdp.time_scale(max_traj_len)
    reward = algorithms.load(reward_class).from_options(ImitationOptions(**known), mdp, nothing, time_scale, nets)
    reward.load_learned(snapshot.variables, where)
    mdp.warn_of_another_task(snapshot.file, known.get('env_name'))
    return reward


def sample_episodes(
    policy: Policy | Any,
    mdp: MDP,
    num_trajs: int,
    seed: int,
    deterministic: bool = False,
    max_traj_len: int | None = None,
    sim_batch_size: int | None = None,
    max_envs: int | None = None,
) -> TrajBatch:
    """Exactly num_trajs episodes, in the order in which they were started, as a TrajBatch.

    A pure function of its arguments: episode i has its own random stream. deterministic takes the most likely action.
    policy: a Policy, or anything that PlayerActor takes, which plays in one environment.
    """
    if not 1 <= num_trajs <= MAX_TRAJS:
        raise UserError(f'the number of episodes is {num_trajs}; give 1 or more, up to {MAX_TRAJS}')
    if isinstance(policy, Policy):
        actor = policy.actor()
    else:
        actor, sim_batch_size, max_envs = PlayerActor(policy, mdp.info, deterministic), 1, 1
    at_most = {'sim_batch_size': sim_batch_size, 'max_envs': max_envs}
    trajs = sample_trajectories(actor, mdp, num_trajs, max_traj_len, (seed, 'evaluate'), deterministic=deterministic, **at_most)
    if isinstance(policy, Policy):
        trajs.a.stacked = policy.clipped(trajs.a.stacked)  # a recording holds what was played
    return trajs


def record_person(
    env_name: str, num_trajs: int, seed: int, noop: int | None = None, fps: int | None = None, max_traj_len: int | None = None
) -> TrajBatch:
    """Episodes that a person plays at the keyboard, num_trajs or fewer; see policyopt.environments.playing.

    Raises UserError where the environment cannot be played so, or no episode was played to its end.
    """
    from policyopt.environments import playing  # opens a window with pygame, an extra

    mdp = MDP(env_name)
    if noop is not None and mdp.info.finite and not 0 <= noop < mdp.info.num_actions:
        raise UserError(f"--noop {noop}: env '{env_name}' has the actions 0 to {mdp.info.num_actions - 1}")
    if noop and not mdp.info.finite:
        raise UserError(f"--noop {noop}: env '{env_name}' has continuous actions; give 0, which stands for zeros, or leave it out")
    episodes = playing.play(env_name, num_trajs, seed, noop=noop, fps=fps, max_len=max_traj_len)
    if not episodes:
        raise UserError('no episode was played to its end, so there is nothing to keep')
    recorded = [Episode(f'episode {i}', x.obs, x.actions, x.rewards, x.terminated) for i, x in enumerate(episodes)]
    return batch_of(recorded, 'the recording')


def open_policy(policy_path: str, env_name: str | None = None) -> tuple[Policy, MDP]:
    """(policy, MDP) of 'FILE.h5/snapshots/…', on env_name or on the task that its file names."""
    stored = read_snapshot(policy_path).args.get('env_name')
    if not (env_name or stored):
        raise UserError(f'{policy_path}: does not say which env it was trained on; give --env_name')
    if not env_name and ':' in str(stored):
        # making such a task imports the module, which runs it
        raise UserError(
            f"{policy_path}: says env '{printable(stored)}', and a module that only a file names is not imported; "
            f'if you trust it, give --env_name {printable(stored)}'
        )
    mdp = MDP(env_name or str(stored))
    return load_policy(policy_path, mdp), mdp


def scores(trajs: TrajBatch) -> str:
    """Lines with the returns and lengths of episodes; the median too, since a few falls lower a mean a lot."""
    return (
        f'return: {trajs.returns.mean():.4f} (sd {trajs.returns.std():.4f})\n'
        f'length: {trajs.lengths.mean():.2f} (sd {trajs.lengths.std():.2f})\nmedian return: {np.median(trajs.returns):.4f}'
    )


def compare_rewards(trajs: TrajBatch, reward: Reward) -> str:
    """Lines with the true and a learned reward of every step of the first episode, and the returns by the learned one."""
    terminal_N = trajs.successors(int(trajs.lengths.max()))[1]
    learned = trajs.r.with_rows(reward.learned_reward(trajs.obs.stacked, trajs.a.stacked, trajs.time.stacked, terminal_N))
    lines = [f'{"step":>6} {"reward":>12} {"learned":>12}']
    lines += [f'{t:>6} {r:>12.5g} {x:>12.5g}' for t, (r, x) in enumerate(zip(trajs.r[0], learned[0], strict=True))]
    return '\n'.join([*lines, f'learned return: {learned.sums().mean():.4f} (sd {learned.sums().std():.4f})'])


@dataclasses.dataclass
class ShownEpisode:
    """An episode that is being shown: its return and length so far, and whether it is over."""

    ret: float = 0.0
    length: int = 0
    over: bool = False


def frames(
    policy: Policy, mdp: MDP, num_frames: int, seed: int, deterministic: bool = False, max_traj_len: int | None = None
) -> Iterator[tuple[np.ndarray, ShownEpisode]]:
    """Yield (RGB picture (H, W, 3), ShownEpisode) at every step of a policy at play, in the episodes of `sample_episodes` with this seed.

    Raises UserError where the task cannot be drawn, RunFailed where it fails at play.
    """
    try:
        env = SingleEnv(mdp.env_name, render_mode='rgb_array')
    except UserError as e:
        raise UserError(f'{e}; an animation needs the render_mode rgb_array') from e
    actor, streams, longest, left = policy.actor(), Streams((seed, 'evaluate')), mdp.longest(max_traj_len), num_frames
    with exits_raise(), contextlib.closing(env):
        for i in itertools.count():
            rng, shown = streams.generator(i), ShownEpisode()
            obs = env.reset(int(rng.integers(2**31)))
            while not shown.over:
                picture = env.render()
                a_1_Da = actor.act(actor.outputs(obs[None]), None if deterministic else actor.noise(rng, 1))
                obs, r, done = env.step(policy.clipped(a_1_Da)[0])
                shown.ret, shown.length = shown.ret + r, shown.length + 1
                shown.over = done or shown.length == longest
                yield picture, shown
                left -= 1
                if left == 0:
                    return


def animate(shown_frames: Iterator[tuple[np.ndarray, ShownEpisode]], out: str | None) -> list[ShownEpisode]:
    """Save what `frames` yields as a GIF (out), or show it in a window (out None); returns the episodes shown."""
    pictures: list[Any] = []
    episodes = []
    if out is None:
        import matplotlib.pyplot as plt
    else:
        from PIL import Image

        check_output(out, 'the animation')
    for picture, shown in shown_frames:
        if shown.length == 1:
            episodes.append(shown)
        if out is None:
            pictures = pictures or [plt.imshow(picture)]
            pictures[0].set_data(picture)
            plt.axis('off')
            plt.pause(1 / FPS)
        else:
            pictures.append(Image.fromarray(picture))
    if out is not None:
        with replacing(out) as tmp:
            pictures[0].save(tmp, format='GIF', save_all=True, append_images=pictures[1:], duration=int(1000 / FPS), loop=0)
    return episodes
