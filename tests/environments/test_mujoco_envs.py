"""The MuJoCo tasks of 2016: restored bodies, contacts, rewards and starts, and the batched slots against single environments."""

import math
import os
import pickle
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from conftest import script_env

mujoco = pytest.importorskip('mujoco', reason='mujoco is not installed (pip install -e .[mujoco])')

from policyopt.environments import legacy_mujoco, mujoco_vec, rlgymenv  # noqa: E402
from policyopt.environments.legacy import MUJOCO_TASKS  # noqa: E402
from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env  # noqa: E402
from policyopt.sampling.actors import RandomActor  # noqa: E402
from policyopt.sampling.mdp import MDP, sample_batch, sample_randomly  # noqa: E402
from policyopt.sampling.rollout import SimConfig  # noqa: E402

pytestmark = pytest.mark.mujoco

TASKS = list(MUJOCO_TASKS)
OBS_DIMS = {'Hopper': 11, 'Walker2d': 17, 'HalfCheetah': 17, 'Ant': 111, 'Humanoid': 376, 'Reacher': 11,
            'InvertedPendulum': 4, 'InvertedDoublePendulum': 11}  # fmt: skip
# what a body of gym's own models weighed before MuJoCo 2.1.2
BODY_MASSES = {
    'Hopper': [3.53429174, 3.92699082, 2.71433605, 5.0893801],
    'Walker2d': [3.53429174, 3.92699082, 2.71433605, 2.94053072, 3.92699082, 2.71433605, 2.94053072],
    'HalfCheetah': [6.36031332, 1.53524804, 1.58093995, 1.0691906, 1.42558747, 1.17885117, 0.84986945],
    'Humanoid': [8.32207894, 2.03575204, 5.85278711, *[4.52555626, 2.63249442, 1.76714587] * 2, *[1.59405984, 1.19834313] * 2],
}
TOTAL_MASSES = {'Hopper': 15.265, 'Walker2d': 22.698, 'HalfCheetah': 14.0, 'Ant': 0.879, 'Humanoid': 39.65,
                'InvertedPendulum': 14.32, 'InvertedDoublePendulum': 17.63}  # fmt: skip


def single(task, name='legacy/{}-v1'):
    """The bare environment of a task, without gymnasium's wrappers."""
    return SingleEnv(name.format(task)).env.unwrapped


def actions(env, num_steps, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=(num_steps, env.model.nu)) * scale


# ---- bodies


@pytest.mark.parametrize('task, total', TOTAL_MASSES.items())
def test_total_mass_is_that_of_2016(task, total):
    model = single(task).model
    assert model.body_mass.sum() == pytest.approx(total, abs=0.5 * 10 ** -len(str(total).partition('.')[2]) + 1e-9)
    np.testing.assert_allclose(model.body_subtreemass[0], model.body_mass.sum(), rtol=1e-12)


@pytest.mark.parametrize('task, masses', BODY_MASSES.items())
def test_every_body_weighs_what_it_weighed_in_2016(task, masses):
    np.testing.assert_allclose(single(task).model.body_mass[1:], masses, rtol=0, atol=1e-8)


def test_a_capsule_has_the_inertia_of_a_cylinder_longer_by_one_radius():
    model = single('Hopper').model
    for body, r, length in ((1, 0.05, 0.4), (2, 0.05, 0.45), (3, 0.04, 0.5), (4, 0.06, 0.39)):
        length += r
        mass = 1000 * math.pi * r**2 * length
        across = mass * (3 * r**2 + length**2) / 12
        np.testing.assert_allclose(model.body_mass[body], mass, rtol=1e-12)
        np.testing.assert_allclose(model.body_inertia[body], [across, across, mass * r**2 / 2], rtol=1e-12)


def test_several_geoms_in_a_body_are_summed_about_their_common_centre():
    """The Humanoid's torso, summed over a cloud of points; two cylinders and a sphere."""
    model = single('Humanoid').model
    body = model.body('torso').id
    num, points, weights = 60, [], []
    for g in np.flatnonzero(model.geom_bodyid == body):
        r, half = model.geom_size[g][0], model.geom_size[g][1]
        is_ball = model.geom_type[g] == legacy_mujoco.SPHERE
        half = r if is_ball else half + r / 2
        grid = [(np.arange(num) + 0.5) / num * 2 - 1] * 3
        xyz = np.stack(np.meshgrid(*grid, indexing='ij'), axis=-1).reshape(-1, 3) * [r, r, half]
        inside = (xyz**2).sum(axis=1) < r**2 if is_ball else (xyz[:, :2] ** 2).sum(axis=1) < r**2
        volume = 4 / 3 * math.pi * r**3 if is_ball else 2 * half * math.pi * r**2
        rotation = legacy_mujoco._rotation(model.geom_quat[g])
        points.append(xyz[inside] @ rotation.T + model.geom_pos[g])
        weights.append(np.full(inside.sum(), 1000 * volume / inside.sum()))
    x, w = np.concatenate(points), np.concatenate(weights)
    centre = w @ x / w.sum()
    d = x - centre
    total = (w @ (d**2).sum(axis=1)) * np.eye(3) - (w[:, None] * d).T @ d
    axes = legacy_mujoco._rotation(model.body_iquat[body])
    np.testing.assert_allclose(model.body_mass[body], w.sum(), rtol=1e-12)
    np.testing.assert_allclose(model.body_ipos[body], centre, atol=1e-12)
    np.testing.assert_allclose(axes @ np.diag(model.body_inertia[body]) @ axes.T, total, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize('task', [t for t in TASKS if t != 'HalfCheetah'])
def test_our_sum_over_geoms_is_the_compilers_where_nothing_is_changed(task):
    if not legacy_mujoco.engine().exact_capsules:
        pytest.skip('this mujoco compiles capsules as in 2016')
    plain = mujoco.MjModel.from_xml_path(single(task).fullpath)
    for body in range(1, plain.nbody):
        if (plain.geom_bodyid == body).any():
            mass, ipos, inertia, iquat = legacy_mujoco.body_inertia(plain, body, as_in_2016=False)
            ours, theirs = legacy_mujoco._rotation(iquat), legacy_mujoco._rotation(plain.body_iquat[body])
            np.testing.assert_allclose(mass, plain.body_mass[body], rtol=1e-12)
            np.testing.assert_allclose(ipos, plain.body_ipos[body], atol=1e-14)
            np.testing.assert_allclose(
                ours @ np.diag(inertia) @ ours.T, theirs @ np.diag(plain.body_inertia[body]) @ theirs.T, rtol=1e-9, atol=1e-14
            )


@pytest.mark.parametrize('task, margin', [('Hopper', 0.001), ('Ant', 0.01), ('Humanoid', 0.001)])
def test_a_contact_begins_at_the_larger_of_two_margins(task, margin):
    env = single(task)
    model, data = env.model, env.data
    height = 1 if task == 'Hopper' else 2
    farthest = 0.0
    for lift in np.arange(-0.6 if task == 'Ant' else -0.2, 0.2, margin / 50):
        data.qpos[:] = env.init_qpos
        data.qpos[height] += lift
        mujoco.mj_fwdPosition(model, data)
        floor = [c.dist for c in data.contact if 0 in (model.geom_bodyid[c.geom1], model.geom_bodyid[c.geom2])]
        if floor:
            farthest = max(farthest, min(floor))
    assert 0.97 * margin < farthest <= margin


@pytest.mark.parametrize('exact_capsules', [False, True])
@pytest.mark.parametrize('margins_add', [False, True])
def test_only_what_the_engine_does_otherwise_today_is_undone(exact_capsules, margins_add, monkeypatch):
    """Whatever engine is installed: an engine as in 2016 is left alone, both changes are undone where they are."""
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="plane" size="1 1 1" margin=".1"/>'
        '<body><freejoint/><geom type="capsule" size=".5 1" margin=".1"/></body></worldbody></mujoco>'
    )
    mass = model.body_mass[1]
    monkeypatch.setattr(legacy_mujoco, 'engine', lambda: legacy_mujoco.Engine(exact_capsules, margins_add))
    legacy_mujoco.restore_2016(model)
    np.testing.assert_allclose(model.geom_margin, 0.05 if margins_add else 0.1)
    np.testing.assert_allclose(model.body_mass[1] / mass, (2 + 0.5) / (2 + 4 / 3 * 0.5) if exact_capsules else 1)


def test_half_cheetah_is_rescaled_from_the_masses_of_its_own_density(monkeypatch):
    """Not by the file's settotalmass, of which newer engines complain."""
    compiled, restore = [], legacy_mujoco.restore_2016

    def spy(model, total_mass=None):
        compiled.append(model.body_mass.sum())
        restore(model, total_mass)

    monkeypatch.setattr(legacy_mujoco, 'restore_2016', spy)
    model = single('HalfCheetah').model
    assert abs(compiled[0] - 14) > 1 and model.body_mass.sum() == pytest.approx(14, rel=1e-12)


def test_half_cheetah_is_rescaled_without_a_word(tmp_path):
    """No deprecation line, no MUJOCO_LOG.TXT, in any task, even with warnings as errors."""
    code = f"""if True:
        import numpy as np
        from policyopt.environments.rlgymenv import SingleEnv, make_vec_env
        for task in {TASKS}:
            env, vec = SingleEnv(f'legacy/{{task}}-v1'), make_vec_env(f'legacy/{{task}}-v1', 2)
            env.reset(0), vec.reset(np.arange(2), np.arange(2))
            for t in range(20):
                a_2_Da = 100 * np.ones((2, env.info.a_dim))
                env.step(a_2_Da[0]), vec.step(np.arange(2), a_2_Da)
            env.close(), vec.close()
    """
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], cwd=tmp_path, env=script_env(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert not os.listdir(tmp_path)


# ---- spaces, starts, time


@pytest.mark.parametrize('task', TASKS)
def test_spaces_and_time_limits(task):
    info = env_info(f'legacy/{task}-v1')
    assert (info.obs_dim, info.finite, info.time_limit) == (OBS_DIMS[task], False, 50 if task == 'Reacher' else 1000)
    assert info.a_dim == single(task).model.nu


def test_a_bare_2016_name_is_found_and_newer_ids_keep_their_meaning():
    assert env_info('Hopper-v1').id == 'legacy/Hopper-v1'
    for name in ('Hopper-v4', 'Hopper-v5'):
        assert env_info(name).id == name
        assert SingleEnv(name).env.unwrapped.model.body_mass.sum() == pytest.approx(15.82, abs=1e-3)
        assert isinstance(make_vec_env(name, 2), rlgymenv.LoopVecEnv)


@pytest.mark.parametrize('task', TASKS)
def test_a_start_is_that_of_gymnasiums_v4_with_the_same_seed(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # gymnasium's own HalfCheetah may leave a MUJOCO_LOG.TXT
    ours, v4 = single(task), single(task, '{}-v4')
    for seed in range(5):
        ours.reset(seed=seed)
        v4.reset(seed=seed)
        if task == 'Reacher':  # v4 draws goals until one is in the disc, which moves the later draws
            np.testing.assert_array_equal(ours.data.qpos[:2], v4.data.qpos[:2])
        else:
            np.testing.assert_array_equal(ours.state_vector(), v4.state_vector())


@pytest.mark.parametrize('task', ['Hopper', 'Walker2d', 'HalfCheetah', 'Ant', 'Humanoid'])
def test_the_noise_of_a_start_can_be_chosen_as_in_v4(task):
    env = gymnasium.make(f'legacy/{task}-v1', reset_noise_scale=0.25).unwrapped
    env.reset(seed=0)
    assert 0.15 < np.abs(env.data.qpos - env.init_qpos).max() <= 0.25 + (task in ('Ant', 'Humanoid'))
    env.close()


@pytest.mark.parametrize('task', TASKS)
def test_a_task_can_be_pickled(task):
    env = single(task)
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(env.reset(seed=3)[0], copy.reset(seed=3)[0])


def test_reacher_goals_fill_the_whole_square():
    env = single('Reacher')
    goals = np.array([env.reset(seed=s)[0][4:6] for s in range(3000)])
    assert np.abs(goals).max() <= 0.2 and (np.abs(goals) > 0.19).any(axis=0).all()
    outside_disc = (np.linalg.norm(goals, axis=1) > 0.2).mean()
    assert outside_disc == pytest.approx(1 - math.pi / 4, abs=0.03)
    np.testing.assert_allclose(goals.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(goals.var(axis=0), 0.4**2 / 12, rtol=0.06)


# ---- rewards and ends


@pytest.mark.parametrize('task', ['Hopper', 'Walker2d', 'HalfCheetah', 'Ant'])
def test_reward_is_speed_less_costs_of_the_raw_action(task):
    env = single(task)
    alive, control = {'Hopper': (1, 1e-3), 'Walker2d': (1, 1e-3), 'HalfCheetah': (0, 0.1), 'Ant': (1, 0.5)}[task]
    env.reset(seed=0)
    for a_Da in actions(env, 15, scale=3):
        x = env.data.body('torso').xpos[0] if task == 'Ant' else env.data.qpos[0]
        r = env.step(a_Da)[1]
        speed = ((env.data.body('torso').xpos[0] if task == 'Ant' else env.data.qpos[0]) - x) / env.dt
        contact = 5e-4 * np.sum(np.clip(env.data.cfrc_ext, -1, 1) ** 2) if task == 'Ant' else 0
        assert r == pytest.approx(speed + alive - control * np.sum(a_Da**2) - contact, rel=1e-12, abs=1e-12)


def test_reacher_is_paid_for_the_distance_before_the_step():
    env = single('Reacher')
    obs = env.reset(seed=1)[0]
    for a_Da in actions(env, 10):
        before = np.linalg.norm(obs[-3:])
        obs, r, terminated, truncated, _ = env.step(a_Da)
        assert r == pytest.approx(-before - np.sum(a_Da**2), rel=1e-12) and not (terminated or truncated)


def test_humanoid_clips_before_the_control_cost_and_pays_for_contacts():
    env, twin = single('Humanoid'), single('Humanoid')
    mass_b = env.model.body_mass

    def centre():
        return np.einsum('b,bj->j', mass_b, env.data.xipos)[0] / mass_b.sum()

    assert np.degrees(env.model.joint('left_hip_y').range) == pytest.approx([-120, 20])
    assert np.degrees(env.model.joint('right_hip_y').range) == pytest.approx([-110, 20])
    env.reset(seed=0)
    twin.reset(seed=0)
    costs = []
    for a_Da in actions(env, 60, scale=2):
        x = centre()
        obs, r, *_ = env.step(a_Da)
        obs_clipped, r_clipped, *_ = twin.step(np.clip(a_Da, -0.4, 0.4))
        np.testing.assert_array_equal(obs, obs_clipped)
        assert r == r_clipped
        speed = (centre() - x) / env.dt
        costs.append(min(5e-7 * np.sum(env.data.cfrc_ext**2), 10))
        assert r == pytest.approx(1.25 * speed + 5 - 0.1 * np.sum(np.clip(a_Da, -0.4, 0.4) ** 2) - costs[-1], rel=1e-10)
    assert max(costs) > 0.01
    env.CONTACT_COST = 1e9  # any contact reaches the cap
    x = centre()
    r = env.step(a_Da)[1]
    speed = (centre() - x) / env.dt
    assert np.any(env.data.cfrc_ext)
    assert r == pytest.approx(1.25 * speed + 5 - 0.1 * np.sum(np.clip(a_Da, -0.4, 0.4) ** 2) - 10, rel=1e-10)


def test_inverted_pendulum_has_a_motor_without_limit():
    env, v4 = single('InvertedPendulum'), single('InvertedPendulum', '{}-v4')
    speeds = {}
    for name, e in (('ours', env), ('v4', v4)):
        for force in (3.0, 6.0):
            e.reset(seed=0)
            r = e.step(np.array([force]))[1]
            assert r == 1.0
            speeds[name, force] = e.data.qvel[0]
    assert speeds['v4', 6.0] == speeds['v4', 3.0]
    assert speeds['ours', 6.0] == pytest.approx(2 * speeds['ours', 3.0], rel=0.1)


def test_a_step_of_the_inverted_pendulum_is_that_of_a_cart_and_a_pole_with_the_masses_of_2016():
    """Against the equations of motion, RK4 by hand; both capsules are cylinders longer by one radius, friction is 1 N·s (N·m·s)."""
    r, half = 0.049, math.hypot(0.001, 0.6) / 2
    length = 2 * half + r
    m_pole = 1000 * math.pi * r**2 * length
    m_all = m_pole + 1000 * math.pi * 0.1**2 * 0.3
    inertia = m_pole * (length**2 / 12 + r**2 / 4 + half**2)
    tilt = math.atan2(0.001, 0.6)  # the pole does not quite stand upright at angle 0

    def derivative(y_4, force):
        _, angle, v, w = y_4
        c, s = half * math.cos(angle + tilt), half * math.sin(angle + tilt)
        M = np.array([[m_all, m_pole * c], [m_pole * c, inertia]])
        return np.array([v, w, *np.linalg.solve(M, [100 * force - v + m_pole * s * w * w, m_pole * 9.81 * s - w])])

    env, h = single('InvertedPendulum'), 0.02
    env.reset(seed=0)
    for force in (0.5, -5.0, 1.3, -0.2):
        y_4 = env.state_vector()
        for _ in range(env.frame_skip):
            k1 = derivative(y_4, force)
            k2 = derivative(y_4 + h / 2 * k1, force)
            k3 = derivative(y_4 + h / 2 * k2, force)
            y_4 = y_4 + h / 6 * (k1 + 2 * k2 + 2 * k3 + derivative(y_4 + h * k3, force))
        np.testing.assert_allclose(env.step(np.array([force]))[0], y_4, rtol=1e-9, atol=1e-12)


def test_inverted_double_pendulum_is_paid_for_an_upright_tip():
    env = single('InvertedDoublePendulum')
    env.reset(seed=0)
    for a_Da in actions(env, 30):
        _, r, terminated, _, _ = env.step(a_Da)
        x, _, y = env.data.site_xpos[0]
        v1, v2 = env.data.qvel[1:3]
        assert r == pytest.approx(10 - 0.01 * x**2 - (y - 2) ** 2 - 1e-3 * v1**2 - 5e-3 * v2**2, rel=1e-12)
        assert terminated == (y <= 1)


# ---- batched slots


@pytest.mark.parametrize('task', TASKS)
def test_batched_slots_equal_the_single_environment_bit_for_bit(task):
    name, N, rng = f'legacy/{task}-v1', 4, np.random.default_rng(1)
    info, vec, envs = env_info(name), make_vec_env(name, N), [SingleEnv(name) for _ in range(N)]
    assert isinstance(vec, getattr(mujoco_vec, f'{task}Vec'))

    def reset(slots_K):
        seeds_K = rng.integers(0, 2**31, len(slots_K))
        obs_K_Do = vec.reset(slots_K, seeds_K)
        np.testing.assert_array_equal(obs_K_Do, [envs[i].reset(s) for i, s in zip(slots_K, seeds_K, strict=True)], strict=True)
        len_N[slots_K] = 0

    len_N = np.zeros(N, dtype=int)
    reset(np.arange(N))
    num_ends = 0
    for t in range(150):
        slots_K = rng.permutation(N)[: rng.integers(1, N + 1)] if t % 3 == 0 else np.arange(N)
        a_K_Da = rng.normal(size=(len(slots_K), info.a_dim)) * rng.choice([0.1, 1, 3])
        obs_K_Do, r_K, done_K = vec.step(slots_K, a_K_Da)
        one = [envs[i].step(a_Da) for i, a_Da in zip(slots_K, a_K_Da, strict=True)]
        np.testing.assert_array_equal(obs_K_Do, [x[0] for x in one], strict=True)
        np.testing.assert_array_equal(r_K, [x[1] for x in one], strict=True)
        len_N[slots_K] += 1
        done_K |= len_N[slots_K] == info.time_limit  # which the rollout keeps
        np.testing.assert_array_equal(done_K, [x[2] for x in one], strict=True)
        num_ends += done_K.sum()
        if done_K.any():
            reset(slots_K[done_K])
    assert num_ends > 5 or task == 'HalfCheetah'


@pytest.mark.parametrize('task', TASKS)
def test_arrays_of_the_slots_belong_to_the_caller(task):
    name = f'legacy/{task}-v1'
    vec, slots_K, a_K_Da = make_vec_env(name, 2), np.arange(2), np.ones((2, env_info(name).a_dim))
    kept = [vec.reset(slots_K, [1, 2]), *vec.step(slots_K, a_K_Da), *vec.step(slots_K, a_K_Da)]
    copies = [x.copy() for x in kept]
    vec.step(slots_K, a_K_Da)
    vec.reset(slots_K, [3, 4])
    for x, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_slots_run_out_of_time_like_a_single_environment():
    mdp = MDP('legacy/Reacher-v1')
    for max_traj_len, length in ((None, 50), (70, 50), (30, 30)):
        batch = sample_batch(RandomActor(mdp.info), mdp, SimConfig(3, 0, max_traj_len, 1), (0, 'x'))
        assert batch.lengths.tolist() == [length] * 3 and not batch.terminal_B.any()
    mdp.close()


# ---- what the experts of 2016 earn on the restored bodies

EXPERTS = [
    ('Hopper', 'log_Hopper-v0_3.h5/snapshots/iter0000500', 50, 3590, 65, None),
    ('HalfCheetah', 'log_HalfCheetah-v0_2.h5/snapshots/iter0000500', 50, 4481, 105, None),
    ('Reacher', 'log_Reacher-v1_4.h5/snapshots/iter0000500', 1000, -3.96, 1.72, None),
    ('Walker2d', 'walker_eb5b2e_1.h5/snapshots/iter0000480', 50, None, None, 6600),
    ('Ant', 'log_Ant-v1_0.h5/snapshots/iter0000500', 50, None, None, 4000),
]


@pytest.mark.slow
@pytest.mark.parametrize('task, policy, num, mean, stdev, median', EXPERTS, ids=[e[0] for e in EXPERTS])
def test_experts_of_2016_earn_their_returns(legacy_dir, task, policy, num, mean, stdev, median):
    from policyopt.evaluation import open_policy, sample_episodes

    path = legacy_dir / 'expert_policies' / 'modern' / policy
    returns = sample_episodes(*open_policy(str(path), f'legacy/{task}-v1'), num, seed=0).returns
    if median is None:
        assert returns.mean() == pytest.approx(mean, abs=3 * stdev / math.sqrt(num))
    else:
        assert np.median(returns) >= median


# ---- wide observations: contact columns that never change


@pytest.fixture(scope='module')
def ant():
    """(mdp, trajectories of an ant that does nothing): most of its contact forces are zero throughout."""
    mdp = MDP('legacy/Ant-v1')
    yield mdp, sample_randomly(mdp, 2, seed=0, max_traj_len=100, a_max=0.0)
    mdp.close()


def test_dead_contact_columns_do_not_blow_up_normalisation(ant):
    torch = pytest.importorskip('torch')
    from policyopt.standardizer import Standardizer

    obs_N_Do = torch.as_tensor(ant[1].obs.stacked)
    dead = (obs_N_Do == obs_N_Do[0]).all(0)
    assert dead.sum() > 50 and dead[:27].sum() == 0
    norm = Standardizer(obs_N_Do.shape[1])
    for part_B_Do in obs_N_Do.split(37):  # pooled over batches, as while training
        norm.update(part_B_Do)
    z_N_Do = norm.standardize(obs_N_Do)
    assert z_N_Do.dtype == torch.float64 and torch.isfinite(z_N_Do).all()
    assert z_N_Do[:, dead].abs().max() == 0 and z_N_Do.abs().max() < 100
    # a force where there never was one, as large as forces get: 1 / (0 + 1e-6), as in 2016
    touched_1_Do = obs_N_Do[:1].clone()
    touched_1_Do[:, dead] = 1
    np.testing.assert_allclose(norm.standardize(touched_1_Do)[:, dead], 1e6, rtol=1e-9)
    np.testing.assert_allclose(norm.unstandardize(norm.standardize(touched_1_Do)), touched_1_Do, atol=1e-9)


def test_imitating_an_ant_stays_finite_and_says_which_features_are_dead(ant, run_script, tmp_path):
    """Two iterations: sampled ants touch what the expert never touched, so the nets see inputs up to 1e6."""
    import tables

    from policyopt.files.trajectory_file import save_trajs

    save_trajs(str(tmp_path / 'trajs.h5'), ant[1], {'env_name': 'legacy/Ant-v1'})
    done = run_script(
        'imitate_mj.py', '--mode', 'ga', '--env', 'legacy/Ant-v1', '--data', 'trajs.h5', '--limit_trajs', 2, '--data_subsamp_freq', 2,
        '--max_iter', 2, '--min_total_sa', 500, '--sim_batch_size', 1, '--seed', 0, '--log', 'ant.h5',
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if 'never change' in line]
    assert len(lines) == 1 and re.match(
        r'warning: \d+ of 111 observation features never change in the expert data used \(27, 28, ', lines[0]
    )
    assert 'Warning' not in done.stderr  # numpy's and torch's, of overflows
    with tables.open_file(tmp_path / 'ant.h5') as h5:
        log = h5.root.log.read()
        assert all(np.isfinite(log[name]).all() for name in log.dtype.names if name != 'rkl')  # which only linear rewards have
        assert all(np.isfinite(node.read()).all() for node in h5.walk_nodes('/snapshots', 'Array'))
