"""Tasks by name, the vectorised classic dynamics against the single environments, and what is said about bad ones."""

import math
import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
from conftest import REPO

from policyopt.environments import classic_vec, rlgymenv
from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env
from policyopt.errors import RunFailed, UserError

CLASSIC = ['CartPole-v0', 'CartPole-v1', 'MountainCar-v0', 'legacy/Acrobot-v0']


def run_python(code, *flags, cwd=str(REPO)):
    return subprocess.run(
        [sys.executable, *flags, '-c', textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': str(REPO)},
        timeout=60,
    )


def skilful(name, obs_Do):
    """A hand-written controller, so that long episodes, goals and fast spins are visited too."""
    if name.startswith('CartPole'):
        return int(obs_Do[2] + 0.3 * obs_Do[3] + 0.02 * obs_Do[0] + 0.05 * obs_Do[1] > 0)
    if name.startswith('MountainCar'):
        return 2 if obs_Do[1] >= 0 else 0
    return 2 if obs_Do[2] * (1 if abs(obs_Do[0]) < 2 else -1) < 0 else 0


# ---- VecEnv against the single environments


@pytest.mark.parametrize('name', CLASSIC)
def test_vectorised_dynamics_equal_the_single_environment_bit_for_bit(name):
    rng = np.random.default_rng(0)
    info, N = env_info(name), 12
    vec, envs = make_vec_env(name, N), [SingleEnv(name) for _ in range(N)]
    assert isinstance(vec, classic_vec.ClassicVecEnv)
    skill_N = rng.choice([0.0, 0.9, 1.0], N)

    def reset(slots_K):
        seeds_K = rng.integers(0, 2**31, len(slots_K))
        obs_K_Do = vec.reset(slots_K, seeds_K)
        np.testing.assert_array_equal(obs_K_Do, [envs[i].reset(s) for i, s in zip(slots_K, seeds_K, strict=True)], strict=True)
        obs_N_Do[slots_K], len_N[slots_K] = obs_K_Do, 0

    obs_N_Do, len_N = np.zeros((N, info.obs_dim)), np.zeros(N, dtype=int)
    reset(np.arange(N))
    ends_early = ends_by_time = 0
    for t in range(1500):
        # every third call is about some of the slots, in any order
        slots_K = rng.permutation(N)[: rng.integers(1, N + 1)] if t % 3 == 0 else np.arange(N)
        a_K_1 = np.array([[skilful(name, obs_N_Do[i]) if rng.random() < skill_N[i] else rng.integers(info.num_actions)] for i in slots_K])
        obs_K_Do, r_K, done_K = vec.step(slots_K, a_K_1)
        one = [envs[i].step(a) for i, a in zip(slots_K, a_K_1, strict=True)]
        np.testing.assert_array_equal(obs_K_Do, [x[0] for x in one], strict=True)
        np.testing.assert_array_equal(r_K, [x[1] for x in one], strict=True)
        obs_N_Do[slots_K] = obs_K_Do
        len_N[slots_K] += 1
        done_K |= len_N[slots_K] == info.time_limit  # which the rollout keeps
        np.testing.assert_array_equal(done_K, [x[2] for x in one], strict=True)
        ends_by_time += np.sum(len_N[slots_K[done_K]] == info.time_limit)
        ends_early += np.sum(len_N[slots_K[done_K]] < info.time_limit)
        if done_K.any():
            reset(slots_K[done_K])
            skill_N[slots_K[done_K]] = rng.choice([0.0, 0.9, 1.0], done_K.sum())
    assert ends_early > 5 and ends_by_time > 5, (ends_early, ends_by_time)


@pytest.mark.parametrize('name', CLASSIC)
def test_resets_follow_gymnasiums_seeds(name):
    seeds_K = np.concatenate([np.arange(40), [2**31 - 1]])
    obs_K_Do = make_vec_env(name, 41).reset(np.arange(41), seeds_K)
    env = gymnasium.make(gymnasium.registry[env_info(name).id])
    for seed, obs_Do in zip(seeds_K, obs_K_Do, strict=True):
        np.testing.assert_array_equal(obs_Do, env.reset(seed=int(seed))[0].astype(np.float64))


@pytest.mark.parametrize('name', [*CLASSIC, 'Pendulum-v1'])
def test_returned_arrays_belong_to_the_caller(name):
    info, vec, slots_K = env_info(name), make_vec_env(name, 3), np.arange(3)
    a_K_Da = np.ones((3, info.a_dim), dtype=np.int64 if info.finite else np.float64)
    kept = [vec.reset(slots_K, [1, 2, 3])]
    for _ in range(3):
        kept += vec.step(slots_K, a_K_Da)
    copies = [x.copy() for x in kept]
    vec.step(slots_K, a_K_Da)
    vec.reset(slots_K, [4, 5, 6])
    for x, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize('name', ['Pendulum-v1', 'Acrobot-v1'])
def test_every_other_id_is_stepped_in_a_loop_with_the_same_interface(name):
    info, vec, env = env_info(name), make_vec_env(name, 3), SingleEnv(name)
    assert isinstance(vec, rlgymenv.LoopVecEnv)
    vec.reset(np.array([0, 1, 2]), [4, 5, 6])
    obs_1_Do = vec.reset(np.array([2]), np.array([7]))
    np.testing.assert_array_equal(obs_1_Do[0], env.reset(7), strict=True)
    rng = np.random.default_rng(0)
    num_steps, done = 0, False
    while not done:
        num_steps += 1
        a_1_Da = rng.integers(3, size=(1, 1)) if info.finite else rng.normal(size=(1, info.a_dim)) * 5
        obs_1_Do, r_1, done_1 = vec.step(np.array([2]), a_1_Da)
        obs_Do, r, done = env.step(a_1_Da[0])
        np.testing.assert_array_equal(obs_1_Do[0], obs_Do, strict=True)
        assert (r_1[0], done_1[0]) == (r, done) and r_1.dtype == np.float64 and done_1.dtype == bool
    assert num_steps == info.time_limit
    vec.close()


def test_a_replaced_cartpole_class_is_not_given_our_dynamics():
    spec = gymnasium.registry['CartPole-v1']
    try:
        gymnasium.registry['CartPole-v1'] = gymnasium.envs.registration.EnvSpec(
            'CartPole-v1', entry_point=spec.entry_point, max_episode_steps=500, kwargs={'sutton_barto_reward': True}
        )
        vec = make_vec_env('CartPole-v1', 1)
        vec.reset([0], [0])
        assert vec.step(np.array([0]), np.array([[1]]))[1][0] == 0.0
    finally:
        gymnasium.registry['CartPole-v1'] = spec


# ---- legacy/Acrobot-v0


def test_legacy_acrobot_has_the_dynamics_of_acrobot_v1_apart_from_float32():
    ours, gyms = gymnasium.make('legacy/Acrobot-v0').unwrapped, gymnasium.make('Acrobot-v1').unwrapped
    ours.reset(seed=0)
    gyms.reset(seed=0)
    rng = np.random.default_rng(0)
    worst, ends = 0.0, 0
    for _ in range(2000):
        # at the very speed limits rounding is amplified (to 1e-12) and says nothing about the formulas
        state = rng.uniform(-1, 1, 4) * [math.pi, math.pi, 3 * math.pi, 6.75 * math.pi] * rng.choice([0.1, 0.5, 1.0])
        a = int(rng.integers(3))
        ours.state, gyms.state = state.copy(), state.copy()
        obs, r, terminated, truncated, _ = ours.step(a)
        gym_r, gym_terminated = gyms.step(a)[1:3]
        error = np.abs(obs - gyms.state)
        error[:2] = np.minimum(error[:2], 2 * math.pi - error[:2])  # either side of ±π
        worst, ends = max(worst, error.max()), ends + terminated
        assert (r, terminated, truncated) == (gym_r, gym_terminated, False)
    assert worst <= 1.5e-13
    assert ends > 100


def test_legacy_acrobot_observes_its_state_in_float64_for_200_steps():
    env, info = SingleEnv('Acrobot-v0'), env_info('Acrobot-v0')
    assert (info.name, info.id, info.obs_dim, info.num_actions, info.time_limit) == ('Acrobot-v0', 'legacy/Acrobot-v0', 4, 3, 200)
    starts = np.array([env.reset(s) for s in range(200)])
    assert np.abs(starts).max() <= 0.1 and starts.min() < -0.09 and starts.max() > 0.09
    assert (starts != starts.astype(np.float32)).all()
    # hanging still: only the torque accelerates it; a2 = τ/(m22 − m12²/m11), a1 = −m12·a2/m11 at q = 0
    env.reset(0)
    env.env.unwrapped.state = np.zeros(4)
    np.testing.assert_array_equal(env.step([1])[0], np.zeros(4))
    a1, a2, _, _ = env.env.unwrapped._derivative(0.0, 0.0, 0.25, -0.5, 0.0)
    assert (a1, a2) == (0.25, -0.5)
    a2 = 1 / (1.25 - 1.75**2 / 4.5)
    np.testing.assert_allclose(env.env.unwrapped._derivative(0.0, 0.0, 0.0, 0.0, 1.0)[2:], [-1.75 * a2 / 4.5, a2], rtol=1e-15)


# ---- names


def test_env_info_of_the_classic_tasks():
    info = env_info('CartPole-v0')
    assert (info.obs_dim, info.finite, info.num_actions, info.a_dim, info.time_limit) == (4, True, 2, 1, 200)
    info = env_info('Pendulum-v1')
    assert (info.obs_dim, info.finite, info.num_actions, info.a_dim, info.time_limit) == (3, False, 0, 1, 200)
    assert env_info('CartPole-v0') is env_info('CartPole-v0')


def test_a_bare_2016_name_is_found_and_said_once():
    out = run_python("""
        from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env
        assert env_info('Acrobot-v0').id == 'legacy/Acrobot-v0'
        SingleEnv('Acrobot-v0'); make_vec_env('Acrobot-v0', 2); env_info('CartPole-v0')
    """)
    assert (out.returncode, out.stderr, out.stdout) == (0, "env 'Acrobot-v0': using legacy/Acrobot-v0\n", '')


def test_warnings_as_errors_do_not_stop_the_supported_ids_and_user_warnings_stay():
    code = """
        import warnings
        import numpy as np
        from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env
        for name in ('CartPole-v0', 'MountainCar-v0', 'legacy/Acrobot-v0', 'Acrobot-v0', 'Acrobot-v1', 'Pendulum-v1'):
            info, env, vec = env_info(name), SingleEnv(name), make_vec_env(name, 1)
            a = np.zeros((1, 1), dtype=np.int64 if info.finite else np.float64)
            env.reset(0), env.step(a[0]), vec.reset([0], [0]), vec.step(np.array([0]), a), env.close(), vec.close()
        print('made')
        warnings.warn('mine', DeprecationWarning)
    """
    out = run_python(code, '-W', 'error')
    assert out.stdout == 'made\n' and out.returncode == 1
    assert out.stderr.splitlines()[0] == "env 'Acrobot-v0': using legacy/Acrobot-v0" and 'DeprecationWarning: mine' in out.stderr
    out = run_python(code, '-W', 'always')
    assert out.returncode == 0 and 'out of date' not in out.stderr and out.stderr.count('Warning') == 1, out.stderr


USER_MODULE = """
    import gymnasium, numpy as np
    from gymnasium.spaces import Box, Discrete, Dict, MultiDiscrete

    class Env(gymnasium.Env):
        def __init__(self, obs=Box(-1, 1, (2,)), action=Box(-1, 1, (3,)), fault=None):
            self.observation_space, self.action_space, self.fault = obs, action, fault
        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.x = self.np_random.normal(size=2)
            return (np.zeros(3) if self.fault == 'shape' else self.x.astype(np.float32)), {}
        def step(self, a):
            if self.fault == 'step':
                raise RuntimeError('the motor is on fire\\nand more')
            if self.fault == 'old api':
                return self.x, 0.0, False, {}
            self.x = self.x + a[:2]
            a[:] = np.nan  # spoils its argument
            return self.x.astype(np.float32), self.x.sum(), False, False, {}

    def broken():
        raise OSError('no such robot')

    gymnasium.register('Fine-v0', Env, max_episode_steps=7)
    gymnasium.register('Ints-v0', Env, kwargs={'obs': Box(0, 9, (2,), dtype=np.int32), 'action': Discrete(4)})
    gymnasium.register('DictObs-v0', Env, kwargs={'obs': Dict(x=Box(-1, 1, (2,)))})
    gymnasium.register('Image-v0', Env, kwargs={'obs': Box(0, 255, (4, 4, 3), dtype=np.uint8)})
    gymnasium.register('Multi-v0', Env, kwargs={'action': MultiDiscrete([2, 2])})
    gymnasium.register('FromOne-v0', Env, kwargs={'action': Discrete(3, start=1)})
    for fault in ('shape', 'step', 'old api'):
        gymnasium.register(fault.title().replace(' ', '') + '-v0', Env, kwargs={'fault': fault})
    gymnasium.register('Broken-v0', broken)
"""


@pytest.fixture(scope='module')
def user_folder(tmp_path_factory):
    """A working folder with modules of the user's; nothing of it stays in sys.path or in the registry."""
    folder = tmp_path_factory.mktemp('user')
    (folder / 'robots').mkdir()
    (folder / 'robots' / '__init__.py').write_text('')
    (folder / 'robots' / 'mine.py').write_text(textwrap.dedent(USER_MODULE))
    (folder / 'typo.py').write_text('import gymnasium\nundefined_name\n')
    (folder / 'needy.py').write_text('import not_there_at_all\n')
    here, path, registry = os.getcwd(), list(sys.path), dict(gymnasium.registry)
    os.chdir(folder)
    yield folder
    os.chdir(here)
    sys.path[:] = path
    gymnasium.registry.clear()
    gymnasium.registry.update(registry)
    rlgymenv._info_of_name.cache_clear()


def test_a_users_module_in_the_working_folder(user_folder):
    name = 'robots.mine:Fine-v0'
    info = env_info(name)
    assert (info.name, info.id, info.obs_dim, info.finite, info.a_dim, info.time_limit) == (name, 'Fine-v0', 2, False, 3, 7)
    env, vec, a_1_Da = SingleEnv(name), make_vec_env(name, 2), np.full((1, 3), 2.5)
    np.testing.assert_array_equal(vec.reset([1], [3])[0], env.reset(3))
    for t in range(7):
        obs_Do, r, done = env.step(a_1_Da[0])
        obs_1_Do, r_1, done_1 = vec.step(np.array([1]), a_1_Da)
        np.testing.assert_array_equal(obs_1_Do[0], obs_Do)
        assert r_1[0] == r and done == done_1[0] == (t == 6)
    assert (a_1_Da == 2.5).all()
    info = env_info('robots.mine:Ints-v0')
    assert (info.finite, info.num_actions, info.time_limit) == (True, 4, None)


def test_a_users_module_is_found_by_a_script_elsewhere(user_folder):
    """A script's sys.path starts with its own folder, not with the working folder."""
    script = user_folder / 'robots' / 'script.py'
    script.write_text("from policyopt.environments.rlgymenv import env_info\nprint(env_info('robots.mine:Fine-v0').obs_dim)\n")
    env = {**os.environ, 'PYTHONPATH': str(REPO)}
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=user_folder, env=env, timeout=60)
    assert (out.stdout, out.stderr) == ('2\n', '')


SUPPORTED = rlgymenv.SUPPORTED


@pytest.mark.parametrize(
    'name, sentence',
    [
        ('CartPol-v0', "env 'CartPol-v0': no such environment is registered. Did you mean 'CartPole-v0'"),
        ('Hoper-v1', "env 'Hoper-v1': no such environment is registered. Did you mean 'Hopper-v1'?"),
        ('legacy/Hoper-v1', "env 'legacy/Hoper-v1': no such environment is registered. Did you mean 'legacy/Hopper-v1'?"),
        ('CartPole-v7', "env 'CartPole-v7': no such environment is registered. Did you mean 'CartPole-v"),
        ('qqqqqq', "env 'qqqqqq': no such environment is registered. A task of your own is named package.module:EnvId."),
        ('', "env is ''; expected an environment's id, such as 'CartPole-v1': 1 to 1000 printable characters"),
        ('seals/NoSuch-v0', "env 'seals/NoSuch-v0': no such environment is registered. Did you mean 'seals:seals/NoSuch-v0'?"),
        ('a b-v0', "env 'a b-v0' is no valid id: expected"),
        ('nowhere.mod:X-v0', "env 'nowhere.mod:X-v0': there is no module 'nowhere.mod' in the working folder ("),
        ('robots.nowhere:X-v0', "env 'robots.nowhere:X-v0': there is no module 'robots.nowhere' in the working folder ("),
        ('typo:X-v0', "env 'typo:X-v0': importing the module 'typo' failed with NameError: name 'undefined_name' is not defined"),
        (
            'needy:X-v0',
            "env 'needy:X-v0': importing the module 'needy' failed with ModuleNotFoundError: No module named 'not_there_at_all'",
        ),
        ('robots.mine:Fein-v0', "env 'robots.mine:Fein-v0': the module 'robots.mine' registers no env 'Fein-v0'. Did you mean 'Fine-v0'"),
        ('robots.mine:DictObs-v0', "env 'robots.mine:DictObs-v0' has the observation space Dict('x': Box(-1.0, 1.0, (2,), float32)); supp"),
        ('robots.mine:Image-v0', "env 'robots.mine:Image-v0' has the observation space Box of shape (4, 4, 3), uint8; " + SUPPORTED),
        ('robots.mine:Multi-v0', "env 'robots.mine:Multi-v0' has the action space MultiDiscrete([2 2]); " + SUPPORTED),
        ('robots.mine:FromOne-v0', "env 'robots.mine:FromOne-v0' has the action space Discrete(3, start=1); " + SUPPORTED),
        ('robots.mine:Broken-v0', "env 'robots.mine:Broken-v0' could not be made: OSError: no such robot"),
    ],
)
def test_a_bad_environment_is_refused_in_one_sentence(user_folder, name, sentence):
    with pytest.raises(UserError) as error:
        env_info(name)
    assert str(error.value).startswith(sentence) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'name, sentence',
    [
        ('Shape-v0', ': reset() returned an observation of shape (3,), but its observation_space has shape (2,)'),
        ('Step-v0', ' failed in step() with RuntimeError: the motor is on fire and more'),
        (
            'OldApi-v0',
            f' failed in step() with ValueError: not enough values to unpack (expected 5, got 4); {rlgymenv._EXPECTED["step"]}',
        ),
    ],
)
def test_a_fault_of_the_users_environment_is_reported_with_its_own_words(user_folder, name, sentence):
    env = SingleEnv('robots.mine:' + name)
    with pytest.raises(RunFailed) as error:
        env.reset(0)
        env.step(np.zeros(3))
    assert str(error.value) == f"env 'robots.mine:{name}'{sentence}"


def test_a_picture_without_pygame_says_how_to_get_it():
    out = run_python("""
        import sys
        sys.modules['pygame'] = None
        from policyopt.environments.rlgymenv import SingleEnv
        from policyopt.errors import RunFailed
        for name in ('CartPole-v0', 'legacy/Acrobot-v0'):
            env = SingleEnv(name, render_mode='rgb_array')
            env.reset(0)
            try:
                env.render()
            except RunFailed as e:
                print(e)
    """)
    how = "needs 'pygame' for its pictures: pip install -e .[video]"
    assert out.stdout.splitlines() == [f"env 'CartPole-v0' {how}", f"env 'legacy/Acrobot-v0' {how}"], out.stderr


@pytest.mark.parametrize('name', ['CartPole-v0', 'MountainCar-v0', 'legacy/Acrobot-v0'])
def test_pictures_are_rgb(name):
    pytest.importorskip('pygame', reason='pygame is not installed (pip install -e .[video])')
    env = SingleEnv(name, render_mode='rgb_array')
    env.reset(0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 1
    env.close()


def test_a_task_of_seals_without_seals_says_how_to_get_it():
    out = run_python("""
        import sys
        from policyopt.environments.rlgymenv import env_info
        from policyopt.errors import UserError
        sys.path[:] = []  # nothing more is found
        try:
            env_info('seals:seals/CartPole-v0')
        except UserError as e:
            print(e)
    """)
    assert out.stdout.endswith(' or among the installed packages; it is installed by pip install -e .[seals]\n'), out.stderr


def test_a_mujoco_task_without_mujoco_says_how_to_get_it():
    out = run_python("""
        import sys
        sys.modules['mujoco'] = None  # what an import sees when it is not installed
        from policyopt.environments.rlgymenv import env_info
        from policyopt.errors import UserError
        for name in ('Hopper-v4', 'Hopper-v5', 'legacy/Ant-v1', 'Reacher-v1'):
            try:
                env_info(name)
            except UserError as e:
                print(e)
    """)
    how = 'needs MuJoCo: pip install -e .[mujoco]'
    assert out.stdout.splitlines() == [f"env '{x}' {how}" for x in ('Hopper-v4', 'Hopper-v5', 'legacy/Ant-v1', 'Reacher-v1')]
