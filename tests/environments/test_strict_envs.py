"""Environments that check what they are given, that break Gymnasium's API, or that no net takes as they are."""

import fractions
import re
import types

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

import policyopt as po
from policyopt.environments import rlgymenv
from policyopt.environments.rlgymenv import SingleEnv, env_info

spaces = gymnasium.spaces
SMALL = {'iterations': 2, 'seed': 0, 'min_total_sa': 60, 'progress': False}


class Point(gymnasium.Env):
    """A point on a line; `returned` and `on_reset` change what step and reset return."""

    observation_space = spaces.Box(-10, 10, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1)
        return self.on_reset(np.array([self.x], np.float32))

    def step(self, action):
        self.check(action)
        self.x += 0.1 * float(np.clip(action, -1, 1)[0])
        return self.returned(np.array([self.x], np.float32), -abs(self.x))

    def check(self, action):
        pass

    def on_reset(self, obs):
        return obs, {}

    def returned(self, obs, r):
        return obs, r, False, False, {}


class Asserting(Point):
    def check(self, action):
        assert self.action_space.contains(action), f'{action!r} invalid'


class Wide(Asserting):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


class Half(Asserting):
    action_space = spaces.Box(-1, 1, (1,), np.float16)


class Double(Asserting):
    action_space = spaces.Box(-1, 1, (1,), np.float64)


class Counted(Asserting):
    action_space = spaces.Discrete(3)

    def check(self, action):
        assert self.action_space.contains(action) and type(action) is int

    def step(self, action):
        self.check(action)
        return self.returned(np.array([self.x], np.float32), 0.0)


def timed(env):
    return gymnasium.wrappers.TimeLimit(env, 20)


ENVS = {
    'asserting': (lambda: timed(Asserting()), {'clip_actions': 1}),
    'float16': (lambda: timed(Half()), {'clip_actions': 1}),
    'float64': (lambda: timed(Double()), {'clip_actions': 1}),
    'without bounds': (lambda: timed(Wide()), {}),
    'clipped by a wrapper': (lambda: timed(gymnasium.wrappers.ClipAction(Asserting())), {}),
    'rescaled': (
        lambda: timed(gymnasium.wrappers.ClipAction(gymnasium.wrappers.RescaleAction(Asserting(), np.float32(-2), np.float32(2)))),
        {},
    ),
    'plain': (lambda: timed(Point()), {}),
    'finite': (lambda: timed(Counted()), {}),
}


@pytest.mark.parametrize('name', ENVS)
def test_actions_arrive_in_the_type_of_the_action_space(name):
    env, options = ENVS[name]
    expert = po.train('trpo', env, **SMALL, **options)
    demos = po.Demonstrations.record(expert.policy, env, 3)
    assert len(po.train('ga', env, demos, **SMALL, **options).log) == 2
    assert len(po.evaluate(expert.policy, env, 2).returns) == 2


def test_tasks_that_we_have_as_numpy_get_float64_from_both():
    pytest.importorskip('mujoco', reason='MuJoCo is not installed')
    env = SingleEnv('legacy/Reacher-v1')
    assert env._a_dtype == np.float64 and SingleEnv('Pendulum-v1')._a_dtype == np.float32


def test_an_action_outside_the_box_that_is_refused_is_answered_with_the_option():
    with pytest.raises(po.RunFailed, match=r'AssertionError.*the action \[.*\] is outside the action space: .*clip_actions.*1 clips it'):
        po.train('trpo', ENVS['asserting'][0], **SMALL)


class Untold(Exception):
    def __str__(self):
        raise ValueError


class Unshown:
    def __repr__(self):
        raise SystemExit(0)


def fail(error):
    raise error


def case(base=Point, **methods):
    return type('Odd', (base,), {name: staticmethod(f) for name, f in methods.items()})


ODD = {
    'four values': (
        case(returned=lambda o, r: (o, r, False, {})),
        r'failed in step\(\) with ValueError.*expected \(observation, reward, term.*shimmy',
    ),
    'no tuple': (case(returned=lambda o, r: o), r'failed in step\(\)'),
    'array reward': (case(returned=lambda o, r: (o, np.array([r]), False, False, {})), r'step\(\) returned a reward of array\(\['),
    'no reward': (case(returned=lambda o, r: (o, None, False, False, {})), r'a reward of None'),
    'endless reward': (case(returned=lambda o, r: (o, 10**400, False, False, {})), r'a reward of 1000000'),
    'a word as a reward': (case(returned=lambda o, r: (o, '1.5', False, False, {})), r"a reward of '1\.5'"),
    'a reward that cannot be shown': (case(returned=lambda o, r: (o, Unshown(), False, False, {})), r'a reward of an Unshown,'),
    'a word as an end': (case(returned=lambda o, r: (o, r, 'False', False, {})), r"terminated of 'False'"),
    'an endless observation': (case(returned=lambda o, r: ([10**400], r, False, False, {})), r'returned an observation of \[1000000'),
    'an error that cannot be told': (case(returned=lambda o, r: fail(Untold())), r'failed in step\(\) with Untold$'),
    'the end of a generator': (case(returned=lambda o, r: fail(GeneratorExit())), r'failed in step\(\) with GeneratorExit'),
    'a complex reward': (case(returned=lambda o, r: (o, np.complex128(r), False, False, {})), r'a reward of np.complex128'),
    'a masked reward': (case(returned=lambda o, r: (o, np.ma.masked, False, False, {})), r'a reward of masked'),
    'an array of a word as a reward': (case(returned=lambda o, r: (o, np.array('1.5'), False, False, {})), r"a reward of array\('1\.5'"),
    'bytes as a reward': (case(returned=lambda o, r: (o, b'1.5', False, False, {})), r"a reward of b'1\.5'"),
    'two tensors as a reward': (case(returned=lambda o, r: (o, torch.zeros(2), False, False, {})), r'a reward of tensor\(\['),
    **{
        f'{end!r} as an end': (
            case(returned=lambda o, r, i=i, end=end: (o, r, *((end, False) if i else (False, end)), {})),
            rf'{"terminated" if i else "truncated"} of {re.escape(repr(end))}.*expected a float, a bool and a bool',
        )
        for i, end in enumerate([np.nan, None, np.ma.masked, [False], {'TimeLimit.truncated': True}, 1j, 0.5, 2])
    },
    'complex observations': (case(returned=lambda o, r: (o + 1j, r, False, False, {})), r'an observation of array\(.*complex64'),
    'masked observations': (case(on_reset=lambda o: (np.ma.array(o, mask=True), {})), r'reset.* observation of masked_array'),
    'words as observations': (case(returned=lambda o, r: (['1.5'], r, False, False, {})), r"observation of \['1\.5'\]; expected"),
    'dates as observations': (case(returned=lambda o, r: (o.astype('M8[D]'), r, False, False, {})), r'datetime64\[D\]\'\); expected'),
    'observations without a mean square': (
        case(returned=lambda o, r: ([1e300], r, False, False, {})),
        r'returned numbers up to 1e\+300 as an observation at step 0; expected numbers below 1e\+150',
    ),
    'many ends': (case(returned=lambda o, r: (o, r, np.zeros(2), False, {})), r'terminated of array\(\[0\., 0\.\]\)'),
    'scalar': (
        case(returned=lambda o, r: (o[0], r, False, False, {})),
        r'step\(\) returned an obs.* of shape \(\).*np.array\(\[x\]\)',
    ),
    'dict': (
        case(returned=lambda o, r: ({'x': o}, r, False, False, {})),
        r"step\(\) returned an obs.* of {'x': array.*; expected an array",
    ),
    'reset without info': (case(on_reset=lambda o: o), r'failed in reset\(\) with ValueError.*expected \(observation, info\).*shimmy'),
    'reset of a number': (case(on_reset=lambda o: (o[0], {})), r'reset\(\) returned an observation of shape \(\)'),
    'reset with three': (case(on_reset=lambda o: (o, {}, 1)), r'failed in reset\(\) with ValueError.*expected \(observation, info\)'),
    'reset without a seed': (
        type('Old', (Point,), {'reset': lambda self: np.zeros(1)}),
        r'with TypeError.*from reset\(self, seed',
    ),
}


@pytest.mark.parametrize('name', ODD)
@pytest.mark.parametrize('wrapped', [False, True], ids=['bare', 'time limit'])
def test_what_breaks_the_api_is_named_with_the_part_that_does(name, wrapped):
    cls, says = ODD[name]
    with pytest.raises(po.RunFailed, match=says):
        po.train('trpo', timed(cls()) if wrapped else cls, max_traj_len=20, **SMALL)


NUMBERS = {
    'arrays of one': lambda o, r: (o, np.array(r), np.array([False]), np.bool_(False), {}),
    'tensors': lambda o, r: (
        torch.tensor(o, requires_grad=True),
        torch.tensor(r, dtype=torch.float64),
        torch.tensor(False),
        torch.tensor([False]),
        {},
    ),
    'rows of a table': lambda o, r: (o.astype(object), fractions.Fraction(r), 0, 0.0, {}),
}


@pytest.mark.parametrize('name', NUMBERS)
def test_numbers_of_any_type_are_taken(name):
    expected = po.train('trpo', Point, max_traj_len=20, **SMALL).policy.theta_P
    assert po.train('trpo', case(returned=NUMBERS[name]), max_traj_len=20, **SMALL).policy.theta_P.equal(expected)


SPECS = {
    'a word': ('Point-v0', r"env 'Odd' has a spec of type str \(Point-v0\); expected an EnvSpec of Gymnasium"),
    **{
        f'a limit of {limit}': (EnvSpec('Point-v0', max_episode_steps=limit), f"env 'Point-v0' has a time limit of '{limit}' steps; exp")
        for limit in ('20', 20.5, -1, 0, np.nan, True)
    },
    **{f'the name {name!r}': (types.SimpleNamespace(id=name, max_episode_steps=9), 'env is .*printable') for name in (None, '', 'a\nb')},
}


@pytest.mark.parametrize('name', SPECS)
def test_an_odd_spec_is_refused_before_anything_is_played(name):
    spec, says = SPECS[name]
    with pytest.raises(po.UserError, match=says):
        env_info(type('Odd', (Point,), {'spec': spec}))


FLAT = 'Wrap it in gymnasium.wrappers.FlattenObservation'
OBS_SPACES = {
    'dict': (spaces.Dict({'a': spaces.Box(-1, 1, (2,)), 'b': spaces.Discrete(3)}), FLAT),
    'tuple': (spaces.Tuple([spaces.Discrete(2)]), FLAT),
    'discrete': (spaces.Discrete(4), FLAT),
    'bits': (spaces.MultiBinary(3), FLAT),
    'numbers': (spaces.MultiDiscrete([2, 3]), FLAT),
    'image': (spaces.Box(0, 255, (8, 8, 3), np.uint8), FLAT + r' \(the nets have no convolutions'),
    'scalar': (spaces.Box(-1, 1, ()), FLAT),
}


@pytest.mark.parametrize('name', OBS_SPACES)
def test_a_refused_observation_space_says_the_wrapper_that_makes_it_fit(name):
    space, says = OBS_SPACES[name]

    class Odd(Point):
        observation_space = space

    with pytest.raises(po.UserError, match=f'{says}.*docs/data.md'):
        env_info(Odd)
    wrapped = env_info(lambda: gymnasium.wrappers.FlattenObservation(Odd()))
    assert wrapped.obs_dim > 0


@pytest.mark.parametrize(
    'space', [spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3]), spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2, 2))]
)
def test_a_refused_action_space_says_the_wrapper_that_makes_it_fit(space):
    class Odd(Point):
        action_space = space

    with pytest.raises(po.UserError, match='Wrap it in gymnasium.wrappers.TransformAction.*docs/data.md'):
        env_info(Odd)


# ---- seeds, and environments of which only one can exist


class Constant(Point):
    """Every instance draws the same numbers, whatever the seed."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def reset(self, seed=None, options=None):
        self.x = self.rng.uniform(-1, 1)
        return np.array([self.x], np.float32), {}


class Fresh(Constant):
    def __init__(self):
        self.rng = np.random.default_rng()


class Fixed(Point):
    def reset(self, seed=None, options=None):
        return super().reset(seed=0)


class Global(Point):
    def reset(self, seed=None, options=None):
        self.x = np.random.uniform(-1, 1)
        return np.array([self.x], np.float32), {}


class Own(Constant):
    """Draws from a generator of its own, seeded as it should be."""

    def reset(self, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        return super().reset()


class Same(Point):
    """Starts where it always starts, which is no fault."""

    def reset(self, seed=None, options=None):
        self.x = 0.0
        return np.zeros(1, np.float32), {}


@pytest.mark.parametrize('cls, warned', [(Constant, 1), (Fresh, 1), (Fixed, 1), (Global, 1), (Point, 0), (Own, 0), (Same, 0)])
def test_one_warning_says_that_reset_ignores_its_seed(cls, warned, capsys):
    rlgymenv._print_once.cache_clear()
    for _ in range(2):
        po.train('trpo', lambda: timed(cls()), **SMALL)
    assert capsys.readouterr().err.count('reset() ignores its seed') == warned


class Only(Point):
    """A second one cannot be made while the first is there."""

    alive = most = 0

    def __init__(self):
        if Only.alive:
            raise OSError('port 5000 is in use')
        Only.alive += 1

    def close(self):
        Only.alive -= 1


class Counting(Point):
    alive = most = 0

    def __init__(self):
        Counting.alive += 1
        Counting.most = max(Counting.most, Counting.alive)

    def close(self):
        Counting.alive -= 1


def test_an_environment_of_which_only_one_can_exist_plays_what_many_play(capsys):
    expected = po.train('trpo', lambda: timed(Point()), **SMALL).policy.theta_P
    run = po.train('trpo', lambda: timed(Only()), **SMALL)
    said = capsys.readouterr().err
    assert run.policy.theta_P.equal(expected) and 'port 5000 is in use; playing in 1 at a time (--max_envs 1' in said
    assert po.train('trpo', lambda: timed(Only()), max_envs=1, **SMALL).policy.theta_P.equal(expected)
    assert 'port' not in capsys.readouterr().err and Only.alive == 0
    for most in (1, 2):
        Counting.most = 0
        assert po.train('trpo', lambda: timed(Counting()), max_envs=most, **SMALL).policy.theta_P.equal(expected)
        assert Counting.most == most
    assert len(po.evaluate(run.policy, lambda: timed(Only()), 3).returns) == 3


@pytest.mark.parametrize('method', ['step', 'render'])
def test_a_mistake_within_an_environment_is_not_called_an_old_api(method):
    class Mistaken(Point):
        def check(self, action):
            _, _ = (1,)

        def render(self):
            return self.check(None)

    env = SingleEnv(Mistaken())
    env.reset(0)
    with pytest.raises(po.RunFailed, match=rf'failed in {method}\(\) with ValueError: not enough values to unpack \(expected 2, got 1\)$'):
        env.step(np.zeros(1)) if method == 'step' else env.render()
