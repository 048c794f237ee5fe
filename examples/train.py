"""Record a hand-written CartPole controller and imitate it: python train.py"""
import gymnasium as gym
import numpy as np

import policyopt as po

env, episodes = gym.make('CartPole-v1', max_episode_steps=100), []
for seed in range(4):
    (obs, _), done, pairs = env.reset(seed=seed), False, []
    while not done:
        action = int(obs[2] + obs[3] > 0)  # push the cart to where the pole falls
        pairs.append((obs, action))
        obs, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    episodes.append([np.array(x) for x in zip(*pairs, strict=True)])
demos = po.Demonstrations.from_arrays(obs=[o for o, _ in episodes], actions=[a for _, a in episodes])
run = po.train('ga', env, demos, iterations=30, seed=0, min_total_sa=1000)
print(run, po.evaluate(run.policy, env, episodes=5).lengths)
