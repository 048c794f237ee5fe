"""The classic tasks and those of seals as numpy dynamics over many episodes at once, equal to the single environments bit for bit.

Letters: N slots of the VecEnv, K slots in one call, D state variables, Do observation dim, Da action storage dim.
States are stored variable by variable, `S_D_K`, so that each formula is a few operations on contiguous rows. At 25 slots a numpy
call costs its overhead only, so the number of calls is the run time, and a constant that is already an array (`const`) halves
the cost of a call. The order of operations is that of the single environments, since another rounds otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PI = np.pi


def const(*values: float) -> np.ndarray:
    """A number as a 0-d array, or several as a column, ready for use by a ufunc."""
    return np.array(values[0] if len(values) == 1 else [[v] for v in values], dtype=np.float64)


class VecEnv:
    """`num_slots` copies of one task, stepped together.

    | Symbol | Shape | |
    |---|---|---|
    | slots_K | (K,) int | which slots a call is about, each at most once |
    | seeds_K | (K,) int < 2³¹ | one environment seed per slot |
    | a_K_Da | (K, Da) | int64 (Da = 1) for finite actions, else float64, unclipped |
    | obs_K_Do | (K, Do) float64 | |
    | r_K, done_K | (K,) float64, bool | done: the episode is over |

    A slot that was reset with seed s gives exactly what a single environment gives after reset(s), up to the task's time limit.
    Where the dynamics are ours, the caller applies the time limit. A slot that is done must be reset before its next step.
    Returned arrays belong to the caller.
    """

    def __init__(self, num_slots: int):
        self.num_slots = self.available = num_slots  # available: how many of the slots can be played together

    def reset(self, slots_K: np.ndarray, seeds_K: Sequence[int]) -> np.ndarray:
        raise NotImplementedError

    def step(self, slots_K: np.ndarray, a_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise NotImplementedError

    def cut_short(self, slots_K: np.ndarray) -> np.ndarray:
        """Which slots their last step truncated before the task's time limit; by default none."""
        return np.zeros(len(slots_K), dtype=bool)

    def close(self) -> None:
        """Free what the environments hold; the default holds nothing."""


class ClassicVecEnv(VecEnv):
    """Slots as columns of one array; a task adds `start(rng)`, `advance(S_D_K, a_K)` and its observations."""

    state_dim: int
    obs_dtype: type = np.float32  # gymnasium's classic observations are float32; its inner state is float64

    def __init__(self, num_slots: int):
        super().__init__(num_slots)
        self._S_D_N = np.zeros((self.state_dim, num_slots))

    def start(self, rng: np.random.Generator) -> np.ndarray | tuple[float, ...]:
        """The D state variables after a reset, drawn exactly as the single environment draws them."""
        raise NotImplementedError

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move S_D_K one step in place; returns (r_K, terminated_K), both fresh."""
        raise NotImplementedError

    def reset(self, slots_K: np.ndarray, seeds_K: Sequence[int]) -> np.ndarray:
        for slot, seed in zip(slots_K, seeds_K, strict=True):
            self._S_D_N[:, slot] = self.start(np.random.Generator(np.random.PCG64(int(seed))))
        return self._observe(self._S_D_N[:, slots_K])

    def step(self, slots_K: np.ndarray, a_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        S_D_K = self._S_D_N.take(slots_K, axis=1)
        r_K, done_K = self.advance(S_D_K, a_K_Da[:, 0])
        self._S_D_N[:, slots_K] = S_D_K
        return self._observe(S_D_K), r_K, done_K

    def _observe(self, S_D_K: np.ndarray) -> np.ndarray:
        return S_D_K.T.astype(self.obs_dtype, order='C').astype(np.float64)


class CartPoleVec(ClassicVecEnv):
    """CartPole-v0 and -v1: state (x, ẋ, θ, θ̇), Euler steps of 0.02 s, over at |x| > 2.4 or |θ| > 12°, reward 1 a step.

    temp = (F + ml·θ̇²·sin θ)/M,  θ̈ = (g·sin θ − cos θ·temp)/(½·(4/3 − m·cos²θ/M)),  ẍ = temp − ml·θ̈·cos θ/M
    """

    state_dim = 4
    _FORCE_A = np.array([-10.0, 10.0])
    _G, _POLE_MASS, _MASS, _ML = const(9.8), const(0.1), const(0.1 + 1.0), const(0.1 * 0.5)
    _HALF, _FOUR_THIRDS, _DT = const(0.5), const(4.0 / 3.0), const(0.02)
    _BOUNDS_2_1 = const(2.4, 12 * 2 * PI / 360)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(low=-0.05, high=0.05, size=(4,))

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, x_dot, theta, theta_dot = S_D_K
        cos, sin = np.cos(theta), np.sin(theta)
        temp = (theta_dot * theta_dot * self._ML * sin + self._FORCE_A[a_K]) / self._MASS
        half_inertia = (self._FOUR_THIRDS - cos * cos * self._POLE_MASS / self._MASS) * self._HALF
        theta_acc = (sin * self._G - cos * temp) / half_inertia
        x_acc = temp - theta_acc * self._ML * cos / self._MASS
        S_D_K += np.array((x_dot, x_acc, theta_dot, theta_acc)) * self._DT
        out_2_K = np.abs(S_D_K[::2]) > self._BOUNDS_2_1
        return np.ones(len(a_K)), out_2_K[0] | out_2_K[1]


class MountainCarVec(ClassicVecEnv):
    """MountainCar-v0: state (position, velocity), reward −1 a step, over at position ≥ 0.5 with velocity ≥ 0.

    v ← clip(v + 0.001·(a − 1) − 0.0025·cos 3x, ±0.07),  x ← clip(x + v, −1.2, 0.6), and v = 0 against the left wall.
    """

    state_dim = 2
    _FORCE_A = np.array([-0.001, 0.0, 0.001])
    _THREE, _GRAVITY, _ZERO, _GOAL = const(3), const(-0.0025), const(0), const(0.5)
    _MIN_V, _MAX_V, _MIN_X, _MAX_X = const(-0.07), const(0.07), const(-1.2), const(0.6)

    def start(self, rng: np.random.Generator) -> tuple[float, float]:
        return rng.uniform(low=-0.6, high=-0.4), 0.0

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, v = S_D_K
        v += np.cos(x * self._THREE) * self._GRAVITY + self._FORCE_A[a_K]
        np.minimum(np.maximum(v, self._MIN_V), self._MAX_V, out=v)
        np.minimum(np.maximum(x + v, self._MIN_X), self._MAX_X, out=x)
        v[(x == self._MIN_X) & (v < self._ZERO)] = 0.0
        return np.full(len(a_K), -1.0), (x >= self._GOAL) & (v >= self._ZERO)


class LegacyAcrobotVec(ClassicVecEnv):
    """legacy/Acrobot-v0: state (q1, q2, v1, v2), which is the observation; one RK4 step of 0.2 s (see legacy.py)."""

    state_dim = 4
    obs_dtype = np.float64
    _TORQUE_A = np.array([-1.0, 0.0, 1.0])
    _HALF, _ONE, _TWO, _M11, _M22 = const(0.5), const(1), const(2), const(3.5), const(1.25)
    _SINES_3_1 = const(14.7, 0.5, 4.9)
    _DT, _HALF_DT, _SIXTH_DT = const(0.2), const(0.1), const(0.2 / 6.0)
    _MAX_V_2_1, _MIN_V_2_1 = const(4 * PI, 9 * PI), const(-4 * PI, -9 * PI)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(low=-0.1, high=0.1, size=(4,))

    def _derivative(self, S_D_K: np.ndarray, tau: np.ndarray) -> np.ndarray:
        """(v1, v2, a1, a2) as legacy.LegacyAcrobotEnv computes it, operation by operation up to signs, which cost no rounding."""
        q1, q2, v1, v2 = S_D_K
        g1, half_sin2, g2 = np.sin((q1, q2, q1 + q2)) * self._SINES_3_1
        cos2 = np.cos(q2)
        m11, m12 = cos2 + self._M11, cos2 * self._HALF + self._M22
        h1 = g1 - (v1 * self._TWO + v2) * (half_sin2 * v2) + g2
        h2 = v1 * v1 * half_sin2 + g2
        ratio = m12 / m11
        a2 = (tau - h2 + ratio * h1) / (self._M22 - ratio * m12)
        a1 = (m12 * a2 + h1) / m11
        return np.array((v1, v2, -a1, a2))

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tau = self._TORQUE_A[a_K]
        k1 = self._derivative(S_D_K, tau)
        k2 = self._derivative(k1 * self._HALF_DT + S_D_K, tau)
        k3 = self._derivative(k2 * self._HALF_DT + S_D_K, tau)
        k4 = self._derivative(k3 * self._DT + S_D_K, tau)
        S_D_K += (k1 + k2 * self._TWO + k3 * self._TWO + k4) * self._SIXTH_DT

        q_2_K, v_2_K = S_D_K[:2], S_D_K[2:]
        while np.maximum.reduce(np.abs(q_2_K), axis=None) > PI:  # one round, except for extremely fast spins
            over_2_K, under_2_K = q_2_K > PI, q_2_K < -PI
            q_2_K[over_2_K] -= 2 * PI
            q_2_K[under_2_K] += 2 * PI
        np.minimum(np.maximum(v_2_K, self._MIN_V_2_1), self._MAX_V_2_1, out=v_2_K)
        cos1, cos12 = np.cos((S_D_K[0], S_D_K[0] + S_D_K[1]))
        done_K = -cos1 - cos12 > self._ONE
        return done_K - 1.0, done_K


class SealsCartPoleVec(CartPoleVec):
    """seals/CartPole-v0: CartPole that never ends, θ kept in [−π, π), reward 1 where CartPole would not end and 0 elsewhere."""

    _PI, _TWO_PI = const(PI), const(2 * PI)

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        super().advance(S_D_K, a_K)
        S_D_K[2] = (S_D_K[2] + self._PI) % self._TWO_PI - self._PI
        within_2_K = np.abs(S_D_K[::2]) < self._BOUNDS_2_1
        return (within_2_K[0] & within_2_K[1]).astype(np.float64), np.zeros(len(a_K), dtype=bool)


class SealsMountainCarVec(MountainCarVec):
    """seals/MountainCar-v0: MountainCar whose goal absorbs: the state stays, the reward is 0 from the step after the arrival on."""

    def advance(self, S_D_K: np.ndarray, a_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        absorbed_K = (S_D_K[0] >= self._GOAL) & (S_D_K[1] >= self._ZERO)
        kept_D_K = S_D_K[:, absorbed_K]
        super().advance(S_D_K, a_K)
        S_D_K[:, absorbed_K] = kept_D_K
        return absorbed_K - 1.0, np.zeros(len(a_K), dtype=bool)
