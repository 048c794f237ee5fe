"""The front door: what a script, a notebook or `python -` gets, and that it is what the commands give."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import gymnasium
import numpy as np
import pytest
import torch
import training_tools
from conftest import REPO, script_env

import policyopt as po

EXPERT = str(REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5')
NET = training_tools.TINY_NET
SETTINGS = {'policy_hidden_spec': NET, 'min_total_sa': 300, 'data_subsamp_freq': 2, 'save_freq': 2}
COMMANDS = {
    'bclone': ['imitate_mj.py', '--mode', 'bclone'],
    'dagger': ['imitate_mj.py', '--mode', 'dagger'],
    'ga': ['imitate_mj.py', '--mode', 'ga'],
    'fem': ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'l2ball'],
    'simplex': ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'simplex'],
    'trpo': ['run_rl_mj.py'],
}


class Line(gymnasium.Env):
    """Continuous actions, no id, no time limit, and no observation that another environment has."""

    observation_space = gymnasium.spaces.Box(-9, 9, (3,))
    action_space = gymnasium.spaces.Box(-1, 1, (2,))
    closed = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.x, {}

    def step(self, action):
        self.x = np.clip(self.x + 0.1 * float(np.sum(action)), -9, 9).astype(np.float32)
        return self.x, -float(abs(self.x[0])), False, False, {}

    def close(self):
        self.closed += 1


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with trajs.h5, six episodes of CartPole's expert."""
    path = tmp_path_factory.mktemp('api')
    demos = po.Demonstrations.record(po.load_policy(EXPERT), 'CartPole-v0', episodes=6, seed=1, max_traj_len=60)
    demos.save(path / 'trajs.h5')
    return path


@pytest.fixture(scope='module')
def demos(folder):
    return po.Demonstrations.load(folder / 'trajs.h5')


def small(algorithm, demos=None, env='CartPole-v0', iterations=3, seed=3, **changes):
    """A training run of under a second."""
    settings = {k: v for k, v in SETTINGS.items() if algorithm != 'trpo' or k != 'data_subsamp_freq'}
    return po.train(algorithm, env, demos, iterations=iterations, seed=seed, **settings | changes)


@pytest.fixture(scope='module')
def ga(demos):
    return small('ga', demos)


@pytest.mark.parametrize('algorithm', COMMANDS)
def test_the_same_seed_and_options_give_the_file_of_the_command(algorithm, folder, demos):
    settings = {k: v for k, v in SETTINGS.items() if algorithm != 'trpo' or k != 'data_subsamp_freq'}
    settings |= {'expert': f'{EXPERT}/snapshots/last', 'dagger_rounds': 2} if algorithm == 'dagger' else {}
    flags = [x for name, value in settings.items() for x in (f'--{name}', str(value))]
    flags += [] if algorithm == 'trpo' else ['--data', str(folder / 'trajs.h5')]
    done = f'{folder}/command_{algorithm}.h5'
    flags += ['--env_name', 'CartPole-v0', '--seed', '3', '--max_iter', '3', '--sim_batch_size', '1', '--log', done]
    training_tools.run([*COMMANDS[algorithm], *flags], folder)
    # two threads, which BLAS takes for itself where nobody limits it, add up in another order
    code = f'import policyopt as po; po.train({algorithm!r}, "CartPole-v0", {None if algorithm == "trpo" else str(folder / "trajs.h5")!r}, '
    code += f'iterations=3, seed=3, **{settings})'
    code += f'.save({f"{folder}/api_{algorithm}.h5"!r})'
    threads = script_env() | dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'), '2')
    subprocess.run([sys.executable, '-c', code], env=threads, check=True, cwd=folder)
    assert training_tools.differences(done, f'{folder}/api_{algorithm}.h5') == []


def test_the_commands_read_what_is_saved_and_nothing_is_overwritten(ga, tmp_path, run_script):
    path = tmp_path / 'run.h5'
    ga.save(path)
    assert 'trueret' in run_script('showlog.py', path, '--noplot').stdout
    played = run_script('vis_mj.py', f'{path}/snapshots/last', '--eval_only', '--count', '4', '--seed', '5', '--deterministic').stdout
    returns, lengths = po.evaluate(ga.policy, 'CartPole-v0', 4, seed=5)
    assert f'return: {returns.mean():.4f} (sd {returns.std():.4f})' in played and f'length: {lengths.mean():.2f}' in played
    assert torch.equal(po.load_policy(path).theta_P, ga.policy.theta_P)
    before = path.read_bytes()
    with pytest.raises(po.UserError, match='exists already'):
        ga.save(path)
    with pytest.raises(po.UserError, match='does not exist'):
        ga.save(tmp_path / 'no' / 'run.h5')
    assert path.read_bytes() == before and os.listdir(tmp_path) == ['run.h5']


def test_an_id_a_function_and_an_environment_give_the_same_run(ga, demos):
    one = gymnasium.make('CartPole-v0')
    for env in (one, lambda: gymnasium.make('CartPole-v0')):
        run = small('ga', demos, env)
        assert torch.equal(run.policy.theta_P, ga.policy.theta_P) and run.options.env_name == 'CartPole-v0'
        assert np.array_equal(po.evaluate(run.policy, env, 3).returns, po.evaluate(ga.policy, 'CartPole-v0', 3).returns)
    one.reset()  # still open


def test_an_environment_without_an_id_is_played_here_and_left_open():
    env = Line()
    run = small('trpo', env=env, max_traj_len=20, iterations=2)
    assert env.closed == 0 and run.options.env_name == 'Line' and len(run.log['ret']) == 2
    assert small('trpo', env=Line, max_traj_len=20, iterations=2).policy.theta_P.equal(run.policy.theta_P)
    demos = po.Demonstrations.record(run.policy, env, 2, max_traj_len=20)
    assert small('bclone', demos, Line, bclone_batch_size=5, max_traj_len=20).policy.act(np.zeros(3)).shape == (2,)
    with pytest.raises(po.UserError, match='worker processes need'):
        small('trpo', env=env, max_traj_len=20, sim_batch_size=2)
    with pytest.raises(po.RunFailed, match='returned the same environment twice'):
        small('trpo', env=lambda: env, max_traj_len=20)


def test_settings_of_the_process_are_left_as_they_were(demos):
    torch.manual_seed(5)
    np.random.seed(5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    try:
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        run = small('ga', demos, callback=lambda i, fields: seen.append((torch.is_grad_enabled(), torch.get_num_threads())))
        run.policy.to_torch()
        po.evaluate(run.policy, 'CartPole-v0', 2)
        assert seen == [(True, 2)] * 3 and (torch.is_grad_enabled(), torch.get_num_threads()) == (True, 2)
        assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])
        with torch.no_grad():
            small('ga', demos, iterations=1)
            assert not torch.is_grad_enabled()
    finally:
        torch.set_num_threads(threads)


def test_the_callback_sees_every_row_and_ctrl_c_returns_what_is_there(ga, demos, tmp_path):
    rows = []

    def callback(iteration, fields):
        rows.append((iteration, np.float32(fields['trueret'])))
        if len(rows) == 3:
            raise KeyboardInterrupt

    run = small('ga', demos, iterations=50, callback=callback)
    assert run.interrupted and not ga.interrupted and rows == list(enumerate(run.log['trueret']))
    assert run.policy.theta_P.equal(ga.policy.theta_P)
    run.save(tmp_path / 'a.h5')
    ga.save(tmp_path / 'b.h5')
    assert training_tools.differences(tmp_path / 'a.h5', tmp_path / 'b.h5') == []


@pytest.mark.parametrize('callback', [lambda i: True, lambda a, b, c, d: True, lambda: True])
def test_a_callback_that_takes_other_arguments_is_refused_before_anything_is_played(callback):
    with pytest.raises(po.UserError, match=r'^callback takes \(.*\); expected a function of the iteration and its row of the log$'):
        po.train('trpo', lambda: pytest.fail('was made'), iterations=1, callback=callback)


def test_a_slice_of_demonstrations_is_those_episodes(demos):
    some = demos[-1::-2]
    assert isinstance(some, po.Demonstrations) and len(some) == -(-len(demos) // 2) and some.env_name == demos.env_name
    assert np.array_equal(some[0].obs_T_Do, demos[-1].obs_T_Do) and np.array_equal(some.returns, demos.returns[-1::-2])
    assert len(demos[len(demos) :]) == 0 and repr(demos[0]) == f'<Trajectory: {len(demos[0])} steps, return {demos.returns[0]:.4g}>'


def test_ctrl_c_in_the_middle_of_an_iteration_takes_that_one_back(ga, demos):
    class Impatient(gymnasium.Wrapper):
        steps = 0

        def step(self, action):
            self.steps += 1
            if self.steps == 1300:  # in the fourth or fifth iteration
                raise KeyboardInterrupt
            return super().step(action)

    run = small('ga', demos, Impatient(gymnasium.make('CartPole-v0')), iterations=50)
    num = len(run.log)
    assert run.interrupted and 3 <= num <= 4 and run.log['iter'].tolist() == list(range(num))
    assert small('ga', demos, iterations=num).policy.theta_P.equal(run.policy.theta_P)
    with pytest.raises(KeyboardInterrupt):
        env = Impatient(gymnasium.make('CartPole-v0'))
        env.steps = 1290
        small('ga', demos, env)


def test_a_bar_is_shown_on_a_terminal_only_and_not_when_unwanted(folder):
    shown = []
    for progress in (True, False):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 120, 0, 0))
        code = f'import policyopt as po; po.train("bclone", "CartPole-v0", "trajs.h5", iterations=5, seed=0, progress={progress})'
        subprocess.run([sys.executable, '-c', code], stderr=theirs, cwd=folder, env=script_env(TERM='xterm'), check=True, timeout=100)
        os.write(theirs, b'END')
        text = ''
        while not text.endswith('END'):
            text += os.read(ours, 10000).decode()
        shown.append(text)
        os.close(ours)
        os.close(theirs)
    assert 'bclone CartPole-v0' in shown[0] and '5/5' in shown[0] and 'bcloss=' in shown[0] and shown[1] == 'END', shown


def test_a_drawn_seed_is_found_again(demos):
    run = small('ga', demos, seed=None)
    assert small('ga', demos, seed=run.options.seed).policy.theta_P.equal(run.policy.theta_P)
    assert str(run.options.seed) in repr(run)


def episodes(dim=4, actions=lambda t: t % 2, lengths=(30, 20)):
    rng = np.random.default_rng(0)
    return {'obs': [rng.normal(size=(n, dim)) for n in lengths], 'actions': [actions(np.arange(n)) for n in lengths]}


def with_nan():
    arrays = episodes()
    arrays['obs'][1][3, 2] = np.nan
    return arrays


WRONG_ARRAYS = {
    'no episode': ({'obs': [], 'actions': []}, 'obs is empty'),
    'an empty episode': ({'obs': [np.zeros((0, 4))], 'actions': [[]]}, 'episode 0: 0 observations for 0 actions'),
    'one axis': ({'obs': [np.zeros(4)], 'actions': [[0] * 4]}, r'episode 0: observations of shape \(4,\)'),
    'fewer actions': ({'obs': [np.zeros((5, 4))], 'actions': [[0] * 4]}, 'is the last one what the last action led to'),
    'fewer lists': (episodes() | {'actions': [[0]]}, 'actions holds 1 episodes, but obs holds 2'),
    'other dims': (
        {'obs': [np.zeros((5, 4)), np.zeros((5, 3))], 'actions': [[0] * 5] * 2},
        'episode 1: 3 observation dims, but 4 in episode 0',
    ),
    'NaN': (with_nan(), 'episode 1: NaN or infinity among the observations of step 3'),
    'text': ({'obs': [[['a']]], 'actions': [[0]]}, 'episode 0: observations of type <U1; expected numbers'),
    'ragged lists': ({'obs': [[[1, 2], [3]]], 'actions': [[0, 1]]}, r'obs\[0\] is no array'),
    'actions of .9': (episodes(actions=lambda t: 0.9 * (t % 2)) | {'env_name': 'CartPole-v1'}, r'arrays: .* decimal numbers'),
    'a third action': (episodes(actions=lambda t: t % 3) | {'env_name': 'CartPole-v1'}, 'takes integers from 0 to 1'),
    'another task': (episodes() | {'env_name': 'MountainCar-v0'}, "4 observation dims, but env 'MountainCar-v0' has 2"),
    'no list': ({'obs': 3, 'actions': []}, 'obs is a int'),
    'rewards': (episodes() | {'rewards': [np.zeros(30), np.zeros(19)]}, r'episode 1: rewards has shape \(19,\) for 20 actions'),
}


@pytest.mark.parametrize('case', WRONG_ARRAYS)
def test_wrong_recordings_are_refused_in_a_sentence(case):
    arrays, sentence = WRONG_ARRAYS[case]
    with pytest.raises(po.UserError, match=sentence):
        po.Demonstrations.from_arrays(**arrays)


def of(**arrays):
    return po.Demonstrations.from_arrays(**arrays)


WRONG_RUNS = {
    'another dim': (lambda d: po.train('ga', 'CartPole-v0', of(**episodes(6)), iterations=1), '6 observation dims, but env'),
    'actions of .9': (
        lambda d: po.train('ga', 'CartPole-v0', of(**episodes(actions=lambda t: 0.9 * (t % 2))), iterations=1),
        'decimal numbers from 0.0 to 0.9',
    ),
    'a third action': (lambda d: po.train('ga', 'CartPole-v0', of(**episodes(actions=lambda t: t % 3)), iterations=1), '0 to 1; use'),
    'no demos': (lambda d: po.train('ga', 'CartPole-v0', iterations=1), 'imitates an expert; give demos'),
    'demos for trpo': (lambda d: po.train('trpo', 'CartPole-v0', d, iterations=1), 'leave demos out'),
    'an array as demos': (lambda d: po.train('ga', 'CartPole-v0', np.zeros((3, 4)), iterations=1), 'demos is a ndarray'),
    'a missing file': (lambda d: po.train('ga', 'CartPole-v0', 'no.h5', iterations=1), 'no.h5: no such file'),
    'an unknown algorithm': (lambda d: po.train('bclon', 'CartPole-v0', d, iterations=1), "no algorithm 'bclon'. Did you mean 'bclone'"),
    'an unknown option': (lambda d: small('ga', d, reward_rl=1), "no option 'reward_rl'. Did you mean 'reward_lr'"),
    'an option of commands': (lambda d: small('ga', d, max_iter=3), "does not take the option 'max_iter'; use iterations"),
    'options of the other': (lambda d: small('ga', d, options=po.RLOptions()), 'takes ImitationOptions'),
    'no iteration': (lambda d: small('ga', d, iterations=0), 'iterations is .0.; expected a whole number of 1 or more'),
    'half an iteration': (lambda d: small('ga', d, iterations=1.5), 'iterations is .1.5.'),
    'a negative seed': (lambda d: small('ga', d, seed=-1), 'seed -1; expected a whole number, 0 to 4294967295'),
    'a text as a number': (lambda d: small('ga', d, reward_lr='a'), "reward_lr 'a'; expected a number, 0 or more"),
    'NaN as a number': (lambda d: small('ga', d, lam=float('nan')), 'lam nan; expected a number, 0 to 1'),
    'a choice': (lambda d: small('ga', d, obsnorm_mode='off'), "expected 'none' or 'expertdata' or 'online'"),
    'a net': (lambda d: small('ga', d, policy_hidden_spec=[{'type': 'conv'}]), 'hidden spec, layer 0'),
    'too few demos': (lambda d: small('ga', d, limit_trajs=7), 'there are 6 demonstrations'),
    'an unknown env': (lambda d: small('ga', d, 'CartPol-v0'), "Did you mean 'CartPole-v"),
    'a number as env': (lambda d: small('ga', d, 5), 'env is 5; expected an id'),
    'a function of nothing': (lambda d: small('ga', d, lambda: 3), 'returned 3; expected a new gymnasium.Env'),
    'a function that fails': (lambda d: small('ga', d, lambda: 1 / 0), 'failed with ZeroDivisionError'),
    'no time limit': (lambda d: small('trpo', env=Line), "env 'Line' has no time limit"),
    'a policy of another env': (lambda d: po.evaluate(po.load_policy(EXPERT), 'MountainCar-v0'), "env 'MountainCar-v0' has"),
    'no episodes': (lambda d: po.evaluate(po.load_policy(EXPERT), 'CartPole-v0', 0), 'episodes is .0.'),
    'a seed that is no number': (
        lambda d: po.evaluate(po.load_policy(EXPERT), 'CartPole-v0', 1, seed='a'),
        'seed is .a.; expected a whole number',
    ),
    'no policy': (lambda d: po.evaluate(EXPERT, 'CartPole-v0'), 'policy is a str'),
    'no policy file': (lambda d: po.load_policy('no.h5'), 'no.h5: no such file'),
    'an observation of another dim': (lambda d: po.load_policy(EXPERT).act(np.zeros(3)), r'\(3,\); this policy takes \(4,\)'),
    'an observation of NaN': (lambda d: po.load_policy(EXPERT).act([np.nan] * 4), 'holds NaN'),
    'an observation of text': (lambda d: po.load_policy(EXPERT).act('abcd'), 'expected numbers'),
}


@pytest.mark.parametrize('case', WRONG_RUNS)
def test_wrong_arguments_are_refused_in_a_sentence(case, demos):
    call, sentence = WRONG_RUNS[case]
    with pytest.raises(po.UserError, match=re.sub(r'\?', r'\\?', sentence)):
        call(demos)


def test_demonstrations_may_be_used_again_and_come_back_from_their_file(tmp_path):
    arrays = episodes(3, lambda t: np.stack([t, -t], axis=1))
    demos = of(**arrays, rewards=[np.ones(30), np.ones(20)], env_name='Line-v0')
    before = demos.a.stacked.copy()
    small('bclone', demos, Line, bclone_batch_size=5, max_traj_len=20)
    assert np.array_equal(demos.a.stacked, before)
    demos.save(tmp_path / 'mine.h5')
    again = po.Demonstrations.load(tmp_path / 'mine.h5')
    assert again.returns.tolist() == [30, 20] and again.lengths.tolist() == [30, 20] and again.env_name == 'Line-v0'
    assert np.array_equal(again.obs.stacked, demos.obs.stacked) and np.array_equal(again[1].a_T_Da, arrays['actions'][1])
    with pytest.raises(po.UserError, match='exists already'):
        demos.save(tmp_path / 'mine.h5')
    first = of(obs=arrays['obs'][:1], actions=arrays['actions'][:1])
    one = small('bclone', demos, Line, bclone_batch_size=5, max_traj_len=20, limit_trajs=1)
    assert one.policy.theta_P.equal(small('bclone', first, Line, bclone_batch_size=5, max_traj_len=20).policy.theta_P)


@pytest.mark.parametrize('path', [EXPERT, f'{EXPERT}/snapshots/iter0000100'])
def test_a_policy_is_loaded_without_its_task_and_acts(path):
    policy = po.load_policy(path)
    assert (policy.obs_space, policy.action_space) == (po.ContinuousSpace(4), po.FiniteSpace(2))
    obs_B_Do = np.random.default_rng(0).normal(size=(50, 4)) * 0.03  # where the expert is not sure
    actions = policy.act(obs_B_Do)
    assert actions.shape == (50,) and actions.dtype == np.int64 and set(actions) == {0, 1}
    assert [policy.act(obs) for obs in obs_B_Do] == actions.tolist() and type(policy.act(obs_B_Do[0])) is int
    drawn = policy.act(obs_B_Do, deterministic=False, rng=1)
    assert np.array_equal(drawn, policy.act(obs_B_Do, False, np.random.default_rng(1))) and not np.array_equal(drawn, actions)


def test_policies_of_2016_are_loaded_without_their_task(legacy_dir):
    found = sorted(p for p in legacy_dir.rglob('*.h5') if 'classic' in str(p) or 'modern' in str(p))
    assert found, 'there are files of 2016, but no policy among them'
    for path in found:
        policy = po.load_policy(path)
        assert len(np.atleast_1d(policy.act(np.zeros(policy.obs_space.dim)))) == policy.action_space.storage_size


@pytest.mark.parametrize('dtype', ['float64', 'float32'])
@pytest.mark.parametrize('action_space', [po.FiniteSpace(3), po.ContinuousSpace(2)], ids=['finite', 'continuous'])
@pytest.mark.parametrize('func', ['tanh', 'relu', 'lrelu', 'elu'])
def test_the_torch_module_acts_as_the_policy_does(func, action_space, dtype):
    rng = np.random.RandomState(0)
    spec = [{'type': 'fc', 'n': 7}, {'type': 'nonlin', 'func': func}, {'type': 'fc', 'n': 5}, {'type': 'nonlin', 'func': func}]
    policy = po.make_policy(po.ContinuousSpace(4), action_space, spec, rng=rng, dtype=getattr(torch, dtype))
    policy.theta_P.copy_(torch.as_tensor(rng.randn(len(policy.theta_P))))
    policy.update_obsnorm(rng.randn(100, 4) * 3 + 1)
    obs_B_Do = rng.randn(200, 4)
    module = policy.to_torch()
    found = module(torch.as_tensor(obs_B_Do, dtype=getattr(torch, dtype)))
    assert np.abs(found.detach().numpy() - policy.act(obs_B_Do)).max() <= (1e-12 if dtype == 'float64' else 1e-4)
    assert module(torch.as_tensor(obs_B_Do[0], dtype=getattr(torch, dtype))).shape == found[0].shape
    assert [name for name, _ in module.net.named_children()] == ['0', '1', '2', '3', '4'], 'a layer stands twice'
    policy.theta_P.zero_()
    assert torch.equal(module(torch.as_tensor(obs_B_Do, dtype=getattr(torch, dtype))), found), 'the module shares memory with the policy'


WRONG_LOGS = {
    'no log': ([1, 2], 'give {column'),
    'no rows': ({'trueret': []}, 'at least one'),
    'a number': ({'trueret': 3.0}, 'at least one'),
    'unequal columns': ({'trueret': [1, 2], 'ent': [1]}, r"log\['ent'\] has shape \(1,\)"),
    'text': ({'trueret': ['a']}, 'expected as many numbers'),
    'half iterations': ({'iter': [0.5], 'trueret': [1]}, 'iteration numbers'),
}


@pytest.mark.parametrize('case', WRONG_LOGS)
def test_a_log_of_other_things_is_refused_and_nothing_written(case, tmp_path):
    log, sentence = WRONG_LOGS[case]
    with pytest.raises(po.UserError, match=sentence):
        po.write_run(tmp_path / 'run.h5', po.load_policy(EXPERT), log)
    assert not list(tmp_path.iterdir())


def test_a_run_of_an_algorithm_of_ones_own_is_read_back(tmp_path, run_script):
    policy = po.load_policy(EXPERT)
    log = np.array([(4, 1.5), (9, 2.5)], dtype=[('iter', int), ('trueret', float)])
    po.write_run(tmp_path / 'run.h5', policy, log, env_name='CartPole-v0', seed=7)
    assert po.load_policy(tmp_path / 'run.h5/snapshots/iter0000009').theta_P.equal(policy.theta_P)
    assert '2.5' in run_script('showlog.py', tmp_path / 'run.h5', '--noplot').stdout
    run_script('vis_mj.py', tmp_path / 'run.h5/snapshots/last', '--eval_only', '--count', '2', '--seed', '0')
    with pytest.raises(po.UserError, match='exists already'):
        po.write_run(tmp_path / 'run.h5', policy, log)


def test_everything_public_is_shown_and_importing_it_is_light():
    code = 'import policyopt, sys; print(*dir(policyopt)); print("torch" in sys.modules)'
    names, heavy = subprocess.run([sys.executable, '-c', code], env=script_env(), capture_output=True, text=True).stdout.splitlines()
    assert names.split() == po.__all__
    assert {'train', 'evaluate', 'load_policy', 'write_run', 'Demonstrations', 'UserError', 'RunFailed'} <= set(po.__all__)
    assert heavy == 'False' and all(getattr(po, name) is not None for name in po.__all__)


def test_options_are_frozen_keyword_only_and_say_what_is_wrong():
    assert (po.ImitationOptions().min_total_sa, po.RLOptions().min_total_sa, po.ImitationOptions().discount) == (50000, 100000, 0.995)
    with pytest.raises(TypeError):
        po.ImitationOptions('ga')
    with pytest.raises(AttributeError):
        po.ImitationOptions().lam = 1
    assert json.loads(po.ImitationOptions(discount=1, no_vf=True).as_json())['no_vf'] == 1
    assert repr(po.ImitationOptions(discount=1).discount) == '1.0'


def test_options_are_stored_in_the_order_of_the_command_lines():
    common = (
        'env_name max_traj_len policy_hidden_spec tiny_policy discount lam max_iter policy_max_kl policy_cg_damping vf_max_kl '
        'vf_cg_damping sim_batch_size min_total_sa print_freq save_freq log seed device dtype resume verbose vf_steps '
        'bootstrap_time_limit stop_at_return eval_every max_envs clip_actions'
    ).split()
    imitation = (
        'mode data limit_trajs data_subsamp_freq obsnorm_mode bclone_lr bclone_batch_size bclone_eval_ntrajs bclone_eval_freq '
        'bclone_train_frac no_vf policy_ent_reg reward_type reward_max_kl reward_lr reward_steps reward_ent_reg_weight '
        'reward_include_time favor_zero_expert_reward plot_freq save_reward reward_hidden_spec reward_grad_penalty init_policy '
        'init_iterations policy_final_kl'
    ).split()
    assert list(json.loads(po.ImitationOptions().as_json())) == imitation + common
    assert list(json.loads(po.RLOptions().as_json())) == ['enable_obsnorm', 'use_tanh', 'vf_include_time', 'reward', *common]


def python(code_or_file, cwd, **kwargs):
    done = subprocess.run([sys.executable, code_or_file], cwd=cwd, env=script_env(), capture_output=True, text=True, timeout=200, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize('how', ['a script', 'stdin'])
def test_the_example_runs_in_an_empty_folder(how, tmp_path):
    script = REPO / 'examples' / 'train.py'
    assert len(script.read_text().splitlines()) <= 10
    done = python(str(script), tmp_path) if how == 'a script' else python('-', tmp_path, input=script.read_text())
    assert re.fullmatch(r'expert [\d.]+\nimitation [\d.]+\n', done.stdout), done.stdout
    assert not done.stderr and os.listdir(tmp_path) == ['run.h5'] and len(po.load_policy(tmp_path / 'run.h5').act(np.zeros((2, 4)))) == 2


@pytest.mark.parametrize('name', sorted(path.stem for path in (REPO / 'examples').glob('*.ipynb')))
def test_a_notebook_runs_in_an_empty_folder(name, tmp_path, monkeypatch):
    pytest.importorskip('nbclient', reason='nbclient is not installed: pip install -e .[test]')
    pytest.importorskip('ipykernel', reason='ipykernel is not installed: pip install -e .[test]')
    import nbclient
    import nbformat

    for key, value in script_env().items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv('MPLBACKEND', raising=False)  # pictures are outputs, as a reader sees them
    notebook = nbformat.read(REPO / 'examples' / f'{name}.ipynb', as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    text = '\n'.join(o.get('text', '') + o.get('data', {}).get('text/plain', '') for o in outputs)
    assert any('image/png' in o.get('data', {}) for o in outputs)
    if name == 'cloning_and_dagger':
        cloned, corrected = (float(re.search(rf'{word}: return (\d+)', text)[1]) for word in ('cloning', 'DAgger'))
        assert cloned < corrected
    elif name == 'airl_grid':
        assert float(re.search(r'largest error of g\(s\): (\S+)', text)[1]) < 1e-3
    else:
        assert '<TrainedRun: ga' in text
