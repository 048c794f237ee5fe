"""The fixed-horizon tasks of the package seals: in lock-step as its own environments step, in the commands, and as an experiment."""

import os
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from command_tools import REPO, run_command, script_env

from policyopt.environments.rlgymenv import LoopVecEnv, SingleEnv, env_info, make_vec_env

pytest.importorskip('seals', reason='seals is not installed (pip install -e .[seals])')

CLASSIC = {'CartPole-v0': 500, 'MountainCar-v0': 200}
MUJOCO = ['Swimmer-v1', 'HalfCheetah-v1', 'Hopper-v1', 'Walker2d-v1', 'Ant-v1']
CARTPOLE = 'seals:seals/CartPole-v0'


def needing_mujoco(tasks):
    return [pytest.param(task, marks=pytest.mark.mujoco) for task in tasks]


@pytest.fixture(autouse=True)
def _mujoco(request):
    if request.node.get_closest_marker('mujoco'):
        pytest.importorskip('mujoco', reason='mujoco is not installed (pip install -e .[mujoco])')


class Both:
    """N slots of our VecEnv beside N environments of the package, which must agree bit for bit."""

    def __init__(self, task, num_slots, seed):
        name = f'seals:seals/{task}'
        self.rng, self.info, self.vec = np.random.default_rng(seed), env_info(name), make_vec_env(name, num_slots)
        self.envs = [SingleEnv(name) for _ in range(num_slots)]
        self.obs_N_Do, self.len_N = np.zeros((num_slots, self.info.obs_dim)), np.zeros(num_slots, dtype=int)
        self.reset(np.arange(num_slots))

    def reset(self, slots_K):
        seeds_K = self.rng.integers(0, 2**31, len(slots_K))
        obs_K_Do = self.vec.reset(slots_K, seeds_K)
        np.testing.assert_array_equal(obs_K_Do, [self.envs[i].reset(s) for i, s in zip(slots_K, seeds_K, strict=True)], strict=True)
        self.obs_N_Do[slots_K], self.len_N[slots_K] = obs_K_Do, 0

    def step(self, slots_K, a_K_Da):
        """Rewards; slots that are done were at the time limit, and are reset."""
        obs_K_Do, r_K, done_K = self.vec.step(slots_K, a_K_Da)
        one = [self.envs[i].step(a_Da) for i, a_Da in zip(slots_K, a_K_Da, strict=True)]
        np.testing.assert_array_equal(obs_K_Do, [x[0] for x in one], strict=True)
        np.testing.assert_array_equal(r_K, [x[1] for x in one], strict=True)
        assert not done_K.any()
        self.obs_N_Do[slots_K] = obs_K_Do
        self.len_N[slots_K] += 1
        done_K = self.len_N[slots_K] == self.info.time_limit  # which the rollout keeps
        np.testing.assert_array_equal(done_K, [x[2] for x in one], strict=True)
        if done_K.any():
            self.reset(slots_K[done_K])
        return r_K

    def some_slots(self, t):
        """Every slot in order, and every third time some of them in any order."""
        N = len(self.envs)
        return self.rng.permutation(N)[: self.rng.integers(1, N + 1)] if t % 3 == 0 else np.arange(N)


@pytest.mark.parametrize('task, time_limit', CLASSIC.items())
def test_classic_slots_equal_the_packages_environments_bit_for_bit(task, time_limit):
    both = Both(task, 8, seed=0)
    assert type(both.vec).__name__ == f'Seals{task[:-3]}Vec' and both.info.time_limit == time_limit
    skill_N, earned = np.repeat([0.0, 1.0], 4), np.zeros(2, dtype=int)
    for t in range(1300):
        slots_K = both.some_slots(t)
        x = both.obs_N_Do[slots_K]
        good_K = x[:, 2] + 0.3 * x[:, 3] + 0.02 * x[:, 0] + 0.05 * x[:, 1] > 0 if task == 'CartPole-v0' else 2 * (x[:, 1] >= 0)
        wild_K = both.rng.integers(both.info.num_actions, size=len(slots_K))
        r_K = both.step(slots_K, np.where(both.rng.random(len(slots_K)) < skill_N[slots_K], good_K, wild_K)[:, None])
        earned += [(r_K == 0).sum(), (r_K != 0).sum()]
    assert earned.min() > 1000  # fallen poles and standing ones; cars at the goal and on their way


@pytest.mark.mujoco
@pytest.mark.parametrize('task', MUJOCO)
def test_mujoco_slots_equal_the_packages_environments_bit_for_bit(task):
    from policyopt.environments import mujoco_vec

    both = Both(task, 3, seed=1)
    assert isinstance(both.vec, getattr(mujoco_vec, f'{task[:-3]}Vec')) and both.info.time_limit == 1000
    rewards = []
    for t in range(1300):
        slots_K = both.some_slots(t)
        rewards += both.step(slots_K, both.rng.normal(size=(len(slots_K), both.info.a_dim)) * both.rng.choice([0.1, 1, 3])).tolist()
    assert np.ptp(rewards) > 0.1


@pytest.mark.mujoco
@pytest.mark.parametrize('task', ['Hopper-v1', 'Walker2d-v1'])
def test_a_robot_that_has_fallen_goes_on_without_the_bonus(task):
    vec, slots_1 = make_vec_env(f'seals:seals/{task}', 1), np.arange(1)
    env = vec._env
    vec.reset(slots_1, [0])
    bonus = []
    for _ in range(200):
        x = vec.position(vec._parts(vec._R_N_F))[0]
        a_1_Da = np.full((1, env.model.nu), 1.0)
        r = vec.step(slots_1, a_1_Da)[1][0]
        speed = (vec.position(vec._parts(vec._R_N_F))[0] - x) / env.dt
        bonus.append(r - speed + env._ctrl_cost_weight * env.model.nu)
    near = np.abs(np.array(bonus)[:, None] - [0, 1]) < 1e-9
    assert near.any(axis=1).all() and near[:, 0].any() and near[0, 1]


@pytest.mark.parametrize('task', [*CLASSIC, *needing_mujoco(MUJOCO)])
def test_arrays_of_the_slots_belong_to_the_caller(task):
    name = f'seals:seals/{task}'
    info, vec, slots_K = env_info(name), make_vec_env(name, 2), np.arange(2)
    a_K_Da = np.ones((2, info.a_dim), dtype=np.int64 if info.finite else np.float64)
    kept = [vec.reset(slots_K, [1, 2]), *vec.step(slots_K, a_K_Da), *vec.step(slots_K, a_K_Da)]
    copies = [x.copy() for x in kept]
    vec.step(slots_K, a_K_Da)
    vec.reset(slots_K, [3, 4])
    for x, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


@pytest.mark.parametrize('task', ['MountainCar-v0', *needing_mujoco(['Hopper-v1'])])
def test_a_replaced_class_is_not_given_our_dynamics(task):
    env_id = env_info(f'seals:seals/{task}').id
    spec = gymnasium.registry[env_id]
    try:
        gymnasium.registry[env_id] = gymnasium.envs.registration.EnvSpec(
            env_id, entry_point='gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=spec.max_episode_steps
        )
        assert isinstance(make_vec_env(f'seals:{env_id}', 1), LoopVecEnv)
    finally:
        gymnasium.registry[env_id] = spec


@pytest.mark.parametrize('tasks', [list(CLASSIC), *needing_mujoco([MUJOCO])], ids=['classic', 'mujoco'])
def test_the_tasks_are_made_without_a_word_and_leave_nothing_behind(tasks, tmp_path):
    code = f"""if True:
        import numpy as np
        from policyopt.environments.rlgymenv import SingleEnv, env_info, make_vec_env
        for task in {tasks}:
            name = f'seals:seals/{{task}}'
            info, env, vec = env_info(name), SingleEnv(name), make_vec_env(name, 1)
            a_1_Da = np.ones((1, info.a_dim), dtype=np.int64 if info.finite else np.float64)
            env.reset(0), env.step(a_1_Da[0]), vec.reset([0], [0]), vec.step(np.array([0]), a_1_Da), env.close(), vec.close()
    """
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], cwd=tmp_path, env=script_env(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert not os.listdir(tmp_path)


# ---- commands


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A file of three iterations of TRPO on CartPole."""
    folder = tmp_path_factory.mktemp('rl')
    options = '--tiny_policy --min_total_sa 1000 --sim_batch_size 1 --max_iter 3 --seed 0 --log expert.h5'.split()
    run_command('run_rl_mj.py', '--env_name', CARTPOLE, *options, cwd=folder)
    return folder / 'expert.h5'


def test_a_trained_policy_is_played_where_the_user_names_the_package_too(trained, run_script, tmp_path):
    policy = f'{trained}/snapshots/last'
    refused = run_script('vis_mj.py', policy, '--eval_only', rc=2)
    assert f'if you trust it, give --env_name {CARTPOLE}' in refused.stderr
    done = run_script('vis_mj.py', policy, '--env_name', CARTPOLE, '--count', 2, '--out', 'trajs.h5', '--seed', 0)
    assert 'length: 500.00 (sd 0.00)' in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ['trajs.h5']


def test_the_task_is_drawn(trained, run_script, tmp_path):
    pytest.importorskip('pygame', reason='pygame is not installed (pip install -e .[video])')
    run_script('vis_mj.py', f'{trained}/snapshots/last', '--env_name', CARTPOLE, '--gif', 'play.gif', '--frames', 3)
    assert (tmp_path / 'play.gif').stat().st_size > 1000


def test_experts_are_named_without_the_package_and_made_again(run_script, tmp_path):
    """The command that made the shipped experts knows their tasks by their last word and goes on with the files that it finds."""
    done = run_script('../tools/experts/gen_seals_policies.py', 'experts', '--tasks', 'Nothing-v0', rc=2)
    assert CARTPOLE in done.stderr
    (tmp_path / 'experts').mkdir()
    (tmp_path / 'experts' / 'CartPole-v0.h5').write_bytes((REPO / 'expert_policies' / 'seals' / 'CartPole-v0.h5').read_bytes())
    done = run_script('../tools/experts/gen_seals_policies.py', 'experts', '--tasks', 'CartPole-v0')
    assert 'experts/CartPole-v0.h5: is there already\n' in done.stdout and 'return: 500.0000 (sd 0.0000)\n' in done.stdout


# ---- the experiment

SMALL = [
    'training.runs=1', 'training.full_dataset_num_trajs=2', 'training.dataset_num_trajs=[1, 2]', 'options.eval_num_trajs=2',
    'options.storagedir=runs',
]  # fmt: skip
SHORT = {'--max_iter 10001 --bclone_eval_freq 500': '--max_iter 21 --bclone_eval_freq 10',
         r'--max_iter \d+ --min_total_sa \d+': '--max_iter 2 --min_total_sa 600'}  # fmt: skip


@pytest.mark.parametrize(
    'name', ['benchmark_seals_cartpole', pytest.param('benchmark_seals', marks=[pytest.mark.slow, pytest.mark.mujoco])]
)
def test_a_benchmark_runs_from_its_experts_to_its_results(name, run_script, tmp_path):
    from policyopt.files.results_file import read_results

    text = (REPO / 'pipelines' / f'{name}.yaml').read_text()
    for long, short in SHORT.items():
        text, num = re.subn(long, short, text)
        assert num >= 1
    (tmp_path / 'spec.yaml').write_text(text)
    run_script('im_pipeline.py', 'spec.yaml', 'all', '-j', 1, '--set', *SMALL)
    results = read_results(str(tmp_path / 'runs' / 'checkpoints' / 'results.h5'))
    envs = {t.task: t.env for t in results.tasks}
    assert list(envs.values()) == re.findall(r'env: (.*)', text) and len(results.rows) == 4 * 2 * len(envs)
    assert all((np.asarray(row.alg_traj_lengths) == env_info(envs[row.task]).time_limit).all() for row in results.rows)
    run_script('plot_results.py', 'runs/checkpoints/results.h5')
    assert (tmp_path / 'runs' / 'checkpoints' / 'results_figure1.png').exists()


def test_the_published_shares_are_read_beside_the_benchmarks_cells():
    from policyopt.pipeline.spec import load_spec
    from policyopt.reporting.reference import CellKey, read_reference

    spec = load_spec(str(REPO / 'pipelines' / 'benchmark_seals.yaml'))
    published = read_reference(spec.reference_path)
    assert all(ref.is_ratio and ref.m == 1 for ref in published.values())
    beside = {(r.task, r.alg, r.num_trajs) for r in spec.runs(0)} & set(published)
    assert {(t, 'ga', 25) for t in ('swimmer', 'hopper', 'halfcheetah')} <= beside
    assert published[CellKey('halfcheetah', 'ga', 25)].mean == 0.98
