"""Runs that are started from a policy, stopped, evaluated on the way, ended early and made longer, through the real command lines."""

import gymnasium
import numpy as np
import pytest
from conftest import REPO
from training_tools import TIMINGS, differences, run, run_until
from training_tools import folder as folder

import policyopt as po
from policyopt import rl
from policyopt.files.training_log import read_log, read_root, read_snapshot, snapshot_names
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.sampling.rollout import SimConfig


@pytest.mark.parametrize('name', ['ga', 'l2ball', 'airl', 'bclone', 'rl'])
def test_a_finished_run_goes_on_as_if_it_had_been_longer_from_the_start(name, folder):
    """21 iterations and then 31 are the file of 31 at once, whose snapshots are at multiples of 10 and at its end."""
    longer, shorter = ('451', '331') if name == 'bclone' else ('23', '15')
    run(name, folder, '--max_iter', longer, '--log', f'{name}_at_once.h5')
    run(name, folder, '--max_iter', shorter, '--log', f'{name}_grown.h5')
    done = run(name, folder, '--max_iter', longer, '--log', f'{name}_grown.h5', '--resume')
    assert f'continuing {name}_grown.h5 at iteration {shorter} of {longer}' in done.stdout
    assert differences(folder / f'{name}_at_once.h5', folder / f'{name}_grown.h5') == []


def test_steps_that_shrink_to_the_end_cannot_go_on(folder):
    run('gail', folder, '--max_iter', '3', '--log', 'gail3.h5')
    before = (folder / 'gail3.h5').read_bytes()
    done = run('gail', folder, '--max_iter', '5', '--log', 'gail3.h5', '--resume', rc=2)
    assert 'on which all iterations of --mode gail depend' in done.stderr and (folder / 'gail3.h5').read_bytes() == before
    run('gail', folder, '--max_iter', '3', '--policy_final_kl', '0.04', '--log', 'gail_constant.h5')


def test_an_unfinished_run_is_ended_where_it_is(folder):
    import signal

    assert run_until('gail', folder, 3, signal.SIGTERM, '--log', 'ended.h5') == 75
    num = len(read_log(str(folder / 'ended.h5.part')))
    done = run('gail', folder, '--log', 'ended.h5', '--resume', '--max_iter', str(num - 1), rc=2)
    assert f'has done {num} iterations already' in done.stderr and f'{num} ends it there' in done.stderr
    run('gail', folder, '--log', 'ended.h5', '--resume', '--max_iter', str(num))
    assert len(read_log(str(folder / 'ended.h5'))) == num and snapshot_names(str(folder / 'ended.h5'))[-1] == f'iter{num - 1:07d}'
    assert not (folder / 'ended.h5.part').exists()


def test_a_run_ends_when_its_return_is_reached(folder):
    """The mean of ten iterations, no single one; the file is complete, with the last snapshot."""
    done = run('ga', folder, '--stop_at_return', '20', '--log', 'reached.h5')
    returns = read_log(str(folder / 'reached.h5'))['trueret']
    assert 'reached --stop_at_return' in done.stdout and 10 <= len(returns) < 31
    means = [returns[i - 10 : i].mean() for i in range(10, len(returns) + 1)]
    assert means[-1] >= 20 and all(mean < 20 for mean in means[:-1])
    assert snapshot_names(str(folder / 'reached.h5'))[-1] == f'iter{len(returns) - 1:07d}'


def test_evaluations_are_a_column_and_change_nothing_else(folder):
    run('ga', folder, '--max_iter', '6', '--log', 'plain.h5')
    run('ga', folder, '--max_iter', '6', '--eval_every', '2', '--log', 'evaluated.h5')
    plain, evaluated = (read_log(str(folder / f)) for f in ('plain.h5', 'evaluated.h5'))
    assert [*plain.dtype.names, 'evalret'] == list(evaluated.dtype.names)
    assert np.isfinite(evaluated['evalret']).tolist() == [True, False, True, False, True, True]
    assert all(np.array_equal(plain[n], evaluated[n], equal_nan=True) for n in plain.dtype.names if n not in TIMINGS)
    policy = po.load_policy(folder / 'evaluated.h5/snapshots/last')
    returns, _ = po.evaluate(policy, 'CartPole-v0', episodes=100)
    assert abs(evaluated['evalret'][-1] - returns.mean()) < 5 * returns.std() / np.sqrt(10) + 1


def test_a_run_that_is_made_longer_has_the_evaluations_of_one_started_so(folder):
    run('ga', folder, '--max_iter', '4', '--eval_every', '2', '--log', 'longer.h5')
    run('ga', folder, '--max_iter', '6', '--eval_every', '2', '--log', 'longer.h5', '--resume')
    run('ga', folder, '--max_iter', '6', '--eval_every', '2', '--log', 'at_once.h5')
    longer, at_once = (read_log(str(folder / f)) for f in ('longer.h5', 'at_once.h5'))
    assert np.array_equal(longer['evalret'], at_once['evalret'], equal_nan=True)


def test_the_options_of_steering_belong_to_modes_that_play(folder):
    done = run('bclone', folder, '--stop_at_return', '5', rc=2)
    assert 'expected it only with --mode ga or gail' in done.stderr
    assert 'needs a value function' in run('ga', folder, '--no_vf', '1', '--bootstrap_time_limit', '1', rc=2).stderr


# ---- a start from what there is


def test_gail_starts_from_cloning_with_the_policy_held_until_its_critics_fit(folder):
    run('bclone', folder, '--log', 'cloned.h5')
    run('gail', folder, '--init_policy', 'cloned.h5', '--init_iterations', '3', '--max_iter', '5', '--save_freq', '1', '--log', 'warm.h5')
    log = read_log(str(folder / 'cloned.h5'))
    names = snapshot_names(str(folder / 'cloned.h5'))
    best = max(names, key=lambda name: log['valacc'][int(name[4:])])
    assert best != names[-1]
    cloned = read_snapshot(str(folder / f'cloned.h5/snapshots/{best}')).variables
    for k in range(3):
        held = read_snapshot(str(folder / f'warm.h5/snapshots/iter000000{k}')).variables
        assert all(np.array_equal(value, held[name]) for name, value in cloned.items())
    log = read_log(str(folder / 'warm.h5'))
    assert (log['kl'][:3] == 0).all() and (log['kl'][3:] > 0).all() and (log['vf_kl'] > 0).all()
    assert len(set(log['rloss'])) == 5
    moved = read_snapshot(str(folder / 'warm.h5/snapshots/iter0000003')).variables
    assert any(not np.array_equal(value, moved[name]) for name, value in cloned.items())


def test_a_whole_run_brings_classifier_and_value_function_and_its_policy_is_not_held(folder):
    run('gail', folder, '--max_iter', '8', '--log', 'first.h5')
    run('gail', folder, '--init_policy', 'first.h5', '--max_iter', '2', '--log', 'second.h5')
    first, second = (read_log(str(folder / f)) for f in ('first.h5', 'second.h5'))
    assert (second['kl'] > 0).all() and second['rloss'][0] < first['rloss'][0] - 0.03 and second['vf_r2'][0] > first['vf_r2'][0]


def test_a_start_that_does_not_fit_is_refused(folder):
    done = run('gail', folder, '--init_policy', 'trajs.h5', rc=2)
    assert 'trajs.h5' in done.stderr and 'Traceback' not in done.stderr
    lander = REPO / 'expert_policies' / 'classic' / 'Acrobot-v0.h5'
    assert 'has shape' in run('gail', folder, '--init_policy', str(lander), rc=2).stderr


def test_python_starts_from_a_policy_a_run_or_a_path(folder):
    demos = po.Demonstrations.load(folder / 'trajs.h5')
    small = {'env': 'CartPole-v0', 'demos': demos, 'seed': 0, 'min_total_sa': 200}
    cloned = po.train('bclone', iterations=101, bclone_eval_freq=50, **small | {'min_total_sa': 50000})
    for init in (cloned.policy, cloned):
        run_ = po.train('gail', iterations=2, init=init, init_iterations=1, **small)
        assert run_.log['kl'][0] == 0 < run_.log['kl'][1]
    held = po.train('gail', iterations=1, init=cloned, init_iterations=1, **small).policy.export()
    cloned.save(folder / 'cloned_in_python.h5')
    best = f'iter{cloned.log["iter"][np.nanargmax(cloned.log["valacc"])]:07d}'
    from_file = read_snapshot(f'{folder}/cloned_in_python.h5/snapshots/{best}').variables
    assert all(np.array_equal(x, held[n]) for n, x in from_file.items()) and best != snapshot_names(f'{folder}/cloned_in_python.h5')[-1]
    again = po.train('gail', iterations=2, init=run_, **small)
    assert (again.log['kl'] > 0).all()
    run_.save(folder / 'from_python.h5')
    same = po.train('gail', iterations=2, init=folder / 'from_python.h5', **small)
    assert all(np.array_equal(x, same.policy.export()[n]) for n, x in again.policy.export().items())
    with pytest.raises(po.UserError, match='init is a int'):
        po.train('gail', iterations=2, init=3, **small)


# ---- from Python


def test_a_callback_gets_the_policy_and_ends_the_run_by_returning_false(folder, tmp_path):
    demos, seen = po.Demonstrations.load(folder / 'trajs.h5'), []

    def callback(iteration, row, policy):
        seen.append((iteration, row['iter'], policy.act(np.zeros(4))))
        return iteration < 3

    ended = po.train('ga', 'CartPole-v0', demos, iterations=9, seed=0, min_total_sa=200, callback=callback)
    assert len(seen) == len(ended.log) == 4 and ended.ended == 'callback' and 'ended by callback' in repr(ended)
    whole = po.train('ga', 'CartPole-v0', demos, iterations=4, seed=0, min_total_sa=200, callback=lambda iteration, row: True)
    assert whole.ended is None and all(np.array_equal(x, whole.policy.export()[n]) for n, x in ended.policy.export().items())
    ended.save(tmp_path / 'ended.h5')
    assert read_root(str(tmp_path / 'ended.h5'))['args']['max_iter'] == 4
    assert snapshot_names(str(tmp_path / 'ended.h5'))[-1] == 'iter0000003'


# ---- the time limit, and runs that do not learn


def test_the_value_at_a_time_limit_is_that_of_a_slow_account():
    mdp, rng = MDP('CartPole-v0'), np.random.RandomState(0)
    policy = po.make_policy(mdp.obs_space, mdp.action_space, '[]', rng=rng)
    trajs = sample_batch(policy.actor(), mdp, SimConfig(0, 300, 15, 1), (0, 0))

    class Vf:
        def evaluate(self, obs_B_Do, t_B):
            return obs_B_Do[:, 0] + 100 * t_B

    found, at = rl.truncation_bonus(trajs, Vf(), 0.9), 0
    assert trajs.terminal_B.any() and not trajs.terminal_B.all()
    for i, n in enumerate(trajs.lengths):
        expected = np.zeros(n)
        if not trajs.terminal_B[i]:
            expected[-1] = 0.9 * (trajs.lastobs_B_Do[i][0] + 100 * n)
        np.testing.assert_allclose(found[at : at + n], expected)
        at += n


@pytest.mark.parametrize('name', ['gail', 'rl'])
def test_bootstrapping_changes_a_run_and_is_off_by_default(name, folder):
    cut = ['--max_iter', '3', '--max_traj_len', '15']
    run(name, folder, *cut, '--log', f'{name}_end.h5')
    run(name, folder, *cut, '--bootstrap_time_limit', '0', '--log', f'{name}_end0.h5')
    run(name, folder, *cut, '--bootstrap_time_limit', '1', '--log', f'{name}_on.h5')
    assert differences(folder / f'{name}_end.h5', folder / f'{name}_end0.h5') == []
    end, on = (read_log(str(folder / f'{name}_{x}.h5')) for x in ('end', 'on'))
    assert end['vf_r2'][2] != on['vf_r2'][2] and end['dl'][1] != on['dl'][1]


class Worse(gymnasium.Env):
    """Its reward falls from one environment step to the next, whatever is done."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 2).astype('f4'), {}

    def step(self, action):
        Worse.steps += 1
        self.t += 1
        return self.np_random.uniform(-1, 1, 2).astype('f4'), -float(Worse.steps), False, self.t == 10, {}


def test_a_run_whose_return_falls_says_so_and_where_help_stands(capsys):
    rng = np.random.default_rng(0)
    demos = po.Demonstrations.from_arrays([rng.normal(size=(10, 2))] * 3, [rng.integers(2, size=10)] * 3)
    po.train('gail', Worse, demos, iterations=35, seed=0, min_total_sa=20, max_traj_len=10)
    err = capsys.readouterr().err
    assert err.count('does not learn so far') == 1 and 'docs/algorithms.md' in err
