"""The bound that gives the linear rewards their sign: of which rewards it is, that it is logged, continued, and refused elsewhere."""

import signal

import numpy as np
import pytest
from training_tools import differences, run, run_until
from training_tools import folder as folder

import policyopt as po
from policyopt.files.training_log import TrainingLog, read_log, read_root
from policyopt.options import ImitationOptions
from policyopt.rewards import LinearReward
from policyopt.trajectories import Batch, ContinuousSpace, Expert


def rows(seed, scale):
    rng = np.random.RandomState(seed)
    return scale * rng.randn(8, 2), scale * rng.randn(8, 1), np.zeros(8)


@pytest.mark.parametrize('mode', ['l2ball', 'simplex'])
@pytest.mark.parametrize('favor_zero', [False, True])
@pytest.mark.parametrize('shift', ['running', 'batch', 'none'])
def test_the_bound_is_that_of_all_rewards_of_the_batch_or_there_is_none(shift, favor_zero, mode):
    """running: it starts at 0 and only moves outward; batch: its own end, which becomes 0; none: rewards as they are."""
    spaces = ContinuousSpace(2), ContinuousSpace(1)
    options = ImitationOptions(reward_type=mode, favor_zero_expert_reward=int(favor_zero), reward_shift=shift)

    def linear():
        return LinearReward(options, *spaces, 0.1, Expert(*rows(1, 1.0)), np.random.RandomState(0))

    reward = linear()
    outward, bound = max if favor_zero else min, 0.0
    for seed, scale in ((3, 1e-3), (4, 5.0), (5, 1e-3), (6, 2.0)):
        batch = Batch(*rows(seed, scale))
        for learn in (False, True):
            r_B = reward.fit(batch)[1] if learn else reward.compute_reward(batch)
            raw = [float(f[reward.w] if mode == 'simplex' else f @ reward.w) / len(f) for f in reward.features(batch)]
            if shift != 'none':
                bound = outward([bound, *raw] if shift == 'running' else raw)
            np.testing.assert_allclose(r_B, np.array(raw) - bound, rtol=1e-9, atol=1e-12)
            assert reward.further_fields() == [('reward_bound', pytest.approx(bound, rel=1e-12), float)]
    loaded = linear()
    loaded.load_learned(reward.learned(), 'run.h5')
    raw = reward.compute_reward(batch) + reward.reward_bound
    for part in (slice(None), slice(3)):  # taken out of its run, a reward of a pair does not depend on what else is judged
        np.testing.assert_allclose(loaded.learned_reward(*(x[part] for x in batch[:3])), raw[part] - bound, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('name', ['l2ball', 'simplex'])
def test_a_stopped_run_with_the_batchs_bound_continues_bit_for_bit(name, folder):
    few = ('--max_iter', 12, '--reward_shift', 'batch')
    run(name, folder, *few, '--log', f'{name}_whole.h5')
    assert run_until(name, folder, 3, signal.SIGTERM, *few, '--log', f'{name}_parts.h5') == 75
    changed = run(name, folder, '--max_iter', 12, '--log', f'{name}_parts.h5', '--resume', rc=2).stderr
    assert 'was started with --reward_shift batch, not running' in changed
    run(name, folder, *few, '--log', f'{name}_parts.h5', '--resume')
    assert differences(folder / f'{name}_whole.h5', folder / f'{name}_parts.h5') == []
    bound = read_log(folder / f'{name}_whole.h5')['reward_bound']
    assert (np.diff(np.abs(bound)) < 0).any(), 'it moves inward too'


def test_a_run_from_before_the_column_is_continued_with_it(folder):
    few = ('--max_iter', 12)
    run('l2ball', folder, *few, '--log', 'new.h5')
    assert run_until('l2ball', folder, 3, signal.SIGTERM, *few, '--log', 'old.h5') == 75
    log = TrainingLog(str(folder / 'old.h5'), {})
    state = log.restore(log.part_path)
    log.columns, log.rows = log.columns[:-1], [row[:-1] for row in log.rows]
    log.attrs['args'] = log.attrs['args'].replace(', "reward_shift": "running"', '')
    log.save(state)
    done = len(log.rows)
    assert 'reward_bound' not in read_log(log.part_path).dtype.names and 'reward_shift' not in read_root(log.part_path)['args']
    run('l2ball', folder, *few, '--log', 'old.h5', '--resume')
    old, new = read_log(folder / 'old.h5'), read_log(folder / 'new.h5')
    assert differences(folder / 'old.h5', folder / 'new.h5') == ['/log:reward_bound', 'args']
    assert old.dtype == new.dtype and np.isnan(old['reward_bound'][:done]).all()
    np.testing.assert_array_equal(old['reward_bound'][done:], new['reward_bound'][done:])


def test_a_log_has_the_same_columns_in_every_row():
    log = TrainingLog(None, {})
    log.append([('iter', 0, int), ('l2', 1.0, float)])
    with pytest.raises(ValueError, match='log columns changed'):
        log.append([('iter', 1, int), ('l2', 1.0, float), ('reward_bound', 0.0, float)])


def test_the_option_is_refused_where_no_reward_has_a_bound(folder):
    said = '--reward_shift none with --reward_type nn; expected it only with --reward_type l2ball or simplex'
    assert said in run('ga', folder, '--reward_shift', 'none', rc=2).stderr
    demos = po.Demonstrations.load(folder / 'trajs.h5')
    with pytest.raises(po.UserError, match='reward_shift=none with reward_type=nn; expected it only with reward_type= l2ball or simplex'):
        po.train('ga', 'CartPole-v0', demos, iterations=1, reward_shift='none', progress=False)
    with pytest.raises(po.UserError, match="reward_shift 'btach'; expected 'running' or 'batch' or 'none'"):
        po.train('fem', 'CartPole-v0', demos, iterations=1, reward_shift='btach', progress=False)
    run('ga', folder, '--max_iter', 1, '--log', 'ga_of_one.h5')
    assert 'reward_shift' not in read_root(folder / 'ga_of_one.h5')['args']


def test_python_trains_what_the_command_trains(folder):
    run('simplex', folder, '--max_iter', 3, '--reward_shift', 'none', '--log', 'command.h5')
    stored = read_root(folder / 'command.h5')['args']
    demos = po.Demonstrations.load(folder / 'trajs.h5')
    same = {k: stored[k] for k in ('min_total_sa', 'policy_hidden_spec', 'favor_zero_expert_reward', 'data_subsamp_freq', 'reward_shift')}
    trained = po.train('simplex', 'CartPole-v0', demos, iterations=3, seed=3, progress=False, **same)
    log = read_log(folder / 'command.h5')
    np.testing.assert_array_equal(trained.log['avgr'], log['avgr'])
    assert (log['reward_bound'] == 0).all() and trained.log.dtype == log.dtype
