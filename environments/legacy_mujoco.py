"""The MuJoCo tasks of 2016 on today's engine: gymnasium's v4 classes on restored bodies.

Two silent changes of the engine are undone on the compiled model, decided by what the installed engine does (`Engine`),
not by its version number:

1. Capsule inertia. A capsule of radius r and length L now weighs what a capsule weighs. Until MuJoCo 2.1.2 it weighed
   like a cylinder of radius r and length L + r, which is lighter: π r² (L + r) instead of π r² (L + 4/3 r).
2. Contact margin. A contact now begins at the sum of both geoms' margins; until MuJoCo 3.5.0 it was their maximum.

Original: gym's v1 tasks on MuJoCo 1.31. Differs: nothing that the experts of 2016 can feel.
"""

# mujoco is a compiled extension without stubs; the mixin is used with gymnasium's classes only
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import functools
import math
import typing
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv
from gymnasium.envs.mujoco.inverted_double_pendulum_v4 import InvertedDoublePendulumEnv
from gymnasium.envs.mujoco.inverted_pendulum_v4 import InvertedPendulumEnv
from gymnasium.envs.mujoco.reacher_v4 import ReacherEnv
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv

CAPSULE, SPHERE, CYLINDER = (int(t) for t in (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CYLINDER))


class Engine(typing.NamedTuple):
    """What the installed engine does today: are capsules weighed exactly, and are two margins added?"""

    exact_capsules: bool
    margins_add: bool


@functools.cache
def engine() -> Engine:
    """The Engine, found by compiling a lone capsule and two spheres whose margins reach each other only when added."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody>'
        '<body><freejoint/><geom type="capsule" size="1 1" density="1"/></body>'
        '<body pos="9 0 0"><freejoint/><geom size="1" margin="1"/></body>'
        '<body pos="12.5 0 0"><freejoint/><geom size="1" margin="1"/></body>'
        '</worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return Engine(exact_capsules=bool(np.isclose(model.body_mass[1], math.pi * (2 + 4 / 3))), margins_add=data.ncon == 1)


def _volume_and_inertia(geom_type: int, size: np.ndarray, as_in_2016: bool) -> tuple[float, np.ndarray]:
    """Volume and moments of inertia (unit density, the geom's own axes) of a solid sphere, cylinder or capsule."""
    r = size[0]
    if geom_type == SPHERE:
        volume = 4 / 3 * math.pi * r**3
        return volume, np.full(3, 2 / 5 * volume * r**2)
    if geom_type not in (CAPSULE, CYLINDER):
        raise ValueError(f'a geom of type {geom_type} in a moving body: only spheres, cylinders and capsules are known here')
    length = 2 * size[1]
    if geom_type == CAPSULE and as_in_2016:
        length += r
    tube = math.pi * r**2 * length
    across, along = tube * (r**2 / 4 + length**2 / 12), tube * r**2 / 2
    if geom_type == CAPSULE and not as_in_2016:
        ball = 4 / 3 * math.pi * r**3
        across += ball * (2 / 5 * r**2 + 3 / 8 * r * length + length**2 / 4)
        along += ball * 2 / 5 * r**2
        tube += ball
    return tube, np.array([across, across, along])


def _rotation(quat: np.ndarray) -> np.ndarray:
    mat = np.empty(9)
    mujoco.mju_quat2Mat(mat, quat)
    return mat.reshape(3, 3)


def body_inertia(model: Any, body: int, as_in_2016: bool) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """(mass, ipos, inertia, iquat) of a body from its geoms, at the density that its compiled mass implies.

    Parallel axes: I = Σ_g [R_g diag(I_g) R_gᵀ + m_g (|d_g|² 1 − d_g d_gᵀ)], d_g from the body's centre of mass.
    `as_in_2016` False gives what an engine with exact capsules has compiled (the tests compare).
    """
    geoms = np.flatnonzero(model.geom_bodyid == body)
    exact_volume = sum(_volume_and_inertia(model.geom_type[g], model.geom_size[g], False)[0] for g in geoms)
    density = model.body_mass[body] / exact_volume
    parts = [_volume_and_inertia(model.geom_type[g], model.geom_size[g], as_in_2016) for g in geoms]
    mass_G = density * np.array([volume for volume, _ in parts])
    if len(geoms) == 1:
        g = geoms[0]
        return mass_G[0], model.geom_pos[g].copy(), density * parts[0][1], model.geom_quat[g].copy()
    ipos = mass_G @ model.geom_pos[geoms] / mass_G.sum()
    total = np.zeros((3, 3))
    for g, mass, (_, inertia) in zip(geoms, mass_G, parts, strict=True):
        R, d = _rotation(model.geom_quat[g]), model.geom_pos[g] - ipos
        total += R @ np.diag(density * inertia) @ R.T + mass * (d @ d * np.eye(3) - np.outer(d, d))
    inertia, axes, iquat = np.empty(3), np.empty(9), np.empty(4)
    mujoco.mju_eig3(inertia, axes, iquat, total.reshape(9))
    return mass_G.sum(), ipos, inertia, iquat


def restore_2016(model: Any, total_mass: float | None = None) -> None:
    """Give a compiled model the capsules and contact margins of 2016, in place; rescale to total_mass if given."""
    if engine().exact_capsules:
        for body in range(1, model.nbody):
            if CAPSULE in model.geom_type[model.geom_bodyid == body]:
                mass, ipos, inertia, iquat = body_inertia(model, body, as_in_2016=True)
                model.body_mass[body], model.body_ipos[body] = mass, ipos
                model.body_inertia[body], model.body_iquat[body] = inertia, iquat
    if engine().margins_add:
        model.geom_margin *= 0.5  # all geoms of these models have the same margin: half + half is their maximum
    if total_mass is not None:
        mujoco.mj_setTotalmass(model, total_mass)
    mujoco.mj_setConst(model, mujoco.MjData(model))


class _Restored:
    """Mixin before a v4 class: restores its model before anything else uses it."""

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model, data = super()._initialize_simulation()
        restore_2016(model)
        mujoco.mj_resetData(model, data)
        return model, data


class LegacyHopperEnv(_Restored, HopperEnv):
    """Hopper-v1: 11 observations, reward ẋ + 1 − 10⁻³|a|², over when it falls; mass and margin restored."""


class LegacyWalker2dEnv(_Restored, Walker2dEnv):
    """Walker2d-v1: 17 observations, reward ẋ + 1 − 10⁻³|a|², over when it falls; mass restored."""


class LegacyHalfCheetahEnv(_Restored, HalfCheetahEnv):
    """HalfCheetah-v1: 17 observations, reward ẋ − 0.1|a|², never over; distribution of its 14 kg restored.

    The file asks for `settotalmass`, which today's engine complains about on stderr and in a MUJOCO_LOG.TXT in the
    working folder; the rescaling is done here instead, on the restored bodies.
    """

    def _initialize_simulation(self) -> tuple[Any, Any]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        spec.compiler.settotalmass = -1
        model = spec.compile()
        restore_2016(model, total_mass=14)
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)


class LegacyAntEnv(_Restored, AntEnv):
    """Ant-v1: 111 observations, 84 of them contact forces clipped to ±1; mass and margin restored.

    Reward ẋ + 1 − ½|a|² − ½·10⁻³ Σ clip(cfrc, ±1)²; over when the torso leaves [0.2, 1].
    """

    def __init__(self, **kwargs: Any):
        super().__init__(use_contact_forces=True, **kwargs)
        gymnasium.utils.EzPickle.__init__(self, **kwargs)  # AntEnv notes its own arguments, which are not ours


class LegacyReacherEnv(_Restored, ReacherEnv):
    """Reacher-v1: 11 observations, reward −|fingertip − target| − |a|², both from before the step; mass restored.

    The goal is uniform on the whole square [−0.2, 0.2]² (the disc is from 2019).
    """

    def step(self, a: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        d = self.get_body_com('fingertip') - self.get_body_com('target')
        # not v4's norm, whose sum is rounded differently from that of a whole batch
        r = -math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) - np.square(a).sum()
        self.do_simulation(a, self.frame_skip)
        if self.render_mode == 'human':
            self.render()
        return self._get_obs(), r, False, False, {}

    def reset_model(self) -> np.ndarray:
        qpos = self.np_random.uniform(-0.1, 0.1, self.model.nq) + self.init_qpos
        self.goal = qpos[-2:] = self.np_random.uniform(-0.2, 0.2, 2)
        qvel = self.init_qvel + self.np_random.uniform(-0.005, 0.005, self.model.nv)
        qvel[-2:] = 0
        self.set_state(qpos, qvel)
        return self._get_obs()


class LegacyHumanoidEnv(_Restored, HumanoidEnv):
    """Humanoid-v1: 376 observations; mass, margin and the left hip's −120° restored.

    Reward 1.25·v_x + 5 − 0.1|u|² − min(5·10⁻⁷ Σ cfrc², 10) with u = clip(a, ±0.4); over when the torso leaves (1, 2).
    """

    CONTACT_COST, MAX_CONTACT_COST = 5e-7, 10.0

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model, data = super()._initialize_simulation()
        model.joint('left_hip_y').range[0] = math.radians(-120)
        return model, data

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        bound = self.model.actuator_ctrlrange
        obs, r, terminated, truncated, info = super().step(np.clip(action, bound[:, 0], bound[:, 1]))
        cost = min(self.CONTACT_COST * np.square(self.data.cfrc_ext).sum(), self.MAX_CONTACT_COST)
        return obs, r - cost, terminated, truncated, info


class LegacyInvertedPendulumEnv(_Restored, InvertedPendulumEnv):
    """InvertedPendulum-v1: 4 observations, reward 1, over at |θ| > 0.2; mass restored, the motor's force unlimited."""

    def _initialize_simulation(self) -> tuple[Any, Any]:
        model, data = super()._initialize_simulation()
        model.actuator_ctrllimited[:] = 0
        return model, data


class LegacyInvertedDoublePendulumEnv(_Restored, InvertedDoublePendulumEnv):
    """InvertedDoublePendulum-v1: 11 observations; mass restored.

    Reward 10 − (0.01 x² + (y − 2)²) − (10⁻³ v1² + 5·10⁻³ v2²) at the tip (x, y); over when y ≤ 1.
    """

    @staticmethod
    def reward(x: Any, y: Any, v1: Any, v2: Any) -> Any:
        # products, because a power of a single number is rounded differently from an array's
        return 10 - (0.01 * (x * x) + (y - 2) * (y - 2)) - (1e-3 * (v1 * v1) + 5e-3 * (v2 * v2))

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, _, terminated, truncated, info = super().step(action)
        x, _, y = self.data.site_xpos[0]
        return obs, self.reward(x, y, *self.data.qvel[1:3]), terminated, truncated, info
