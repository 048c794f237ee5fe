"""Corner cases and constants of learning that no golden vector reaches: ties, walls, stops, defaults, cloning of continuous actions."""

import inspect
import json
import math
import types

import numpy as np
import pytest
import torch

from policyopt import optim, policies, rl
from policyopt.cloning import BehavioralCloningOptimizer
from policyopt.errors import RunFailed, UserError
from policyopt.nn import ACTIVATIONS, FeedforwardNet, net_shapes
from policyopt.options import ImitationOptions
from policyopt.policies import make_policy
from policyopt.rewards import LinearReward, TransitionClassifier, chosen_outputs
from policyopt.standardizer import Standardizer
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Batch, ContinuousSpace, Expert, FiniteSpace
from policyopt.valuefuncs import HVP_FRAC, ConstantValueFunc, LinearValueFunc, ValueFunc

NET = [{'type': 'fc', 'n': 6}, {'type': 'nonlin', 'func': 'tanh'}]


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def random_rows(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape)


# ---- constants


def test_defaults_are_the_constants_of_2016():
    expected = {
        optim.conjugate_gradient: {'max_iter': 10, 'rtol': 1e-5},
        optim.backtracking_line_search: {'accept_ratio': 0.1, 'shrink': 0.5, 'max_steps': 10},
        optim.natural_gradient_step: {'max_cg_iter': 10, 'grad_stop_tol': 1e-6, 'enable_backtracking': True},
        optim.Adam: {'beta1': 0.9, 'beta2': 0.999, 'eps': 1e-8},
        rl.trpo_step: {'hvp_frac': 0.1},
        ValueFunc.fit: {'hvp_frac': 0.1},
        ValueFunc: {'enable_obsnorm': True},
        LinearValueFunc: {'ridge': 1e-5},
        Standardizer: {'eps': 1e-6},
        LinearReward: {'quadratic_features': False, 'sqscale': 0.01},
        ImitationOptions: {
            **{'bclone_lr': 1e-3, 'bclone_batch_size': 128, 'bclone_eval_freq': 1000, 'bclone_train_frac': 0.7},
            **{'vf_max_kl': 0.01, 'vf_cg_damping': 0.1},
            **{'reward_lr': 0.01, 'reward_steps': 1, 'reward_ent_reg_weight': 0.001},
        },
        make_policy: {'enable_obsnorm': True},
    }
    for function, defaults in expected.items():
        parameters = inspect.signature(function).parameters
        found = vars(ImitationOptions()) if function is ImitationOptions else {name: x.default for name, x in parameters.items()}
        assert {name: found[name] for name in defaults} == defaults, function
    assert HVP_FRAC == 0.1


# ---- optimisation


@pytest.mark.parametrize('ratio, rejected', [(0.0999, 10), (0.1, 0), (0.1001, 0), (-1, 10)])
def test_a_step_needs_a_tenth_of_the_linear_improvement(ratio, rejected):
    """A line along which f falls by a share of its slope; the eleventh factor is taken untested."""
    tried = []

    def f(x_P):
        tried.append(float(x_P))
        return -2 * ratio * float(x_P)

    x_P, found = optim.backtracking_line_search(f, vector(0), 0.0, -2.0, vector(1))
    assert found == rejected and float(x_P) == 0.5**rejected
    assert tried == [0.5**k for k in range(min(rejected + 1, 10))]


@pytest.mark.parametrize('kl, accepted', [(0.02, True), (0.02 * (1 + 1e-12), False), (0.011, True), (math.nan, False)])
def test_the_wall_is_at_twice_max_kl(kl, accepted):
    x = vector(0)
    step = optim.natural_gradient_step(x, 0.0, vector(1), lambda: (float(x), kl), lambda: torch.clone, 0.01, 0.1)
    assert step.num_backtracks == (0 if accepted else 10)


@pytest.mark.parametrize('largest, taken', [(0.99e-6, False), (1e-6, True), (-0.99e-6, False), (-1.01e-6, True)])
def test_a_tiny_gradient_stops_before_any_product(largest, taken):
    asked = []

    def make_hvp():
        asked.append(True)
        return torch.clone

    x = vector(3, 4)
    step = optim.natural_gradient_step(x, 7.0, vector(largest, 0), lambda: (0.0, 0.0), make_hvp, 0.01, 0.1)
    assert bool(asked) == taken and (not torch.equal(x, vector(3, 4))) == taken
    if not taken:
        assert (step.f, step.kl, step.num_backtracks) == (7.0, 0.0, 0)


def test_a_step_is_as_long_as_the_damped_quadratic_allows():
    """H = 3, damping 1, gradient 2: d = −½, and ½·d·4·d scaled to max_kl."""
    for max_kl in (0.01, 1e6):
        x = vector(0)
        step = optim.natural_gradient_step(x, 0.0, vector(2), lambda x=x: (2 * float(x), 0.0), lambda: lambda v: 3 * v, max_kl, 1.0)
        assert float(step.cg_solution_P) == -0.5
        assert float(x) == pytest.approx(-0.5 / math.sqrt(0.5 / max_kl + 1e-8), rel=1e-12)


@pytest.mark.parametrize('curvature', [0.0, -1.0])
def test_a_direction_without_curvature_is_an_error(curvature):
    with pytest.raises(RunFailed, match='not positive; raise the cg_damping options'):
        optim.conjugate_gradient(lambda v: curvature * v, vector(1, 2))


def test_a_curvature_that_is_no_number_is_one_that_left_the_finite_ones():
    with pytest.raises(optim.NotFinite, match='the curvature along a search direction'):
        optim.conjugate_gradient(lambda v: math.nan * v, vector(1, 2))


def test_conjugate_gradient_stops_at_its_tolerance_and_at_zero():
    scales = vector(*(1.0 + k for k in range(8)))
    x_P, r_P, num = optim.conjugate_gradient(lambda v: scales * v, torch.ones(8, dtype=torch.float64), max_iter=100, rtol=1e-2)
    np.testing.assert_allclose(r_P, 1 - scales * x_P, atol=1e-12)
    assert float(r_P.norm()) < 1e-2 * math.sqrt(8)
    *_, before, used = optim.conjugate_gradient(lambda v: scales * v, torch.ones(8, dtype=torch.float64), max_iter=num - 1, rtol=1e-2)
    assert used == num - 1 and float(before.norm()) >= 1e-2 * math.sqrt(8)
    x_P, _, num = optim.conjugate_gradient(lambda v: 1 / 0, vector(0, 0))
    assert num == 0 and not x_P.any()


def test_the_curvature_takes_a_tenth_of_the_rows():
    assert [len(optim.subsample_rows(n, 0.1, np.random.RandomState(0))) for n in (10, 19, 20)] == [1, 1, 2]
    with pytest.raises(UserError, match='a batch of 9 pairs is too small: 0.1 of it'):
        optim.subsample_rows(9, 0.1, np.random.RandomState(0))


@pytest.mark.parametrize(
    'shift, refused',
    [
        (0.005, ''),
        (0.02, 'not drawn from the present policy'),
        (-0.02, 'not drawn from the present policy'),
        (math.nan, 'the probability of an action in the batch'),
    ],
)
def test_a_batch_of_another_policy_is_refused(shift, refused):
    """Log-probabilities that are off by `shift`: more than 1% of a ratio is no rounding."""
    policy = make_policy(ContinuousSpace(3), FiniteSpace(2), NET, rng=np.random.RandomState(0))
    obs, a = random_rows(40, 3), np.arange(40)[:, None] % 2
    adist = policy.compute_adist(obs).numpy() + shift
    before = policy.theta_P.clone()
    if refused:
        with pytest.raises(RunFailed, match=refused):
            rl.trpo_step(policy, obs, a, adist, random_rows(40), max_kl=0.01, damping=0.1, rng=np.random.RandomState(0))
        assert torch.equal(policy.theta_P, before)
    else:
        rl.trpo_step(policy, obs, a, adist, random_rows(40), max_kl=0.01, damping=0.1, rng=np.random.RandomState(0))
        assert not torch.equal(policy.theta_P, before)


@pytest.mark.parametrize('func', ACTIVATIONS)
def test_slopes_at_zero_are_those_of_autograd(func):
    spec = [{'type': 'fc', 'n': 4}, {'type': 'nonlin', 'func': func}]
    shapes = list(net_shapes('/Net', spec, 3, 1).values())
    net_P = torch.zeros(sum(math.prod(s) for s in shapes), dtype=torch.float64)
    net = FeedforwardNet(spec, net_P, shapes)
    net_P[-5:] = 1.0  # the output layer; everything before is 0, and so is what the activation gets
    x = torch.as_tensor(random_rows(7, 3))
    theta_P = net_P.clone().requires_grad_()
    with torch.enable_grad():
        W, b, V, c = (theta_P[i : i + n].view(s) for i, n, s in zip((0, 12, 16, 20), (12, 4, 4, 1), shapes, strict=True))
        f = {'tanh': torch.tanh, 'relu': torch.relu, 'lrelu': torch.nn.functional.leaky_relu, 'elu': torch.nn.functional.elu}[func]
        (expected_P,) = torch.autograd.grad((f(x @ W + b) @ V + c).sum(), theta_P)
    np.testing.assert_allclose(net.forward_backward(x, lambda out, rows: torch.ones_like(out))[1], expected_P, atol=1e-12)


# ---- rewards


def classifier(steps=1, lr=0.01, favor_zero=False, weight=0.001, rng=None):
    spaces = ContinuousSpace(3), FiniteSpace(2)
    learning = {'reward_lr': lr, 'reward_steps': steps, 'reward_ent_reg_weight': weight}
    options = ImitationOptions(policy_hidden_spec=json.dumps(NET), favor_zero_expert_reward=int(favor_zero), **learning)
    return TransitionClassifier(options, *spaces, nets=NetConfig(rng or np.random.RandomState(0)))


def pairs(num, seed):
    return random_rows(num, 3, seed=seed), np.random.RandomState(seed).randint(2, size=(num, 1)), np.zeros(num)


def test_a_score_of_zero_counts_as_the_policys():
    """raccpi counts scores ≤ 0, raccex scores > 0; the net starts with scores of exactly 0."""
    fields, r_B = classifier(lr=0.0).fit(Batch(*pairs(20, 1)), Batch(*pairs(30, 2)))
    found = {name: value for name, value, _ in fields}
    assert (found['raccpi'], found['raccex'], found['racc']) == (1.0, 0.0, 0.5)
    assert found['rloss'] == pytest.approx(2 * math.log(2) * (1 - 0.001), rel=1e-12)
    np.testing.assert_allclose(r_B, math.log(2), rtol=1e-12)


def test_rewards_stay_exact_far_from_zero():
    """log σ(s) and −log(1 − σ(s)) where a literal formula, or a linear continuation from 20 on, would be off."""
    scores = vector(-700, -60, -30, -25, -1, 0, 1, 20.5, 25, 30, 60, 700)
    for favor_zero in (False, True):
        found = classifier(favor_zero=favor_zero).reward_of_scores(scores)
        sign = -1 if favor_zero else 1
        expected = [sign * (max(s, 0) + math.log1p(math.exp(-abs(s)))) for s in (sign * scores).tolist()]
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)


def test_the_classifier_falls_down_its_own_loss():
    """Gradient against differences of the loss it returns, with entropy weight large enough to see, unequal halves and repeated rows."""
    clf = classifier(weight=0.7)
    clf.theta_P.copy_(torch.as_tensor(random_rows(len(clf.theta_P), seed=3)))
    x, index = torch.as_tensor(random_rows(9, 3)), torch.as_tensor(np.arange(9)[:, None] % 2)
    labels, weight = torch.as_tensor([0.0] * 5 + [1.0] * 4).double(), torch.as_tensor(np.random.RandomState(4).rand(9))
    _, grad_P = clf.loss_gradient(x, index, labels, weight)

    def loss(theta_P):
        clf.theta_P.copy_(theta_P)
        s = chosen_outputs(clf.net.forward(x), index)
        p = torch.sigmoid(s)
        cross_entropy = -(labels * p.log() + (1 - labels) * (1 - p).log())
        entropy = -(p * p.log() + (1 - p) * (1 - p).log())
        expected = float((weight * (cross_entropy - 0.7 * entropy)).sum())
        assert clf.loss_gradient(x, index, labels, weight)[0] == pytest.approx(expected, rel=1e-10)
        return expected

    here_P = clf.theta_P.clone()
    for k in range(len(here_P)):
        step = torch.zeros_like(here_P)
        step[k] = 1e-5
        assert float(grad_P[k]) == pytest.approx((loss(here_P + step) - loss(here_P - step)) / 2e-5, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize('mode', ['l2ball', 'simplex'])
@pytest.mark.parametrize('include_time', [False, True])
def test_quadratic_features_are_all_products(mode, include_time):
    obs, a, t = random_rows(12, 2, seed=1), random_rows(12, 1, seed=2), np.arange(12.0)
    spaces = ContinuousSpace(2), ContinuousSpace(1)
    options = ImitationOptions(reward_type=mode, reward_include_time=int(include_time))
    reward = LinearReward(options, *spaces, 0.1, Expert(obs, a, t), np.random.RandomState(0), quadratic_features=True)
    raw = np.concatenate([obs, a], axis=1)
    z = (raw - raw.mean(axis=0)) / (raw.std(axis=0) + 1e-6)
    for row, z_row, time in zip(reward.features(Batch(obs, a, t)), z, t, strict=True):
        f = [*z_row, *([0.1 * time] if include_time else [])]
        expected = np.array([*f, *(x * y for x in f for y in f), 1.0])
        np.testing.assert_allclose(row, np.concatenate([expected, -expected]) if mode == 'simplex' else expected, rtol=1e-9)


# ---- policies and value functions


@pytest.mark.parametrize(
    'args, enabled',
    [
        ({}, True),
        ({'enable_obsnorm': 0}, False),
        ({'enable_obsnorm': 1}, True),
        ({'obsnorm_mode': 'none'}, False),
        ({'obsnorm_mode': 'online'}, True),
        ({'obsnorm_mode': 'expertdata'}, True),
    ],
)
def test_stored_options_say_whether_observations_are_normalised(args, enabled):
    snapshot = types.SimpleNamespace(file='x.h5', args={'policy_hidden_spec': '[]', **args})
    assert policies.snapshot_options(snapshot) == ('[]', enabled)


def test_times_never_seen_have_the_value_zero_and_one_sight_is_enough():
    constant = ConstantValueFunc(5)
    constant.fit(None, [0, 0, 1, 3], np.array([1.0, 3.0, 7.0, -2.0]))
    np.testing.assert_array_equal(constant.evaluate(None, [0, 1, 2, 3, 4]), [2.0, 7.0, 0.0, -2.0, 0.0])
    assert not LinearValueFunc().evaluate(np.ones((3, 2)), np.zeros(3)).any()


# ---- cloning


def test_cloning_of_continuous_actions():
    """Loss before the step, validation after it and every second time: the mean's squared error, summed over the dims of an action."""
    obs, a = random_rows(30, 3, seed=1), random_rows(30, 2, seed=2)
    policy = make_policy(ContinuousSpace(3), ContinuousSpace(2), NET, rng=np.random.RandomState(0))
    policy.update_obsnorm(obs)
    options = ImitationOptions(bclone_lr=0.05, bclone_batch_size=4, bclone_eval_freq=2, bclone_train_frac=0.5)
    opt = BehavioralCloningOptimizer(options, None, policy, Expert(obs, a, np.zeros(30)), NetConfig(np.random.RandomState(5)))
    rng = np.random.RandomState(5)
    order = rng.permutation(30)
    train, val = order[:15], order[15:]

    def log_density(rows):
        mean, stdev = np.split(policy.compute_adist(obs[rows]).numpy(), 2, axis=1)
        return (-(((a[rows] - mean) / stdev) ** 2) / 2 - np.log(stdev * math.sqrt(2 * math.pi))).sum(axis=1), mean

    for k in range(4):
        drawn = train[rng.choice(15, size=4)]
        loss = -log_density(drawn)[0].mean()
        found = {name: value for name, value, _ in opt.step()}
        assert found['iter'] == k and found['bcloss'] == pytest.approx(loss, rel=1e-9)
        if k % 2:
            assert found['valloss'] is None and found['valacc'] is None
        else:
            logp, mean = log_density(val)
            assert found['valloss'] == pytest.approx(-logp.mean(), rel=1e-9)
            assert found['valacc'] == pytest.approx(-((mean - a[val]) ** 2).sum(axis=1).mean(), rel=1e-9)
    assert policy.own_P.any(), 'standard deviations are learned too'


@pytest.mark.parametrize('num, frac, good', [(3, 0.3, False), (4, 0.3, True), (4, 1.0, False), (2, 0.5, True)])
def test_both_parts_of_the_split_need_a_pair(num, frac, good):
    policy = make_policy(ContinuousSpace(3), FiniteSpace(2), NET)

    def make():
        expert = Expert(random_rows(num, 3), np.zeros((num, 1), int), np.zeros(num))
        options = ImitationOptions(bclone_train_frac=frac)
        return BehavioralCloningOptimizer(options, None, policy, expert, NetConfig(np.random.RandomState(0)))

    if good:
        assert len(make().val_rows) == num - int(frac * num)
    else:
        with pytest.raises(UserError, match='both need at least 1'):
            make()
