"""The MuJoCo tasks of 2016 and of the package seals over many episodes at once, equal to the single environments bit for bit.

The engine's time cannot be saved, only the Python around it: per slot and step there are two calls into C (the motors'
commands and `mj_step`), everything else is numpy on the whole batch. Each slot has its own MjData; the numbers of all
are gathered by one `np.concatenate` over views into the engine's memory. The model and the random starts are those of one
single environment.
`mujoco.rollout` is not used: for one control step it is no faster, and it gives back neither the solver's warm start nor
what some observations read (body positions, contact forces, inertias), so results would differ from the single environment.

Letters: N slots of the VecEnv, K slots in one call, Q and V positions and velocities, X further numbers read after a
step, F = Q + V + X, Do observation dim, Da action dim.
"""

# mujoco is a compiled extension without stubs
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from policyopt.environments.classic_vec import VecEnv

State = tuple[np.ndarray, np.ndarray, np.ndarray]  # (qpos_K_Q, qvel_K_V, X_K_X)


class MujocoVecEnv(VecEnv):
    """Slots as MjData objects of one model; `env` is the single environment, unwrapped, which also starts every slot.

    A task adds what it reads in addition to qpos and qvel (`extras`, flat views into the engine's data), its observations and
    its reward.
    """

    contact_forces = False  # computed only where the task uses them

    def __init__(self, env: Any, num_slots: int):
        super().__init__(num_slots)
        self._env, self.model, self.dt = env, env.model, env.dt
        self._slots: list[Any] = [None] * num_slots  # (data, its ctrl, views of what is read), made when first needed
        sizes = np.cumsum([env.model.nq, env.model.nv])
        self._qpos, self._qvel, self._extra = slice(0, sizes[0]), slice(*sizes), slice(sizes[1], None)
        self._R_N_F = np.zeros((num_slots, sum(view.size for view in self._read(env.data))))

    def _read(self, data: Any) -> list[np.ndarray]:
        return [data.qpos, data.qvel, *self.extras(data)]

    def extras(self, data: Any) -> list[np.ndarray]:
        """Flat views of what is read after a step in addition to qpos and qvel."""
        return []

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return np.concatenate([qpos_K_Q, qvel_K_V], axis=1)

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(r_K, terminated_K) of a step with the controls u; before and after are (qpos_K_Q, qvel_K_V, X_K_X)."""
        raise NotImplementedError

    def _parts(self, R_K_F: np.ndarray) -> State:
        return R_K_F[:, self._qpos], R_K_F[:, self._qvel], R_K_F[:, self._extra]

    def reset(self, slots_K: np.ndarray, seeds_K: Sequence[int]) -> np.ndarray:
        for slot, seed in zip(slots_K, seeds_K, strict=True):
            if self._slots[slot] is None:
                data = mujoco.MjData(self.model)
                self._slots[slot] = data, data.ctrl, self._read(data)
            self._env.data = self._slots[slot][0]
            self._env.reset(seed=int(seed))
        self._R_N_F[slots_K] = R_K_F = self._gather(slots_K)
        return self.observe(*self._parts(R_K_F))

    def _gather(self, slots: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.concatenate([view for slot in slots for view in self._slots[slot][2]]).reshape(len(slots), -1)

    def step(self, slots_K: np.ndarray, a_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        slots_K = np.asarray(slots_K)
        slots = slots_K.tolist()
        u_K_Da = np.ascontiguousarray(a_K_Da, dtype=np.float64)
        model, frame_skip, mj_step = self.model, self._env.frame_skip, mujoco.mj_step
        for slot, u_Da in zip(slots, u_K_Da, strict=True):
            data, ctrl, _ = self._slots[slot]
            ctrl[:] = u_Da
            mj_step(model, data, frame_skip)
            if self.contact_forces:
                mujoco.mj_rnePostConstraint(model, data)
        before_K_F, after_K_F = self._R_N_F[slots_K], self._gather(slots)
        self._R_N_F[slots_K] = after_K_F
        after = self._parts(after_K_F)
        r_K, done_K = self.outcome(self._parts(before_K_F), after, u_K_Da)
        return self.observe(*after), r_K, done_K

    def close(self) -> None:
        self._env.close()


def _squares(x_K_Da: np.ndarray) -> np.ndarray:
    """Σ x² of every row, in the order in which numpy adds up a single row."""
    return np.add.reduce(np.square(x_K_Da), axis=1)


class RunnerVec(MujocoVecEnv):
    """legacy/ and seals/HalfCheetah-v1 and seals/Swimmer-v1: reward is the speed along x minus a control cost; always healthy.

    Subclasses add a bonus for being healthy, and may terminate when unhealthy. The environment, one of gymnasium's v4, sets the
    bonus, the termination, and whether the position along the ground is observed. In seals it is observed, and nothing terminates.
    """

    ground_dims = 1  # positions along the ground

    def __init__(self, env: Any, num_slots: int):
        self.contact_forces = getattr(env, '_use_contact_forces', False)
        super().__init__(env, num_slots)
        self._ends, self._bonus = getattr(env, '_terminate_when_unhealthy', False), getattr(env, '_healthy_reward', 0.0)
        self._first = self.ground_dims if env._exclude_current_positions_from_observation else 0

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return super().observe(qpos_K_Q[:, self._first :], qvel_K_V, X_K_X)

    def position(self, state: State) -> np.ndarray:
        """The x whose speed is the reward."""
        return state[0][:, 0]

    def healthy(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray) -> np.ndarray:
        return np.ones(len(qpos_K_Q), dtype=bool)

    def cost(self, u_K_Da: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return self._env._ctrl_cost_weight * _squares(u_K_Da)

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        speed_K, healthy_K = (self.position(after) - self.position(before)) / self.dt, self.healthy(*after[:2])
        has_bonus_K = healthy_K | self._ends  # where being unhealthy terminates, the last step has the bonus too
        return speed_K + has_bonus_K * self._bonus - self.cost(u_K_Da, after[2]), ~healthy_K & self._ends


HalfCheetahVec = SwimmerVec = RunnerVec


class HopperVec(RunnerVec):
    """legacy/ and seals/Hopper-v1: healthy while height > 0.7, |angle| < 0.2 and every other number is within ±100."""

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return super().observe(qpos_K_Q, qvel_K_V.clip(-10, 10), X_K_X)

    def healthy(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray) -> np.ndarray:
        fine_K = (np.abs(qpos_K_Q[:, 2:]) < 100).all(axis=1) & (np.abs(qvel_K_V) < 100).all(axis=1)
        return fine_K & (qpos_K_Q[:, 1] > 0.7) & (np.abs(qpos_K_Q[:, 2]) < 0.2)


class Walker2dVec(HopperVec):
    """legacy/ and seals/Walker2d-v1: healthy while the height is in (0.8, 2) and |angle| < 1."""

    def healthy(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray) -> np.ndarray:
        height_K = qpos_K_Q[:, 1]
        return (height_K > 0.8) & (height_K < 2.0) & (np.abs(qpos_K_Q[:, 2]) < 1.0)


class AntVec(RunnerVec):
    """legacy/ and seals/Ant-v1: healthy while the height is in [0.2, 1]. X holds the torso's position, then 84 contact forces (legacy/)."""

    ground_dims = 2

    def extras(self, data: Any) -> list[np.ndarray]:
        return [data.body('torso').xpos, *([data.cfrc_ext.reshape(-1)] if self.contact_forces else [])]

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return np.concatenate([super().observe(qpos_K_Q, qvel_K_V, X_K_X), X_K_X[:, 3:].clip(-1, 1)], axis=1)

    def position(self, state: State) -> np.ndarray:
        return state[2][:, 0]

    def healthy(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray) -> np.ndarray:
        finite_K = np.isfinite(qpos_K_Q).all(axis=1) & np.isfinite(qvel_K_V).all(axis=1)
        return finite_K & (qpos_K_Q[:, 2] >= 0.2) & (qpos_K_Q[:, 2] <= 1.0)

    def cost(self, u_K_Da: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return super().cost(u_K_Da, X_K_X) + self._env._contact_cost_weight * _squares(X_K_X[:, 3:].clip(-1, 1))


class ReacherVec(MujocoVecEnv):
    """legacy/Reacher-v1: X is fingertip and target, whose distance before the step is the cost; never over."""

    def extras(self, data: Any) -> list[np.ndarray]:
        first = data.body('fingertip').id
        assert data.body('target').id == first + 1
        return [data.xpos[first : first + 2].reshape(-1)]

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        angles_K_2 = qpos_K_Q[:, :2]
        parts = [np.cos(angles_K_2), np.sin(angles_K_2), qpos_K_Q[:, 2:], qvel_K_V[:, :2], X_K_X[:, :3] - X_K_X[:, 3:]]
        return np.concatenate(parts, axis=1)

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y, z = (before[2][:, :3] - before[2][:, 3:]).T
        return -np.sqrt(x * x + y * y + z * z) - _squares(u_K_Da), np.zeros(len(u_K_Da), dtype=bool)


class HumanoidVec(MujocoVecEnv):
    """legacy/Humanoid-v1: X is the bodies' centres, then what is observed; over unless the height is in (1, 2)."""

    contact_forces = True

    def extras(self, data: Any) -> list[np.ndarray]:
        observed = (data.cinert, data.cvel, data.qfrc_actuator, data.cfrc_ext)
        return [data.xipos.reshape(-1), *(x.reshape(-1) for x in observed)]

    def step(self, slots_K: np.ndarray, a_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return super().step(slots_K, np.clip(a_K_Da, *self.model.actuator_ctrlrange.T))

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        return np.concatenate([qpos_K_Q[:, 2:], qvel_K_V, X_K_X[:, 3 * self.model.nbody :]], axis=1)

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        qpos_K_Q, _, X_K_X = after
        speed_K = (self._center_x(X_K_X) - self._center_x(before[2])) / self.dt
        contact_K = np.minimum(self._env.CONTACT_COST * _squares(X_K_X[:, -6 * self.model.nbody :]), self._env.MAX_CONTACT_COST)
        alive_K = (qpos_K_Q[:, 2] > 1.0) & (qpos_K_Q[:, 2] < 2.0)
        return 1.25 * speed_K + 5.0 - 0.1 * _squares(u_K_Da) - contact_K, ~alive_K

    def _center_x(self, X_K_X: np.ndarray) -> np.ndarray:
        """The centre of mass along x, row by row in gymnasium's own order of additions."""
        mass_b = self.model.body_mass
        xipos_K_b_3 = X_K_X[:, : 3 * len(mass_b)].reshape(len(X_K_X), -1, 3)
        return np.array([np.einsum('b,bj->j', mass_b, xipos_b_3)[0] for xipos_b_3 in xipos_K_b_3]) / mass_b.sum()


class InvertedPendulumVec(MujocoVecEnv):
    """legacy/InvertedPendulum-v1: 1 a step; over at |angle| > 0.2 or when a number is not finite."""

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        obs_K_Do = self.observe(*after)
        return np.ones(len(u_K_Da)), ~np.isfinite(obs_K_Do).all(axis=1) | (np.abs(obs_K_Do[:, 1]) > 0.2)


class InvertedDoublePendulumVec(MujocoVecEnv):
    """legacy/InvertedDoublePendulum-v1: X is the tip's position and the constraint forces; over at height ≤ 1."""

    def extras(self, data: Any) -> list[np.ndarray]:
        return [data.site_xpos[0], data.qfrc_constraint]

    def observe(self, qpos_K_Q: np.ndarray, qvel_K_V: np.ndarray, X_K_X: np.ndarray) -> np.ndarray:
        angles_K_2 = qpos_K_Q[:, 1:]
        parts = [qpos_K_Q[:, :1], np.sin(angles_K_2), np.cos(angles_K_2), qvel_K_V.clip(-10, 10), X_K_X[:, 3:].clip(-10, 10)]
        return np.concatenate(parts, axis=1)

    def outcome(self, before: State, after: State, u_K_Da: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, qvel_K_V, X_K_X = after
        r_K = self._env.reward(X_K_X[:, 0], X_K_X[:, 2], qvel_K_V[:, 1], qvel_K_V[:, 2])
        return r_K, X_K_X[:, 2] <= 1
