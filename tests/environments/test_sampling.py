"""Sampling is a pure function of (seed, stream, policy): held against a loop that plays one episode after the other."""

import hashlib
import sys
import textwrap

import numpy as np
import pytest
import torch
from conftest import REPO

from policyopt.cores import workers_from_env
from policyopt.environments.rlgymenv import SingleEnv
from policyopt.errors import RunFailed, UserError
from policyopt.evaluation import load_policy, sample_episodes
from policyopt.nn import SIMPLE_ARCHITECTURE
from policyopt.policies import make_policy
from policyopt.sampling import rollout
from policyopt.sampling.actors import ACTOR_ROWS
from policyopt.sampling.mdp import MDP, sample_batch, sample_trajectories
from policyopt.sampling.rollout import SimConfig
from policyopt.trajectories import ContinuousSpace, FiniteSpace

CLASSIC = ['CartPole-v0', 'MountainCar-v0', 'Acrobot-v0']
TANH = [{'type': 'fc', 'n': 16}, {'type': 'nonlin', 'func': 'tanh'}]


def policy_of(kind, mdp):
    if kind == 'trained':
        return load_policy(str(REPO / 'expert_policies' / 'classic' / f'{mdp.env_name}.h5' / 'snapshots' / 'last'), mdp)
    return make_policy(mdp.obs_space, mdp.action_space, TANH)


def one_after_the_other(actor, env_name, key, min_num_trajs, min_total_sa, max_traj_len, deterministic=False):
    """The rule of 2016 as a plain loop over one environment: [(obs, a, r, adist)] per step of each trajectory."""
    env, trajs = SingleEnv(env_name), []
    counter_key = np.frombuffer(hashlib.sha256(repr(tuple(key)).encode()).digest()[:16], dtype=np.uint64)
    while len(trajs) < min_num_trajs or sum(map(len, trajs)) < min_total_sa:
        rng = np.random.Generator(np.random.Philox(key=counter_key, counter=[0, 0, 0, len(trajs)]))
        obs, done, steps = env.reset(int(rng.integers(2**31))), False, []
        while not done and len(steps) < max_traj_len:
            adist = actor.adist(obs[None])
            a = actor.act(adist, None if deterministic else actor.noise(rng, 1))
            next_obs, r, done = env.step(a[0])
            steps.append((obs, a[0], r, adist[0]))
            obs = next_obs
        trajs.append(steps)
    env.close()
    return trajs


def assert_equal_batches(batch, trajs):
    assert batch.lengths.tolist() == [len(t) for t in trajs]
    for got, column in zip((batch.obs, batch.a, batch.r, batch.adist), range(4), strict=True):
        np.testing.assert_array_equal(got.stacked, np.array([step[column] for traj in trajs for step in traj]))


def same(a, b):
    return all(
        np.array_equal(x.stacked, y.stacked) and np.array_equal(x.lengths, y.lengths)
        for x, y in ((a.obs, b.obs), (a.a, b.a), (a.r, b.r), (a.adist, b.adist), (a.time, b.time))
    )


# ---- the batch


@pytest.mark.parametrize('kind', ['trained', 'untrained'])
@pytest.mark.parametrize('env_name', CLASSIC)
def test_a_batch_is_the_shortest_prefix_of_the_numbered_trajectories(env_name, kind):
    mdp = MDP(env_name)
    actor = policy_of(kind, mdp).actor()
    for min_num, min_sa, key in ((0, 900, (7, 0)), (3, 0, (7, 1)), (6, 500, (8, 'evaluate'))):
        cfg = SimConfig(min_num, min_sa, mdp.time_limit)
        expected = one_after_the_other(actor, env_name, key, min_num, min_sa, mdp.time_limit)
        assert_equal_batches(sample_batch(actor, mdp, cfg, key), expected)
        mdp.mean_len = None  # as if nothing had been sampled before: another number of slots
        assert_equal_batches(sample_batch(actor, mdp, cfg, key), expected)


@pytest.mark.parametrize('max_traj_len', [1, 17, 300])
def test_max_traj_len_cuts_trajectories_and_long_ones_use_several_chunks_of_noise(max_traj_len, monkeypatch):
    monkeypatch.setattr(rollout, 'NOISE_CHUNK', 40)
    mdp = MDP('MountainCar-v0')
    actor = policy_of('untrained', mdp).actor()
    batch = sample_batch(actor, mdp, SimConfig(2, 250, max_traj_len), (1, 2))
    assert batch.lengths.max() == min(max_traj_len, 200)
    assert_equal_batches(batch, one_after_the_other(actor, mdp.env_name, (1, 2), 2, 250, max_traj_len))


@pytest.mark.parametrize('env_name', CLASSIC)
def test_deterministic_actions_are_the_most_likely_ones(env_name):
    mdp = MDP(env_name)
    actor = policy_of('trained', mdp).actor()
    batch = sample_trajectories(actor, mdp, 4, 150, (3, 'x'), deterministic=True)
    np.testing.assert_array_equal(batch.a.stacked[:, 0], batch.adist.stacked.argmax(axis=1))
    assert_equal_batches(batch, one_after_the_other(actor, env_name, (3, 'x'), 4, 0, 150, deterministic=True))


@pytest.mark.parametrize('kind', ['trained', 'untrained'])
@pytest.mark.parametrize('max_slots', [1, 2, 7, 64])
def test_the_number_of_slots_and_earlier_calls_change_nothing(max_slots, kind, monkeypatch):
    key, cfg = (11, 4), SimConfig(0, 1500, 200)
    fresh = MDP('CartPole-v0')
    actor = policy_of(kind, fresh).actor()
    reference = sample_batch(actor, fresh, cfg, key)
    monkeypatch.setattr('policyopt.sampling.mdp.MAX_SLOTS', max_slots)
    mdp = MDP('CartPole-v0')
    for hint in (None, 1, 30, 10_000):
        mdp.mean_len = hint
        assert same(sample_batch(actor, mdp, cfg, key), reference), hint
        sample_trajectories(actor, mdp, 3, 5, (0, hint))  # leaves slots in the middle of an episode
        assert same(sample_batch(actor, mdp, cfg, key), reference), hint


def test_nets_of_the_default_size_play_the_same_on_25_and_on_250_slots():
    """A continued run knows no mean length and starts with fewer slots than the undisturbed one had at that iteration."""
    mdp, cfg = MDP('CartPole-v0'), SimConfig(0, 5000, 200)
    actor = random_policy(mdp.action_space, SIMPLE_ARCHITECTURE, obs_dim=4).actor()
    batches = []
    for mdp.mean_len in (200, 20):
        batches.append(sample_batch(actor, mdp, cfg, (0, 1)))
    assert same(*batches)


def test_other_seeds_and_streams_are_other_trajectories():
    mdp = MDP('CartPole-v0')
    actor = policy_of('untrained', mdp).actor()
    batches = [sample_trajectories(actor, mdp, 2, 200, key) for key in ((0, 0), (1, 0), (0, 1), (0, '0'), (0, 'evaluate'))]
    starts = {batch.obs[i][0].tobytes() for batch in batches for i in range(2)}
    assert len(starts) == 10
    assert len({batch.a.stacked.tobytes() for batch in batches}) == 5


def test_exactly_n_episodes_are_the_first_n_by_start_order():
    mdp = MDP('CartPole-v0')
    policy = policy_of('untrained', mdp)
    many = sample_episodes(policy, mdp, 30, seed=5)
    assert len(many) == 30 and len(set(many.lengths.tolist())) > 5
    for num in (1, 2, 13):
        few = sample_episodes(policy, mdp, num, seed=5)
        assert len(few) == num
        np.testing.assert_array_equal(few.obs.stacked, many.obs.stacked[: few.lengths.sum()])
    with pytest.raises(UserError, match='give 1 or more'):
        sample_episodes(policy, mdp, 0, seed=5)


@pytest.mark.parametrize(
    'quotas, expected',
    [
        ((-1, 5, 10), 'min_num_trajs is -1'),
        ((1, -5, 10), 'min_total_sa is -5'),
        ((0, 0, 10), 'at least 1'),
        ((1, 0, 0), 'max_traj_len is 0'),
    ],
)
def test_senseless_quotas_are_refused(quotas, expected):
    with pytest.raises(UserError, match=expected):
        SimConfig(*quotas)


def test_the_horizon_is_the_smaller_of_both_limits():
    mdp = MDP('CartPole-v0')
    assert (mdp.horizon(), mdp.horizon(50), mdp.horizon(1000)) == (200, 50, 200)
    for bad in (0, -3):
        with pytest.raises(UserError, match=f'max_traj_len is {bad}'):
            mdp.horizon(bad)


# ---- actors


def random_policy(space, spec, enable_obsnorm=True, dtype=torch.float64, obs_dim=6):
    rng = np.random.RandomState(0)
    policy = make_policy(ContinuousSpace(obs_dim), space, spec, enable_obsnorm, rng, dtype)
    policy.theta_P.add_(torch.as_tensor(rng.randn(len(policy.theta_P)) * 0.2))
    policy.update_obsnorm(rng.randn(50, obs_dim) * 3 + 1)
    return policy


def spec_of(func, n=100):
    return [{'type': 'fc', 'n': n}, {'type': 'nonlin', 'func': func}, {'type': 'fc', 'n': n}, {'type': 'nonlin', 'func': func}]


SPACES = pytest.mark.parametrize('space', [FiniteSpace(3), ContinuousSpace(2)], ids=['finite', 'continuous'])


@SPACES
@pytest.mark.parametrize('func', ['tanh', 'relu', 'lrelu', 'elu'])
@pytest.mark.parametrize('enable_obsnorm', [True, False])
def test_an_actor_equals_its_policy(space, func, enable_obsnorm):
    obs = np.random.RandomState(1).randn(37, 6) * 3
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        policy = random_policy(space, spec_of(func), enable_obsnorm, dtype)
        expected = policy.compute_adist(obs).numpy()
        np.testing.assert_allclose(policy.actor().adist(obs), expected, rtol=rtol, atol=rtol)


@SPACES
def test_an_actor_is_frozen(space):
    policy = random_policy(space, spec_of('tanh'))
    obs, actor = np.ones((1, 6)), policy.actor()
    before = actor.adist(obs)
    policy.theta_P.mul_(2)
    policy.update_obsnorm(np.full((100, 6), 50.0))
    np.testing.assert_array_equal(actor.adist(obs), before)


@SPACES
@pytest.mark.parametrize('func', ['tanh', 'elu'])
def test_a_row_does_not_depend_on_its_neighbours(space, func):
    """Bit for bit, for every batch size from 1 to 100: else the number of environments at work would change the results."""
    policy = random_policy(space, spec_of(func))
    actor, obs = policy.actor(), np.random.RandomState(2).randn(100, 6)
    alone = np.concatenate([actor.adist(row[None]) for row in obs])
    for num in range(1, 101):
        np.testing.assert_array_equal(actor.adist(obs[:num]), alone[:num])
    shuffled = np.random.RandomState(3).permutation(100)
    np.testing.assert_array_equal(actor.adist(obs[shuffled]), alone[shuffled])
    assert ACTOR_ROWS > 1
    assert actor.adist(obs[:0]).shape == (0, alone.shape[1])
    assert len(policy.act(obs[:0])) == 0


@SPACES
def test_sampled_actions_follow_the_distribution(space):
    policy = random_policy(space, TANH)
    actor, num = policy.actor(), 20_000
    adist = actor.adist(np.zeros((num, 6)))
    a = actor.act(adist, actor.noise(np.random.default_rng(0), num))
    if isinstance(space, FiniteSpace):
        assert a.shape == (num, 1) and a.dtype == np.int64
        freq, p = np.bincount(a[:, 0], minlength=3) / num, np.exp(adist[0])
        assert (abs(freq - p) < 4 * np.sqrt(p * (1 - p) / num)).all()
    else:
        mean, stdev = np.split(adist[0], 2)
        assert a.shape == (num, 2) and a.dtype == np.float64
        assert (abs(a.mean(axis=0) - mean) < 4 * stdev / np.sqrt(num)).all()
        np.testing.assert_allclose(a.std(axis=0), stdev, rtol=0.03)


# ---- environments that misbehave

BAD_MODULE = """
import gymnasium, numpy as np

class Bad(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault):
        self.fault = fault

    def answer(self, when):
        if self.fault == f'raise in {when}':
            raise ZeroDivisionError('the wheel came off')
        if self.fault == f'nan in {when}':
            return np.array([0.0, np.nan])
        if self.fault == f'shape in {when}':
            return np.zeros(3)
        return np.zeros(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.answer('reset'), {}

    def step(self, a):
        self.t += 1
        if self.t == 4:
            return self.answer('step'), float('inf') if self.fault == 'reward' else 1.0, False, False, {}
        return np.zeros(2), 1.0, False, False, {}

FAULTS = ['raise in reset', 'raise in step', 'nan in reset', 'nan in step', 'shape in reset', 'shape in step', 'reward']
for i, fault in enumerate(FAULTS):
    gymnasium.register(f'Bad{i}-v0', entry_point=lambda fault=fault: Bad(fault), max_episode_steps=10)
gymnasium.register('Endless-v0', entry_point=lambda: Bad(''))
"""


@pytest.fixture
def bad_module(tmp_path, monkeypatch):
    (tmp_path / 'badmod.py').write_text(textwrap.dedent(BAD_MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    monkeypatch.setenv('POLICYOPT_WORKERS', '1')
    return 'badmod'


FAULTS = {
    'raise in reset': ("'badmod:Bad0-v0' failed in reset()", 'ZeroDivisionError: the wheel came off'),
    'raise in step': ("'badmod:Bad1-v0' failed in step()", 'ZeroDivisionError: the wheel came off'),
    'nan in reset': ('NaN or infinity as an observation on reset', 'expected finite numbers'),
    'nan in step': ('NaN or infinity as an observation at step 3', 'expected finite numbers'),
    'shape in reset': ('shape (3,)', '(2,)'),
    'shape in step': ('shape (3,)', '(2,)'),
    'reward': ('NaN or infinity as a reward at step 3', 'finite'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_an_environment_that_misbehaves_is_one_clear_sentence(bad_module, fault):
    mdp = MDP(f'{bad_module}:Bad{list(FAULTS).index(fault)}-v0')
    policy = make_policy(mdp.obs_space, mdp.action_space, TANH)
    with pytest.raises(RunFailed) as e:
        sample_episodes(policy, mdp, 3, seed=0)
    assert all(part in str(e.value) for part in FAULTS[fault]), str(e.value)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize(
    'value, number', [('inf', None), ('1e9', None), ('2.5', None), ('0', None), ('9' * 20, None), ('3', 3), ('999', 256)]
)
def test_the_number_of_workers_is_a_whole_number_with_a_limit(monkeypatch, value, number):
    monkeypatch.setenv('POLICYOPT_WORKERS', value)
    if number is None:
        with pytest.raises(UserError, match=f"POLICYOPT_WORKERS is '{value}'; give a whole number above 0"):
            workers_from_env()
    else:
        assert workers_from_env() == number


def test_a_worker_reports_the_environments_own_error(bad_module, monkeypatch):
    monkeypatch.setenv('POLICYOPT_WORKERS', '2')
    mdp = MDP(f'{bad_module}:Bad1-v0')
    with pytest.raises(RunFailed, match='ZeroDivisionError: the wheel came off'):
        sample_episodes(make_policy(mdp.obs_space, mdp.action_space, TANH), mdp, 3, seed=0)


def test_a_failing_environment_ends_the_command_with_one_sentence(bad_module, run_script, tmp_path):
    common = ('--min_total_sa', 50, '--max_iter', 1, '--log', 'x.h5')
    done = run_script('run_rl_mj.py', '--env_name', 'badmod:Bad1-v0', *common, rc=1)
    assert done.stderr.strip().splitlines() == [
        "run_rl_mj: error: env 'badmod:Bad1-v0' failed in step() with ZeroDivisionError: the wheel came off"
    ]
    assert not list(tmp_path.glob('x.h5*'))


def test_an_environment_without_a_time_limit_needs_max_traj_len(bad_module):
    mdp = MDP(f'{bad_module}:Endless-v0')
    with pytest.raises(UserError, match='has no time limit of its own; give --max_traj_len'):
        mdp.horizon()
    assert mdp.horizon(12) == 12
    batch = sample_episodes(make_policy(mdp.obs_space, mdp.action_space, TANH), mdp, 3, seed=0, max_traj_len=12)
    assert batch.lengths.tolist() == [12, 12, 12]


def test_unknown_environments_are_named():
    with pytest.raises(UserError, match="'CartPol-v0'.*Did you mean 'CartPole"):
        MDP('CartPol-v0')
    with pytest.raises(UserError, match="no module 'nosuchmodule'"):
        MDP('nosuchmodule:Env-v0')
