"""The other side of peers.py: one training run of the package imitation 1.0.1, and the policy that comes out at play.

    python benchmarks/peer_imitation.py JOB.json

Started by peers.py with the Python of an environment that has that package. It imports nothing of this project, and nothing of this project
imports it. The options are those that the package ships as tuned (imitation/scripts/config/tuned_hps), else the defaults of its
own training scripts; those scripts are not run, because their release forgets the policy's options in cloning.
"""
# pyright: reportMissingImports=false

import json
import pathlib
import sys
import time
import types

import gymnasium
import imitation
import jsonpickle
import numpy as np
import seals  # noqa: F401  (registers the tasks)
import torch
from imitation.algorithms import bc, dagger
from imitation.algorithms.adversarial import airl, gail
from imitation.data.types import TrajectoryWithRew
from imitation.policies.base import FeedForward32Policy
from imitation.rewards import reward_nets
from imitation.util import logger, networks, util
from stable_baselines3 import PPO
from stable_baselines3.common.policies import BasePolicy

NAMES = {'HalfCheetah-v1': 'half_cheetah', 'Hopper-v1': 'hopper', 'Swimmer-v1': 'swimmer', 'Walker2d-v1': 'walker', 'Ant-v1': 'ant'}
NUM_ENVS = 8  # the default of the package's scripts


def shipped_options(alg, env_id):
    """The package's tuned options of an algorithm on a task, {} where it has none."""
    name = NAMES.get(env_id.removeprefix('seals/'))
    path = pathlib.Path(str(imitation.__file__)).parent / 'scripts' / 'config' / 'tuned_hps' / f'{alg}_seals_{name}_best_hp_eval.json'
    return jsonpickle.decode(path.read_text()) if path.exists() else {}


def replayed(env_id, npz):
    """(demonstrations, largest difference from what was recorded), played again from their seeds and actions.

    A file of trajectories lacks the observation after the last step, which imitation wants.
    """
    env, trajs, worst, start = gymnasium.make(env_id), [], 0.0, 0
    for seed, length in zip(npz['seeds'], npz['lengths'], strict=True):
        obs, acts, rewards = [env.reset(seed=int(seed))[0]], npz['a'][start : start + length], []
        acts = acts[:, 0] if isinstance(env.action_space, gymnasium.spaces.Discrete) else acts
        for a in acts:
            x, r, *_ = env.step(a)
            obs.append(x)
            rewards.append(r)
        worst = max(worst, np.abs(np.array(obs[:-1], dtype=np.float64) - npz['obs'][start : start + length]).max())
        trajs.append(TrajectoryWithRew(obs=np.array(obs), acts=acts, infos=None, terminal=True, rews=np.array(rewards, dtype=np.float64)))
        start += length
    return trajs, float(worst)


class Expert(BasePolicy):
    """Our expert: observations normalised, tanh layers, then Gaussian or categorical actions."""

    def __init__(self, npz, venv):
        super().__init__(venv.observation_space, venv.action_space)
        self.net, self.rng = npz, np.random.default_rng(0)

    def _predict(self, observation, deterministic=False):
        h = observation.numpy().astype(np.float64)
        if 'mean' in self.net:
            h = (h - self.net['mean']) / self.net['scale']
        num = int(self.net['num_layers'])
        for i in range(num):
            h = h @ self.net[f'W{i}'] + self.net[f'b{i}']
            h = np.tanh(h) if i < num - 1 else h
        if 'stdev' in self.net:
            return torch.as_tensor(h if deterministic else h + self.net['stdev'] * self.rng.standard_normal(h.shape))
        return torch.as_tensor((h if deterministic else h + self.rng.gumbel(size=h.shape)).argmax(axis=1))


def policy_of(options, venv):
    """A new policy for cloning."""
    chosen = options.get('policy', {})
    return chosen.get('policy_cls', FeedForward32Policy)(
        observation_space=venv.observation_space, action_space=venv.action_space, lr_schedule=lambda _: 1, **chosen.get('policy_kwargs', {})
    )


def cloner(options, venv, demos, rng, log):
    """(BC, its arguments of train())."""
    chosen = {'batch_size': 32, 'l2_weight': 3e-5, 'optimizer_kwargs': {'lr': 4e-4}, 'train_kwargs': {}} | options.get('bc', {})
    arguments = {k: v for k, v in chosen.items() if k not in ('train_kwargs', 'agent_path')}
    spaces = {'observation_space': venv.observation_space, 'action_space': venv.action_space}
    trainer = bc.BC(**spaces, policy=policy_of(options, venv), demonstrations=demos, rng=rng, custom_logger=log, **arguments)
    return trainer, {k: chosen['train_kwargs'].get(k) for k in ('n_epochs', 'n_batches')}


def train_bc(job, options, venv, demos, rng, log, play):
    trainer, how = cloner(options, venv, demos, rng, log)
    trainer.train(**how if any(how.values()) else {'n_batches': 50_000}, progress_bar=False)
    return trainer.policy, 0


def train_dagger(job, options, venv, demos, rng, log, play):
    trainer, how = cloner(options, venv, None, rng, log)
    chosen = options.get('dagger', {})
    runner = dagger.SimpleDAggerTrainer(
        venv=venv, scratch_dir=job['scratch'], expert_policy=Expert(np.load(job['expert']), venv), bc_trainer=trainer, rng=rng,
        expert_trajs=demos if chosen.get('use_offline_rollouts') else None, beta_schedule=chosen.get('beta_schedule'), custom_logger=log,
    )  # fmt: skip
    how = (how if any(how.values()) else {'n_epochs': 4}) | {'progress_bar': False}
    episodes = chosen.get('rollout_round_min_episodes') or 3
    runner.train(total_timesteps=job['steps'], rollout_round_min_episodes=episodes, bc_train_kwargs=how)
    return trainer.policy, sum(len(traj) for traj in runner._all_demos)


def train_adversarial(job, options, venv, demos, rng, log, play):
    trainer_cls, net_cls = {
        'gail': (gail.GAIL, reward_nets.BasicRewardNet),
        'airl': (airl.AIRL, reward_nets.BasicShapedRewardNet),
    }[job['algorithm']]
    default_rl = {'batch_size': 2048, 'rl_kwargs': {'learning_rate': 3e-4, 'batch_size': 64, 'n_epochs': 10, 'ent_coef': 0.0}}
    rl, reward, policy = options.get('rl', default_rl), options.get('reward', {}), options.get('policy', {})
    net = reward.get('net_cls', net_cls)(
        venv.observation_space, venv.action_space, **reward.get('net_kwargs', {'normalize_input_layer': networks.RunningNorm})
    )
    if reward.get('normalize_output_layer', networks.RunningNorm):
        net = reward_nets.NormalizedRewardNet(net, reward.get('normalize_output_layer', networks.RunningNorm))
    learner = PPO(
        policy.get('policy_cls', FeedForward32Policy), venv, policy_kwargs=dict(policy.get('policy_kwargs', {})), seed=job['seed'],
        n_steps=rl['batch_size'] // NUM_ENVS, device='cpu', **rl['rl_kwargs'],
    )  # fmt: skip
    chosen = {'demo_batch_size': 1024, 'n_disc_updates_per_round': 4, 'gen_replay_buffer_capacity': rl['batch_size']}
    chosen |= options.get('algorithm_kwargs', {})
    chosen['demo_batch_size'] = min(chosen['demo_batch_size'], sum(map(len, demos)))
    trainer = trainer_cls(venv=venv, demonstrations=demos, gen_algo=learner, reward_net=net, custom_logger=log, **chosen)
    trainer.train(job['steps'], callback=lambda _: play(trainer.policy, learner.num_timesteps))
    return trainer.policy, learner.num_timesteps


def returns_of(policy, env_id, seeds):
    """Deterministic returns, one episode for each seed of the environment."""
    env, returns = gymnasium.make(env_id), []
    for seed in seeds:
        (obs, _), total, over = env.reset(seed=seed), 0.0, False
        while not over:
            obs, r, terminated, truncated, _ = env.step(policy.predict(obs, deterministic=True)[0])
            total, over = total + float(r), terminated or truncated
        returns.append(total)
    return returns


class Curve:
    """Points of a learning curve: plays the first episodes after every so many environment steps, and knows the CPU seconds that cost."""

    def __init__(self, job, replaying):
        self.job, self.uncounted, self.points = job, replaying, []

    def seconds(self):
        """CPU seconds of the training so far, start of the program included."""
        return time.process_time() - self.uncounted

    def play(self, policy, steps):
        before = self.points[-1]['steps'] if self.points else 0
        if steps // self.job['every'] > before // self.job['every']:
            started, seconds = time.process_time(), self.seconds()
            returns = returns_of(policy, self.job['env'], self.job['eval_seeds'][: self.job['curve_episodes']])
            self.points.append({'steps': steps, 'cpu_seconds': seconds, 'returns': returns})
            self.uncounted += time.process_time() - started


def main(path):
    job = types.MappingProxyType(json.loads(pathlib.Path(path).read_text()))
    torch.set_num_threads(1)
    torch.manual_seed(job['seed'])
    rng, started = np.random.default_rng(job['seed']), time.process_time()
    demos, difference = replayed(job['env'], np.load(job['demonstrations']))
    curve = Curve(job, time.process_time() - started)
    options = shipped_options(job['algorithm'], job['env'])
    venv = util.make_vec_env(job['env'], rng=rng, n_envs=NUM_ENVS)
    train = {'bc': train_bc, 'dagger': train_dagger}.get(job['algorithm'], train_adversarial)
    policy, steps = train(job, options, venv, demos, rng, logger.configure(job['scratch'], format_strs=[]), curve.play)
    found = {'cpu_seconds': curve.seconds(), 'steps': steps, 'points': curve.points}
    found['returns'] = returns_of(policy, job['env'], job['eval_seeds'])
    pathlib.Path(job['out']).write_text(json.dumps(found | {'tuned': bool(options), 'difference': difference}))


if __name__ == '__main__':
    main(sys.argv[1])
