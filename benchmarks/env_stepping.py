"""Closed-loop environment steps per second on one core: raw engine, one environment at a time, and our batched slots.

For every task one stochastic policy (100-100 tanh, action noise --std) acts
  raw   mj_step alone, replaying the very controls of the batched run from the same seeds: the floor (MuJoCo tasks only)
  gym   policy on one observation, then gymnasium's step, resets included
  vec   policy on all slots, then VecEnv.step, resets included
  roll  as raw, but by mujoco.rollout, one call per control step for the episodes that still run: what the VecEnv could use instead
in turn, --repeat times; the best CPU time counts. Example:

  python benchmarks/env_stepping.py --tasks legacy/Hopper-v1 legacy/HalfCheetah-v1 --std 0.3 --json stepping.json
"""
# MuJoCo's compiled parts have no types
# pyright: reportAttributeAccessIssue=false

import argparse
import json
import os
import platform
import sys
import time
from typing import Any

os.environ.update(OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1')
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np

from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env
from policyopt.errors import UserError

TASKS = ['CartPole-v0', 'MountainCar-v0', 'legacy/Acrobot-v0', *(f'legacy/{task}-v1' for task in (
    'Hopper', 'Walker2d', 'HalfCheetah', 'Ant', 'Humanoid', 'Reacher', 'InvertedPendulum', 'InvertedDoublePendulum'))]  # fmt: skip
SEALS = ['CartPole-v0', 'MountainCar-v0', 'Swimmer-v1', 'Hopper-v1', 'HalfCheetah-v1', 'Walker2d-v1', 'Ant-v1']
TASKS += [f'seals:seals/{task}' for task in SEALS]  # left out, in a sentence each, where the package is not installed


def policy(info, std, rng):
    sizes = [info.obs_dim, 100, 100, info.num_actions or info.a_dim]
    W1, W2, W3 = (rng.normal(0, 0.1, (i, j)) for i, j in zip(sizes, sizes[1:], strict=False))

    def act(obs_K_Do):
        out = np.tanh(np.tanh(obs_K_Do @ W1) @ W2) @ W3
        if info.finite:
            return (out + rng.gumbel(size=out.shape)).argmax(axis=1)[:, None]
        return 0.1 * out + std * rng.standard_normal(out.shape)

    return act


def run_vec(info, vec, act, num_steps, rng):
    """CPU seconds of the batched loop, and the episodes (seed, actions) that it ran."""
    K = vec.num_slots
    slots_K, seeds_K, taken = np.arange(K), rng.integers(2**31, size=K), []
    t_K = np.zeros(K, dtype=int)
    starts = [(0, k, int(s)) for k, s in enumerate(seeds_K)]
    start = time.process_time()
    obs_K_Do = vec.reset(slots_K, seeds_K)
    for t in range(num_steps // K):
        a_K_Da = act(obs_K_Do)
        taken.append(a_K_Da)
        obs_K_Do, _, done_K = vec.step(slots_K, a_K_Da)
        t_K += 1
        done_K |= t_K == info.time_limit
        if done_K.any():
            ended = slots_K[done_K]
            seeds = rng.integers(2**31, size=len(ended))
            obs_K_Do[ended], t_K[ended] = vec.reset(ended, seeds), 0
            starts += [(t + 1, k, s) for k, s in zip(ended.tolist(), seeds.tolist(), strict=True)]
    seconds = time.process_time() - start
    a_T_K_Da = np.array(taken)
    ends = {}
    episodes = []
    for t, k, seed in reversed(starts):
        episodes.append((seed, a_T_K_Da[t : ends.get(k, len(taken)), k]))
        ends[k] = t
    return seconds, episodes


def run_gym(env, act, num_steps, rng):
    start, obs_Do = time.process_time(), env.reset(seed=0)[0]
    for _ in range(num_steps):
        a_Da = act(obs_Do[None].astype(np.float64))[0]
        obs_Do, _, terminated, truncated, _ = env.step(int(a_Da[0]) if a_Da.dtype == np.int64 else a_Da)
        if terminated or truncated:
            obs_Do = env.reset(seed=int(rng.integers(2**31)))[0]
    return time.process_time() - start


def run_raw(env, episodes):
    import mujoco

    env, seconds = env.unwrapped, 0.0
    model, data, ctrl, frame_skip = env.model, env.data, env.data.ctrl, env.frame_skip
    for seed, a_T_Da in episodes:
        env.reset(seed=seed)
        start = time.process_time()
        for a_Da in a_T_Da:
            ctrl[:] = a_Da
            mujoco.mj_step(model, data, frame_skip)
        seconds += time.process_time() - start
    return seconds


def run_rollout(env, episodes):
    import mujoco
    from mujoco import rollout

    env = env.unwrapped
    model, what = env.model, mujoco.mjtState.mjSTATE_FULLPHYSICS
    episodes = sorted(episodes, key=lambda episode: -len(episode[1]))
    state_K_S = np.empty((len(episodes), mujoco.mj_stateSize(model, what)))
    for (seed, _), state_S in zip(episodes, state_K_S, strict=True):
        env.reset(seed=seed)
        mujoco.mj_getState(model, env.data, state_S, what)
    seconds, scratch = 0.0, [mujoco.MjData(model)]
    with rollout.Rollout(nthread=0) as engine:
        for t in range(len(episodes[0][1])):
            u_K_Da = np.array([a_T_Da[t] for _, a_T_Da in episodes if len(a_T_Da) > t])
            start = time.process_time()
            u_K_F_Da = np.repeat(u_K_Da[:, None], env.frame_skip, axis=1)
            states: Any = engine.rollout([model] * len(u_K_Da), scratch, state_K_S[: len(u_K_Da)], u_K_F_Da)[0]
            state_K_S = states[:, -1]
            seconds += time.process_time() - start
    return seconds


def measure(name, args):
    info, rng = env_info(name), np.random.default_rng(args.seed)
    act, vec, env = policy(info, args.std, rng), make_vec_env(name, args.slots), SingleEnv(name).env
    num_steps = args.steps // args.slots * args.slots
    rates = {'raw': 0.0, 'gym': 0.0, 'vec': 0.0, 'roll': 0.0}
    for _ in range(args.repeat):
        seconds, episodes = run_vec(info, vec, act, num_steps, rng)
        rates['vec'] = max(rates['vec'], num_steps / seconds)
        rates['gym'] = max(rates['gym'], num_steps / 4 / run_gym(env, act, num_steps // 4, rng))
        if hasattr(env.unwrapped, 'model'):
            rates['raw'] = max(rates['raw'], num_steps / run_raw(env, episodes))
            rates['roll'] = max(rates['roll'], num_steps / run_rollout(env, episodes))
    return {'task': name, 'episode_length': num_steps / len(episodes), **rates}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tasks', nargs='+', default=TASKS)
    parser.add_argument('--slots', type=int, default=32)
    parser.add_argument('--steps', type=int, default=6400, help='per task and repetition')
    parser.add_argument('--std', type=float, default=0.3, help="the policy's noise; 1 is an untrained policy, whose episodes are short")
    parser.add_argument('--repeat', type=int, default=5)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', help='also write the figures to this file')
    args = parser.parse_args()
    rows = []
    print(f'{"steps/s on one core":34s} {"raw":>9s} {"gym":>9s} {"vec":>9s}  vec/raw  vec/gym  roll/raw  mean length')
    for name in args.tasks:
        try:
            row = measure(name, args)
        except UserError as e:
            print(e, file=sys.stderr)
            continue
        rows.append(row)
        share, roll = (f'{row[k] / row["raw"]:7.0%}' if row['raw'] else '      -' for k in ('vec', 'roll'))
        raw, gym, vec = (f'{row[k]:9.0f}' for k in ('raw', 'gym', 'vec'))
        print(f'{name:34s} {raw} {gym} {vec}  {share}  {row["vec"] / row["gym"]:7.1f}  {roll}  {row["episode_length"]:12.0f}', flush=True)
    if args.json:
        with open(args.json, 'w') as f:
            json.dump({'python': platform.python_version(), 'numpy': np.__version__, 'args': vars(args), 'rows': rows}, f, indent=1)


if __name__ == '__main__':
    main()
