"""Small tasks with experts written by hand: a pendulum, a point on a plane, and the lunar lander with Gymnasium's own controller.

python -m examples.small_tasks FOLDER pendulum point          # writes FOLDER/trajs_pendulum.h5 and FOLDER/trajs_point.h5, ten episodes each
python -m examples.small_tasks FOLDER lander lander_continuous     # needs pip install 'gymnasium[box2d]'
"""

import sys
from pathlib import Path

import gymnasium
import numpy as np

import policyopt as po


class PointMass(gymnasium.Env):
    """A point with a position and a velocity on a plane, pushed by a force; the reward is minus its distance from the middle."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x_4 = np.concatenate([self.np_random.uniform(-1, 1, 2), np.zeros(2)])
        return self.x_4.astype(np.float32), {}

    def step(self, action):
        self.x_4[2:] += 0.1 * np.clip(action, -1, 1)
        self.x_4[:2] += 0.1 * self.x_4[2:]
        return self.x_4.astype(np.float32), -float(np.hypot(*self.x_4[:2])), False, False, {}


def drive(obs):
    """Pull the point to the middle, and damp its velocity."""
    return np.clip(-2 * obs[:2] - 2 * obs[2:], -1, 1)


def swing_up(obs):
    """Pump energy into the pendulum until it is nearly upright, then hold it there."""
    cos, sin, speed = obs
    missing = 5 * (1 - cos) - speed**2 / 6  # energy that the upright pendulum has more
    near = cos > 0.85 and abs(missing) < 1.5
    return np.clip([-16 * sin - 4 * speed if near else 3 * missing * (np.sign(speed) or 1)], -2, 2)


def land(env_name):
    """Gymnasium's controller of the lander."""
    from gymnasium.envs.box2d.lunar_lander import heuristic

    env = gymnasium.make(env_name).unwrapped  # says which kind of action the controller returns
    return lambda obs: heuristic(env, obs)


TASKS = {
    'pendulum': ('Pendulum-v1', lambda _: swing_up),
    'point': ('examples.small_tasks:PointMass-v0', lambda _: drive),
    'lander': ('LunarLander-v3', land),
    'lander_continuous': ('LunarLanderContinuous-v3', land),
}

if __name__ == '__main__':
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for task in sys.argv[2:]:
        env_name, controller = TASKS[task]
        demos = po.Demonstrations.record(controller(env_name), env_name, episodes=10, seed=1)
        demos.save(folder / f'trajs_{task}.h5')
        print(task, demos)
else:
    gymnasium.register('PointMass-v0', entry_point=PointMass, max_episode_steps=100)
