"""The tasks of 2016 that gymnasium no longer has, registered under our own namespace: `legacy/Acrobot-v0`, `legacy/Hopper-v1`, …

Importing this module registers them; `mujoco` is needed only when one of the MuJoCo tasks is made.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.classic_control.acrobot import AcrobotEnv

NAMESPACE = 'legacy'
MUJOCO_TASKS = {
    'Hopper': 1000, 'Walker2d': 1000, 'HalfCheetah': 1000, 'Ant': 1000, 'Humanoid': 1000, 'Reacher': 50,
    'InvertedPendulum': 1000, 'InvertedDoublePendulum': 1000,
}  # fmt: skip


class LegacyAcrobotEnv(AcrobotEnv):
    """The acrobot as it was before August 2016: its state (q1, q2, v1, v2) is the observation, in float64.

    q1 is measured from hanging down, q2 relative to link 1. With c = cos q2, s = sin q2 and torque τ = action − 1:
    m11 = 3.5 + c, m12 = 1.25 + c/2, g2 = 4.9·sin(q1+q2), h1 = −½·s·v2·(v2+2v1) + 14.7·sin q1 + g2, h2 = ½·s·v1² + g2,
    a2 = (τ − h2 + (m12/m11)·h1)/(1.25 − m12²/m11), a1 = −(m12·a2 + h1)/m11; one RK4 step of 0.2 s, then angles are
    wrapped to [−π, π] and speeds clamped to 4π and 9π. Over when −cos q1 − cos(q1+q2) > 1; reward −1, 0 on that step.

    Original: gym's Acrobot-v0. Differs: nothing. Gymnasium's class only gives the picture (`render`).
    """

    DT = 0.2

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode)
        high = np.array([math.pi, math.pi, self.MAX_VEL_1, self.MAX_VEL_2])
        self.observation_space = gymnasium.spaces.Box(-high, high, dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.state = self.np_random.uniform(low=-0.1, high=0.1, size=(4,))
        return self.state.copy(), {}

    @staticmethod
    def _derivative(q1: float, q2: float, v1: float, v2: float, tau: float) -> np.ndarray:
        c, half_s = math.cos(q2), math.sin(q2) * 0.5
        m11, m12 = 3.5 + c, 1.25 + c * 0.5
        g2 = 4.9 * math.sin(q1 + q2)
        h1 = 14.7 * math.sin(q1) - (half_s * v2) * (v2 + 2 * v1) + g2
        h2 = half_s * (v1 * v1) + g2
        ratio = m12 / m11
        a2 = ((tau - h2) + ratio * h1) / (1.25 - ratio * m12)
        a1 = -(m12 * a2 + h1) / m11
        return np.array((v1, v2, a1, a2))

    def step(self, a: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        tau = float(a) - 1
        y = self.state
        k1 = self._derivative(*y.tolist(), tau)
        k2 = self._derivative(*(y + self.DT / 2 * k1).tolist(), tau)
        k3 = self._derivative(*(y + self.DT / 2 * k2).tolist(), tau)
        k4 = self._derivative(*(y + self.DT * k3).tolist(), tau)
        q1, q2, v1, v2 = (y + self.DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)).tolist()
        q1, q2 = self._wrap(q1), self._wrap(q2)
        v1 = min(max(v1, -self.MAX_VEL_1), self.MAX_VEL_1)
        v2 = min(max(v2, -self.MAX_VEL_2), self.MAX_VEL_2)
        self.state = np.array((q1, q2, v1, v2))
        terminated = -math.cos(q1) - math.cos(q1 + q2) > 1
        return self.state.copy(), 0.0 if terminated else -1.0, terminated, False, {}

    @staticmethod
    def _wrap(angle: float) -> float:
        while angle > math.pi:
            angle -= 2 * math.pi
        while angle < -math.pi:
            angle += 2 * math.pi
        return angle


def mujoco_entry_point(task: str) -> str:
    return f'policyopt.environments.legacy_mujoco:Legacy{task}Env'


gymnasium.register(f'{NAMESPACE}/Acrobot-v0', 'policyopt.environments.legacy:LegacyAcrobotEnv', max_episode_steps=200)
for task, time_limit in MUJOCO_TASKS.items():
    gymnasium.register(f'{NAMESPACE}/{task}-v1', mujoco_entry_point(task), max_episode_steps=time_limit)
