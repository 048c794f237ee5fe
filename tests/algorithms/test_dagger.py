"""DAgger: without rounds it is cloning; with them the right one plays, the expert labels what was visited, and a seed decides it all."""

import dataclasses
import re
import shutil
import signal

import gymnasium
import numpy as np
import pytest
import training_tools
from command_tools import REPO, run_command
from training_tools import EXPERT, TINY_NET, differences

import policyopt as po
from policyopt import training
from policyopt.files.training_log import read_log, read_root
from policyopt.options import ImitationOptions
from policyopt.sampling.actors import FunctionActor, MixtureActor
from policyopt.sampling.mdp import MDP, sample_trajectories

CARTPOLE, LAST = 'CartPole-v0', f'{EXPERT}/snapshots/last'
SMALL = {'policy_hidden_spec': TINY_NET, 'bclone_eval_freq': 10, 'bclone_batch_size': 32, 'progress': False}
OWN = {'/@data_digest', 'args', '/log:round', '/log:beta', '/log:nlabels'}  # what cloning's file has not, or otherwise


def pendulum_expert():
    """A policy with continuous actions, of random weights."""
    return po.make_policy(po.ContinuousSpace(3), po.ContinuousSpace(1), TINY_NET, rng=np.random.RandomState(1))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with cartpole.h5 and pendulum.h5, episodes of the experts of two tasks, and the second expert's expert.h5."""
    path = tmp_path_factory.mktemp('dagger')
    po.Demonstrations.record(po.load_policy(LAST), CARTPOLE, episodes=2, seed=1, max_traj_len=60).save(path / 'cartpole.h5')
    po.Demonstrations.record(pendulum_expert(), 'Pendulum-v1', episodes=2, seed=1, max_traj_len=40).save(path / 'pendulum.h5')
    po.write_run(path / 'expert.h5', pendulum_expert(), {'trueret': [0.0]}, env_name='Pendulum-v1')
    return path


TASKS = {'finite': (CARTPOLE, 'cartpole.h5', LAST), 'continuous': ('Pendulum-v1', 'pendulum.h5', 'expert.h5')}


def dagger(folder, kind='finite', algorithm='dagger', iterations=41, seed=3, **changes):
    """A run of about a second on one of TASKS."""
    env, demos, expert = TASKS[kind]
    expert = {'expert': folder / expert} if algorithm == 'dagger' and 'expert' not in changes else {}
    return po.train(algorithm, env, folder / demos, iterations=iterations, seed=seed, max_traj_len=50, **SMALL | expert | changes)


def learner(folder, kind='finite', **changes):
    """The DaggerOptimizer of such a run, at its start."""
    env, demos, expert = TASKS[kind]
    known = {'mode': 'dagger', 'env_name': env, 'data': str(folder / demos), 'expert': str(folder / expert), 'seed': 3, 'max_traj_len': 50}
    small = {k: v for k, v in SMALL.items() if k != 'progress'}
    options = training.resolved(ImitationOptions(**{'max_iter': 41, 'sim_batch_size': 1} | known | small | changes))
    mdp = MDP(env)
    pairs = training.expert_pairs(options, po.load_trajs(options.data), mdp, options.data)
    return training.imitation_run(options, mdp, pairs, po.load_policy(options.expert, mdp)).opt


# ---- rounds


@pytest.mark.parametrize('kind', TASKS)
def test_without_rounds_it_is_cloning_to_the_bit(kind, folder, tmp_path):
    dagger(folder, kind, dagger_rounds=0).save(tmp_path / 'dagger.h5')
    dagger(folder, kind, 'bclone').save(tmp_path / 'bclone.h5')
    found = differences(tmp_path / 'dagger.h5', tmp_path / 'bclone.h5')
    assert {name for name in found if not name.startswith('/checkpoint/optimizer/dagger/')} == OWN
    dagger(folder, kind, dagger_rounds=1).save(tmp_path / 'one.h5')
    assert any('/out/' in name for name in differences(tmp_path / 'one.h5', tmp_path / 'bclone.h5'))


@pytest.mark.parametrize(
    ('schedule', 'beta', 'expected'),
    [
        ('exponential', 0.5, [1, 0.5, 0.25, 0.125]),
        ('linear', 0.75, [1, 0.75, 0.5, 0.25, 0, 0]),
        *((schedule, 0.0, [1, 0, 0]) for schedule in ('exponential', 'linear')),  # I(i = 1) of the paper
        *((schedule, 1.0, [1, 1, 1]) for schedule in ('exponential', 'linear')),
    ],
)
def test_beta_is_1_for_the_demonstrations_and_falls_as_scheduled(schedule, beta, expected, folder):
    opt, found = learner(folder, dagger_beta=beta, dagger_beta_schedule=schedule), []
    for opt.round in range(len(expected)):
        found.append(opt.beta)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(('rounds', 'iterations', 'starts'), [(3, 40, [10, 20, 30]), (3, 42, [10, 21, 31]), (4, 5, [1, 2, 3, 4])])
def test_rounds_are_spaced_evenly_and_every_one_of_their_labels_is_counted(rounds, iterations, starts, folder):
    log = dagger(folder, iterations=iterations, dagger_rounds=rounds, dagger_round_trajs=2, dagger_beta=0.5).log
    assert np.flatnonzero(np.diff(log['round'])).tolist() == [s - 1 for s in starts] and len(log) == iterations
    played = ~np.isnan(log['trueret'])
    assert np.flatnonzero(played).tolist() == starts
    # CartPole pays 1 for each step, so returns are lengths
    demos = int(po.load_trajs(folder / 'cartpole.h5').lengths.sum())
    steps = np.rint(2 * np.nan_to_num(log['trueret'])).astype(int)
    np.testing.assert_array_equal(log['nlabels'], demos + np.cumsum(steps))
    np.testing.assert_allclose(log['beta'], 0.5 ** log['round'].astype(float))
    assert ((log['tsamp'] > 0) == played).all() and (log['avglen'][~played] == -1).all()
    assert np.isfinite(log['valloss'][::10]).all() and np.isnan(np.delete(log['valloss'], np.s_[::10])).all()


# ---- who plays


@pytest.mark.parametrize('kind', TASKS)
@pytest.mark.parametrize('beta', [0.0, 1.0])
def test_one_who_acts_alone_plays_the_very_episodes_that_are_his(kind, beta, folder):
    opt = learner(folder, kind, dagger_beta=beta, dagger_round_trajs=3)
    for _ in range(3):
        opt.step()
    opt.round = 1
    actor = opt.teacher if beta else opt.policy.actor()
    alone = sample_trajectories(actor, opt.mdp, 3, 50, (3, 'dagger', 1))
    played = opt.play()
    for name in ('obs', 'a', 'r'):
        np.testing.assert_array_equal(getattr(played, name).stacked, getattr(alone, name).stacked)
    other = sample_trajectories(opt.policy.actor() if beta else opt.teacher, opt.mdp, 3, 50, (3, 'dagger', 1))
    assert len(other.a.stacked) != len(alone.a.stacked) or not np.array_equal(other.a.stacked, alone.a.stacked)


class Endless(gymnasium.Env):
    """Nothing ever happens."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}


def test_in_between_the_expert_acts_at_as_many_steps_as_beta_says_and_at_each_anew():
    mdp, policy = MDP(Endless), po.make_policy(po.ContinuousSpace(2), po.FiniteSpace(3), TINY_NET)
    policy.theta_P[-3:] = policy.theta_P.new_tensor([0.0, 50.0, 0.0])  # the learner says 1, the expert 2
    expert = FunctionActor(lambda obs: np.full(len(obs), 2), mdp.info)
    trajs = sample_trajectories(MixtureActor(policy.actor(), expert, 0.3), mdp, 4, 1000, (0, 'x'))
    a_T = trajs.a[0][:, 0]
    assert set(trajs.a.stacked[:, 0]) == {1, 2} and trajs.adist.stacked.tolist() == [[2.0]] * 4000
    assert abs(np.mean(trajs.a.stacked == 2) - 0.3) < 5 * np.sqrt(0.21 / 4000)
    switches = np.mean(a_T[1:] != a_T[:-1])
    assert abs(switches - 2 * 0.21) < 5 * np.sqrt(0.25 / 1000), 'the coin is not thrown anew at every step'


# ---- labels


@pytest.mark.parametrize('beta', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('kind', TASKS)
def test_labels_are_the_experts_most_likely_actions_at_what_was_visited(kind, beta, folder):
    opt = learner(folder, kind, dagger_beta=beta, dagger_round_trajs=2)
    opt.round = 1
    trajs = opt.play()
    obs_M_Do, adist_M_Pa = opt.query(trajs)
    np.testing.assert_array_equal(obs_M_Do, trajs.obs.stacked)
    expected = po.load_policy(folder / TASKS[kind][2]).act(obs_M_Do).reshape(len(obs_M_Do), -1)
    np.testing.assert_array_equal(opt.labels(adist_M_Pa), expected)
    assert not np.array_equal(trajs.a.stacked, expected), 'all that was played is what the expert would have done'


def test_drawn_labels_have_the_experts_distribution_and_are_the_same_every_time(folder):
    opt = learner(folder, 'continuous', dagger_label='sampled', dagger_round_trajs=40)
    opt.round = 1
    _, adist_M_Pa = opt.query(opt.play())
    mean, stdev = np.split(adist_M_Pa, 2, axis=1)
    first = opt.labels(adist_M_Pa)
    z = (first - mean) / stdev
    assert len(z) == 2000 and abs(z.mean()) < 0.1 and abs(z.std() - 1) < 0.08
    np.testing.assert_array_equal(opt.labels(adist_M_Pa), first)
    opt.round = 2
    assert not np.allclose(opt.labels(adist_M_Pa), first)


@pytest.mark.parametrize('beta', [0.0, 0.5])
def test_of_a_subsampled_trajectory_only_the_kept_steps_are_labelled_and_asked_for(beta, folder):
    asked, policy = [], po.load_policy(LAST)

    def human(obs):
        asked.append(len(obs))
        return policy.act(obs)

    run = dagger(folder, expert=human, data_subsamp_freq=7, dagger_rounds=2, dagger_round_trajs=2, dagger_beta=beta)
    steps = np.rint(2 * run.log['trueret'][~np.isnan(run.log['trueret'])])
    new = np.unique(run.log['nlabels'])
    assert all(s / 7 - 2 < n < s / 7 + 2 for n, s in zip(np.diff(new), steps, strict=True)) and new[0] < 30
    assert sum(asked) == (steps.sum() if beta else new[-1] - new[0])  # to act, he is asked at every step


@pytest.mark.parametrize('mode', ['none', 'expertdata', 'online'])
def test_the_normaliser_is_that_of_the_aggregate_and_the_pairs_are_split_as_the_demonstrations(mode, folder):
    opt = learner(folder, dagger_rounds=3, obsnorm_mode=mode, bclone_train_frac=0.6)
    demos = len(opt.obs_N_Do)
    while opt.iteration < 41:
        opt.step()
    assert opt.round == 3
    norm, cloning = opt.policy.obsnorm, opt.cloning
    if mode == 'none':
        assert norm is None
    else:
        seen = opt.obs_N_Do if mode == 'expertdata' else opt.obs_N_Do[demos:]
        np.testing.assert_allclose(norm.mean_1_D[0].numpy(), seen.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(norm.stdev_1_D[0].numpy(), seen.std(axis=0), atol=1e-9)
    x = opt.policy.normalized_obs(opt.obs_N_Do)
    assert x[cloning.train_rows].equal(cloning.train_x) and x[cloning.val_rows].equal(cloning.val_x)
    assert sorted([*cloning.train_rows, *cloning.val_rows]) == list(range(len(opt.obs_N_Do)))
    assert len(cloning.train_rows) == int(0.6 * len(opt.a_N_Da))
    assert (cloning.train_rows >= demos).sum() > 0 and (cloning.val_rows >= demos).sum() > 0


# ---- a pure function of seed and options


@pytest.mark.parametrize('kind', TASKS)
def test_a_run_that_was_killed_in_any_round_continues_bit_for_bit(kind, folder, tmp_path):
    options = {'dagger_rounds': 3, 'dagger_beta': 0.5, 'dagger_label': 'sampled', 'max_iter': 12, 'save_freq': 4, 'print_freq': 100}

    def started(path, resume=False):
        opt = learner(folder, kind, **options)
        args = dataclasses.replace(ImitationOptions(mode='dagger', seed=3, **options), log=str(path), resume=resume)
        return training.Run(args, opt, 'digest')

    undisturbed = started(tmp_path / 'whole.h5')
    assert undisturbed.execute() == 0
    for num in range(1, 12):
        path = tmp_path / f'{num}.h5'
        first = started(path)
        for _ in range(num):
            first.iterate()
        first.log.save(first.state())
        first.iterate()  # lost
        assert started(path, resume=True).execute() == 0
        assert differences(tmp_path / 'whole.h5', path) == [], f'continued after iteration {num}'


@pytest.mark.parametrize('beta', [0.0, 0.5])
def test_the_number_of_worker_processes_changes_nothing(beta, folder):
    for workers in (1, 2):
        options = ('--dagger_rounds', 2, '--dagger_round_trajs', 5, '--dagger_beta', beta, '--sim_batch_size', workers)
        line = [*training_tools.RUNS['dagger'], '--data', 'cartpole.h5', '--max_iter', '30', '--max_traj_len', '50']
        training_tools.run(line, folder, *options, '--log', f'workers{workers}_{beta}.h5')
    files = [folder / f'workers{workers}_{beta}.h5' for workers in (1, 2)]
    assert differences(*files) == ['args'] and read_log(files[0])['nlabels'][-1] > 100


def test_a_run_is_not_made_longer_because_its_rounds_would_move(folder):
    line = [*training_tools.RUNS['dagger'], '--data', 'cartpole.h5', '--log', 'longer.h5']
    assert training_tools.run_until(line, folder, 150, signal.SIGTERM) == 75
    err = training_tools.run(line, folder, '--max_iter', 2000, '--resume', rc=2).stderr
    assert 'was started with --max_iter 1501, not 2000, on which all iterations of --mode dagger depend' in err
    shutil.copy(folder / 'longer.h5.part', folder / 'moved.h5.part')
    shutil.copy(EXPERT, folder / 'moved_expert.h5')  # another place, but the same expert
    moved = [*line, '--log', 'moved.h5', '--resume', '--expert', 'moved_expert.h5/snapshots/last']
    assert 'continuing moved.h5.part' in training_tools.run(moved, folder).stdout
    po.write_run(folder / 'worse.h5', po.make_policy(po.ContinuousSpace(4), po.FiniteSpace(2), TINY_NET), {'trueret': [0.0]})
    err = training_tools.run(line, folder, '--resume', '--expert', 'worse.h5/snapshots/last', rc=2).stderr
    assert 'was started with other data than --data cartpole.h5 and --expert worse.h5/snapshots/last; give the same' in err


def test_an_interrupted_run_keeps_the_number_of_iterations_that_its_rounds_divide(folder):
    def stop(iteration, fields):
        if iteration == 5:
            raise KeyboardInterrupt

    run = dagger(folder, callback=stop)
    assert run.interrupted and len(run.log) == 6 and run.options.max_iter == 41
    run = dagger(folder, algorithm='bclone', callback=stop)
    assert run.interrupted and run.options.max_iter == 6


def test_files_of_other_modes_store_the_options_that_they_always_had(folder, tmp_path):
    dagger(folder, algorithm='bclone').save(tmp_path / 'b.h5')
    dagger(folder).save(tmp_path / 'd.h5')
    b, d = (read_root(tmp_path / name)['args'] for name in ('b.h5', 'd.h5'))
    own = {'expert', 'dagger_rounds', 'dagger_round_trajs', 'dagger_beta', 'dagger_beta_schedule', 'dagger_label'}
    assert set(d) - set(b) == own and set(b) - set(d) <= {'num_actions'} and d['expert'] == LAST


# ---- an expert of any kind


def test_a_function_can_be_the_expert(folder, tmp_path):
    policy, asked = po.load_policy(LAST), []

    def human(obs):
        asked.append(len(obs))
        return policy.act(obs)

    by_path, by_policy, by_function = (dagger(folder, expert=e, dagger_beta=0.0) for e in (LAST, policy, human))
    for run in (by_policy, by_function):
        assert run.policy.theta_P.equal(by_path.policy.theta_P)
    demos = len(po.load_trajs(folder / 'cartpole.h5').obs.stacked)
    assert sum(asked) == by_function.log['nlabels'][-1] - demos, 'each observation is to be put to the expert once'
    assert by_function.options.expert is None and by_path.options.expert == LAST
    asked.clear()
    both = dagger(folder, expert=human, dagger_beta=0.5)
    assert sum(asked) == both.log['nlabels'][-1] - demos
    both.save(tmp_path / 'run.h5')
    column = dagger(folder, expert=lambda obs: policy.act(obs)[:, None], dagger_beta=0.5)  # (B, 1) is as good as (B,)
    assert column.policy.theta_P.equal(po.load_policy(tmp_path / 'run.h5').theta_P)
    assert dagger(folder, 'continuous', expert=lambda obs: -obs[:, :1], dagger_beta=0.5).policy.act(np.zeros(3)).shape == (1,)


WRONG_ANSWERS = {
    'too few': (
        'finite',
        lambda obs: np.zeros(len(obs) + 1, dtype=int),
        r'int64 of shape \(\d+,\) .* for \d+ observations; expected \d+ integers',
    ),
    'floats': ('finite', lambda obs: np.zeros(len(obs)), r'float64 of shape .* expected \d+ integers'),
    'nothing': ('finite', lambda obs: None, 'object of shape'),
    'unknown': ('finite', lambda obs: np.full(len(obs), 2), r'from 2 to 2 for \d+ observations; expected \d+ integers from 0 to 1'),
    'flat': ('continuous', lambda obs: np.zeros(len(obs)), r'expected finite numbers of shape \(\d+, 1\)'),
    'nan': ('continuous', lambda obs: np.full((len(obs), 1), np.nan), 'expected finite numbers'),
}


@pytest.mark.parametrize('case', WRONG_ANSWERS)
def test_what_a_function_must_not_say(case, folder):
    kind, function, sentence = WRONG_ANSWERS[case]
    with pytest.raises(po.UserError, match=sentence):
        dagger(folder, kind, expert=function)


WRONG_CALLS = {
    'no expert': ({'expert': None}, "'dagger' queries an expert for labels; give expert=FILE"),
    'a number': ({'expert': 3}, 'expert is a int; give a Policy'),
    'another task': ({'expert': pendulum_expert()}, 'the policy is for'),
    'another task by path': ({'expert': 'expert.h5'}, 'holds GaussianPolicy, but the task needs a GibbsPolicy'),
    'cloning': ({'algorithm': 'bclone', 'expert': LAST}, "'bclone' does not query an expert"),
    'TRPO': ({'algorithm': 'trpo', 'expert': LAST}, "'trpo' does not query an expert"),
    'an option of dagger': (
        {'algorithm': 'bclone', 'expert': None, 'dagger_rounds': 3},
        "dagger_rounds=3 with 'bclone'; expected it only with 'dagger'",
    ),
    'too many rounds': ({'dagger_rounds': 41}, 'iterations=41 leaves some of 41 dagger_rounds= without a step'),
    'workers': ({'expert': lambda obs: obs, 'sim_batch_size': 2}, 'cannot call a function'),
    'a word': ({'dagger_label': 'median'}, "dagger_label 'median'; expected 'mean' or 'sampled'"),
    'a chance': ({'dagger_beta': 1.5}, 'dagger_beta 1.5; expected a number, 0 to 1'),
}


@pytest.mark.parametrize('case', WRONG_CALLS)
def test_a_wrong_call_says_what_would_be_right(case, folder, monkeypatch):
    monkeypatch.chdir(folder)
    changes, sentence = WRONG_CALLS[case]
    known = {'algorithm': 'dagger', 'iterations': 41, 'expert': LAST} | changes
    algorithm = known.pop('algorithm')
    few = {k: v for k, v in SMALL.items() if algorithm != 'trpo' or not k.startswith('bclone')}
    demos = None if algorithm == 'trpo' else 'cartpole.h5'
    with pytest.raises(po.UserError, match=re.escape(sentence)):
        po.train(algorithm, CARTPOLE, demos, seed=0, **few | known)


def test_an_unlimited_task_needs_a_limit_only_where_it_is_played():
    demos = po.Demonstrations.from_arrays([np.random.RandomState(0).randn(20, 2)], [np.arange(20) % 3])
    options = SMALL | {'iterations': 5, 'seed': 0, 'expert': lambda obs: np.zeros(len(obs), dtype=int)}
    assert len(po.train('dagger', Endless, demos, dagger_rounds=0, **options).log) == 5
    with pytest.raises(po.UserError, match='no time limit of its own'):
        po.train('dagger', Endless, demos, dagger_rounds=1, **options)


DAGGER = f'imitate_mj.py --mode dagger --data cartpole.h5 --env_name {CARTPOLE} --max_iter 20 --log out.h5 --seed 0'
GA = f'imitate_mj.py --mode ga --data cartpole.h5 --env_name {CARTPOLE} --max_iter 2 --log out.h5 --seed 0'
WRONG_LINES = {
    'no expert': (DAGGER, '--mode dagger queries an expert for labels; give --expert FILE.h5/snapshots/…'),
    'an expert of another task': (f'{DAGGER} --expert expert.h5/snapshots/last', 'holds GaussianPolicy, but the task needs a GibbsPolicy'),
    'an expert that is not there': (f'{DAGGER} --expert nowhere.h5/snapshots/last', 'nowhere.h5/snapshots/last: no such file'),
    'demonstrations as expert': (f'{DAGGER} --expert cartpole.h5/snapshots/last', "has no attribute 'args'"),
    'an expert for GAIL': (f'{GA} --expert {LAST}', ' with --mode ga; expected it only with --mode dagger'),
    'rounds for GAIL': (f'{GA} --dagger_beta .5', '--dagger_beta 0.5 with --mode ga; expected'),
    'more rounds than steps': (f'{DAGGER} --expert {LAST} --dagger_rounds 20', '--max_iter 20 leaves some of 20 --dagger_rounds'),
    'a negative number of rounds': (f'{DAGGER} --expert {LAST} --dagger_rounds -1', '--dagger_rounds -1; expected a whole number, 0 to'),
    'rounds without episodes': (f'{DAGGER} --expert {LAST} --dagger_round_trajs 0', '_trajs 0; expected a whole number, 1 or more'),
}
QUICK = ('no expert', 'an expert of another task', 'an expert for GAIL')  # each command costs the start of Python and torch


@pytest.mark.parametrize('case', [pytest.param(c, marks=[] if c in QUICK else [pytest.mark.slow]) for c in WRONG_LINES])
def test_a_wrong_command_is_one_sentence_and_writes_nothing(case, folder, tmp_path):
    line, sentence = WRONG_LINES[case]
    for name in ('cartpole.h5', 'expert.h5'):
        shutil.copy(folder / name, tmp_path)
    script, *args = line.split()
    done = run_command(script, *args, cwd=tmp_path, rc=2)
    assert re.fullmatch(r'imitate_mj: error: [^\n]+\n', done.stderr), done.stderr
    assert sentence in done.stderr and {p.name for p in tmp_path.iterdir()} == {'cartpole.h5', 'expert.h5'}


def test_the_module_that_an_experts_file_names_is_not_imported(folder, tmp_path):
    """Only --env_name says what is played."""
    shutil.copy(folder / 'cartpole.h5', tmp_path)
    (tmp_path / 'trap.py').write_text('open("sprung", "w")')
    po.write_run(tmp_path / 'strange.h5', po.load_policy(LAST), {'trueret': [0.0]}, env_name='trap:CartPole-v0')
    line = [*DAGGER.split(), '--expert', 'strange.h5/snapshots/last', '--dagger_rounds', '2', '--max_traj_len', '20']
    training_tools.run(line, tmp_path, env={'PYTHONPATH': f'{REPO}:{tmp_path}'})
    assert (tmp_path / 'out.h5').exists() and not (tmp_path / 'sprung').exists()
