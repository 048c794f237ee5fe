"""The standardiser's moments: of features far from 0, in nets of both types, and in files."""

from typing import Any

import numpy as np
import pytest
import torch

import policyopt as po
from policyopt.standardizer import Standardizer

FEATURES = {
    'pressure hPa': (1013.0, 0.1),
    'kelvin': (300.0, 0.05),
    'height m': (50.0, 0.003),
    'joint rad': (1.5, 1e-3),
    'northing m': (5.2e6, 0.5),
    'unix time s': (1.76e9, 10.0),
    'centred': (0.0, 2.0),
}
FLOAT32_HOLDS = ('kelvin', 'joint rad', 'centred')


def rows(what, num=5000):
    mean, sd = FEATURES[what]
    return mean + sd * np.random.default_rng(0).normal(size=(num, 1))


@pytest.mark.parametrize('what, dtype', [(w, torch.float64) for w in FEATURES] + [(w, torch.float32) for w in FLOAT32_HOLDS])
@pytest.mark.parametrize('weighted', [False, True])
def test_the_reported_deviation_is_that_of_the_rows(what, dtype, weighted):
    x = torch.as_tensor(rows(what)).to(dtype)
    counts = np.random.default_rng(1).integers(1, 4, size=len(x)) if weighted else np.ones(len(x), int)
    norm, held = Standardizer(1, dtype), np.repeat(x.double().numpy(), counts, axis=0)
    for part, count in zip(x.split(1000), torch.as_tensor(counts, dtype=dtype).split(1000), strict=True):
        norm.update(part, count if weighted else None)
    np.testing.assert_allclose(float(norm.stdev_1_D), held.std(), rtol=2e-3)
    z = norm.standardize(x)
    assert z.dtype == dtype and abs(float(np.repeat(z.numpy(), counts, axis=0).std()) - 1) < 0.01
    np.testing.assert_allclose(norm.unstandardize(z).double(), x.double(), rtol=1e-6, atol=1e-6)


def test_moments_of_float32_nets_are_those_of_float64():
    x = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 3)) + 300)
    norms = [Standardizer(3, dtype) for dtype in (torch.float64, torch.float32)]
    for norm in norms:
        norm.update(x)
    assert torch.equal(norms[0].mean_1_D, norms[1].mean_1_D) and torch.equal(norms[0].stdev_1_D, norms[1].stdev_1_D)
    assert torch.equal(norms[1].standardize(x), norms[0].standardize(x).float())


def test_features_of_float64_have_the_bits_of_2016_unless_they_are_rounding():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(1000, 2)) * [1, 1e-4] + [0, 20], np.full((1000, 1), 0.3), np.zeros((1000, 1))], axis=1)
    norm = Standardizer(4)
    for part in torch.as_tensor(x).split(100):
        norm.update(part)
    assert norm.var_1_D is None and torch.equal(norm.stdev_1_D, (norm.meansq_1_D - norm.mean_1_D**2).clamp(min=0).sqrt())


def test_a_policy_far_from_zero_is_the_same_after_its_file(tmp_path):
    obs_B_Do = np.concatenate([rows('unix time s'), rows('centred'), rows('northing m')], axis=1)
    policy = po.make_policy(po.ContinuousSpace(3), po.FiniteSpace(5), '[{"type":"fc","n":8},{"type":"nonlin","func":"tanh"}]')
    policy.theta_P.copy_(torch.as_tensor(np.random.RandomState(0).normal(size=len(policy.theta_P))))
    for part in np.split(obs_B_Do, 5):
        policy.update_obsnorm(part)
    assert len(set(policy.act(obs_B_Do))) > 2
    po.write_run(tmp_path / 'run.h5', policy, {'trueret': [1.0]})
    again = po.load_policy(tmp_path / 'run.h5')
    assert np.array_equal(again.act(obs_B_Do), policy.act(obs_B_Do)) and torch.equal(again.obsnorm.stdev_1_D, policy.obsnorm.stdev_1_D)
    plain = po.make_policy(po.ContinuousSpace(3), po.FiniteSpace(5), policy.hidden_spec)
    policy.load(plain.export(), 'one without such features')
    assert policy.obsnorm.var_1_D is None
    module = again.to_torch()(torch.as_tensor(obs_B_Do)).numpy()
    assert np.mean(module == again.act(obs_B_Do)) > 0.999


@pytest.mark.parametrize('algorithm', ['bclone', 'ga', 'airl'])
def test_float32_learns_of_an_offset_what_float64_learns(algorithm):
    """Observations that only differ by an offset give policies that act alike, in both types."""
    rng, runs = np.random.default_rng(0), []
    obs = [rng.normal(size=(60, 4)) * 0.05 for _ in range(3)]
    actions = [(o[:, 2] + o[:, 3] > 0).astype(int) for o in obs]
    for offset, dtype in ((0, 'float64'), (300, 'float64'), (300, 'float32')):
        demos = po.Demonstrations.from_arrays([o + offset for o in obs], actions)
        small: dict[str, Any] = {'min_total_sa': 50, 'sim_batch_size': 1} | ({'bclone_batch_size': 50} if algorithm == 'bclone' else {})
        run = po.train(algorithm, 'CartPole-v0', demos, iterations=30 if algorithm == 'bclone' else 2, seed=0, dtype=dtype, **small)
        runs.append(run.policy.compute_adist(np.concatenate(obs) + offset).double().numpy())
    if algorithm == 'bclone':
        np.testing.assert_allclose(runs[1], runs[0], atol=1e-6)
    np.testing.assert_allclose(runs[2], runs[1], atol=0.02)
