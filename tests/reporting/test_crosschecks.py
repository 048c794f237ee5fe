"""Our statistics next to statsmodels and rliable, which share no code with them: pip install -e '.[crosscheck]'."""

import warnings

import numpy as np
import pytest

from policyopt.reporting.reference import CellKey, Reference
from policyopt.reporting.statistics import Sets, holm, predict_one_set
from policyopt.reproduction.aggregate import Pair, Row, between_of, bootstrap

pytestmark = pytest.mark.slow


def pair(y_N, x_M, set_N=None, task='cartpole', alg='ga'):
    """One cell as scores."""
    sets = np.zeros(len(y_N), int) if set_N is None else set_N
    return Pair(CellKey(task, alg, 4), y_N, sets, Reference(float(x_M.mean()), float(x_M.std(ddof=1)), len(x_M), x_M))


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip('statsmodels.stats.multitest')
    rng = np.random.default_rng(0)
    for num in (1, 2, 7, 48):
        p_K = rng.uniform(size=num) ** 3
        assert holm(p_K) == pytest.approx(multitest.multipletests(p_K, method='holm')[1])


@pytest.mark.parametrize('margin', [0.05, 0.3])
def test_two_one_sided_tests_and_intervals_of_a_cell_are_those_of_statsmodels(margin):
    weightstats = pytest.importorskip('statsmodels.stats.weightstats')
    rng = np.random.default_rng(1)
    for shift, num, ref_num in ((0.0, 7, 7), (0.1, 5, 20), (-0.2, 30, 4)):
        y_N, x_M = rng.normal(0.5 + shift, 0.1, num), rng.normal(0.5, 0.3, ref_num)
        row = Row([pair(y_N, x_M)], {}, margins={'': margin})
        assert row.tost_p == pytest.approx(weightstats.ttost_ind(y_N, x_M, -margin, margin, usevar='unequal')[0])
        both = weightstats.CompareMeans(weightstats.DescrStatsW(y_N), weightstats.DescrStatsW(x_M))
        for level in (0.9, 0.95):
            assert row.interval(level) == pytest.approx(both.tconfint_diff(1 - level, usevar='unequal'))


@pytest.mark.parametrize('num_sets, runs', [(5, 7), (20, 8), (8, 2)])
def test_balanced_variance_components_are_those_of_a_mixed_model(num_sets, runs):
    mixed = pytest.importorskip('statsmodels.regression.mixed_linear_model')
    rng, set_N = np.random.default_rng(num_sets), np.repeat(np.arange(num_sets), runs)
    y_N = rng.normal(0, 2, num_sets)[set_N] + rng.normal(0, 1, set_N.size)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # on how its optimiser ends
        fit = mixed.MixedLM(y_N, np.ones((y_N.size, 1)), groups=set_N).fit(reml=True)
    found = predict_one_set(Sets(y_N, set_N), runs)
    assert found.sd_between > 0 and found.sd_between**2 == pytest.approx(float(np.squeeze(fit.cov_re)), rel=1e-3)
    assert found.sd_within**2 == pytest.approx(fit.scale, rel=1e-3)
    assert between_of([(y_N, set_N)]).var == pytest.approx(found.sd_between**2)


def test_interquartile_mean_and_probability_of_improvement_are_those_of_rliable():
    metrics, library = pytest.importorskip('rliable.metrics'), pytest.importorskip('rliable.library')
    rng, cells, runs = np.random.default_rng(2), 6, 10
    ours_R_K, theirs_R_K = rng.normal(0.6, 0.2, (runs, cells)), rng.normal(0.5, 0.3, (runs, cells))
    pairs = [pair(ours_R_K[:, k], theirs_R_K[:, k], task=f't{k}') for k in range(cells)]
    (better, *better_ends), (iqm, *ends), (ref_iqm, *ref_ends) = bootstrap(pairs, seed=0, num=4000)
    assert iqm == pytest.approx(metrics.aggregate_iqm(ours_R_K)) and ref_iqm == pytest.approx(metrics.aggregate_iqm(theirs_R_K))
    assert better == pytest.approx(metrics.probability_of_improvement(ours_R_K, theirs_R_K))
    scores = {'ours': ours_R_K, 'theirs': theirs_R_K}
    _, found = library.get_interval_estimates(scores, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=2000)
    assert (ends, ref_ends) == tuple(pytest.approx(found[name].ravel().tolist(), abs=0.01) for name in scores)
    both = {'ours,theirs': (ours_R_K, theirs_R_K)}
    _, found = library.get_interval_estimates(both, lambda x, y: np.array([metrics.probability_of_improvement(x, y)]), reps=500)
    assert better_ends == pytest.approx(found['ours,theirs'].ravel().tolist(), abs=0.03)
