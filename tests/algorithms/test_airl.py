"""AIRL: its logit, gradients and theory on problems with known answers; what a batch says of its ends; rewards taken out of their run."""

import json
import shutil
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import tables
import torch
from command_tools import REPO, run_command, script_env
from training_tools import run

import policyopt as po
from policyopt.airl import AIRLReward
from policyopt.errors import UserError
from policyopt.evaluation import load_reward
from policyopt.files.training_log import read_log
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.options import ImitationOptions
from policyopt.rewards import ClassifierRows
from policyopt.sampling.actors import RandomActor
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.sampling.rollout import SimConfig
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Batch, ContinuousSpace, FiniteSpace, TrajBatch, Transitions

sys.path.insert(0, str(REPO / 'benchmarks'))
import airl_recovery
import transfer

NET = '[{"type": "fc", "n": 7}, {"type": "nonlin", "func": "tanh"}]'
SHORT = ['--policy_hidden_spec', NET, '--min_total_sa', '300', '--sim_batch_size', '1', '--max_iter', '3', '--seed', '1']
AIRL = ['imitate_mj.py', '--mode', 'ga', '--reward_type', 'airl', '--data', 'trajs.h5', '--env_name', 'CartPole-v0', *SHORT]


def batch(rng, finite, num=40, obs_dim=3, a_dim=2):
    a = rng.randint(4, size=(num, 1)) if finite else rng.randn(num, a_dim)
    pairs = rng.randn(num, obs_dim), a, rng.randint(30, size=num).astype(float)
    return *pairs, Transitions(rng.randn(num, obs_dim), rng.rand(num) < 0.3, -rng.rand(num))


def make(finite, state_only=0, include_time=0, seed=0, **others):
    chosen = {name: others.pop(name) for name in list(others) if name.startswith('reward_')} | {'discount': 0.9}
    options = ImitationOptions(policy_hidden_spec=NET, reward_include_time=include_time, airl_state_only=state_only, **chosen)
    space = FiniteSpace(4) if finite else ContinuousSpace(2)
    reward = AIRLReward(options, ContinuousSpace(3), space, 0.05, NetConfig(np.random.RandomState(seed)), **others)
    reward.theta_P.copy_(torch.as_tensor(np.random.RandomState(seed + 1).randn(len(reward.theta_P))))
    reward.update_inputnorm(np.random.RandomState(7).randn(50, 3) * 2 + 1, np.random.RandomState(8).randn(50, 2) * 3 - 1)
    return reward


def logit_by_autograd(reward, theta_P, obs, a, t, seen, state_only, include_time):
    """f − log π from the formula alone, differentiable in theta_P."""
    values = dict(zip(reward._trained, [None] * len(reward._trained), strict=True))
    at = 0
    for name, var in reward._trained.items():
        values[name] = theta_P[at : at + var.numel()].view(var.shape)
        at += var.numel()

    def net(which, x):
        hidden = values[f'/AIRLReward/{which}/hidden/FeedforwardNet/layer_0/AffineLayer/W']
        x = torch.tanh(x @ hidden + values[f'/AIRLReward/{which}/hidden/FeedforwardNet/layer_0/AffineLayer/b'])
        return x @ values[f'/AIRLReward/{which}/out/AffineLayer/W'] + values[f'/AIRLReward/{which}/out/AffineLayer/b']

    def state(o, when):
        x = reward.obsnorm.standardize(torch.as_tensor(o))
        return torch.cat([x, torch.as_tensor(when)[:, None] * 0.05], dim=1) if include_time else x

    x = state(obs, t)
    if not state_only and a.dtype != np.int64:
        g = net('g', torch.cat([x, reward.anorm.standardize(torch.as_tensor(a))], dim=1))[:, 0]
    else:
        out = net('g', x)
        g = out[:, 0] if state_only else out.gather(1, torch.as_tensor(a))[:, 0]
    after = torch.as_tensor(np.where(seen.terminal_B, 0.0, 0.9)) * net('h', state(seen.nextobs_B_Do, t + 1))[:, 0]
    return g + after - net('h', x)[:, 0] - torch.as_tensor(seen.logp_B)


@pytest.mark.parametrize('finite', [True, False], ids=['finite', 'continuous'])
@pytest.mark.parametrize('state_only', [0, 1])
@pytest.mark.parametrize('include_time', [0, 1])
@pytest.mark.parametrize('rows', ['drawn', 'episodes'])
def test_the_logit_is_the_formula_and_its_gradient_that_of_autograd(finite, state_only, include_time, rows):
    """`episodes`: three that follow their steps, whose next states are the next rows, but for their ends and a gap in the second."""
    rng, reward = np.random.RandomState(3), make(finite, state_only, include_time)
    obs, a, t, seen = batch(rng, finite)
    if rows == 'episodes':
        t = np.concatenate([np.arange(15.0), np.arange(9.0), np.arange(20, 27.0), np.arange(9.0)])
        inside = np.setdiff1d(np.arange(39), [14, 30])
        seen.nextobs_B_Do[inside] = obs[inside + 1]  # that after the gap is equal too: its time tells it apart
        assert len(reward.rows(Batch(obs, a, t, seen)).states) == 40 + 4
    theta_P = reward.theta_P.clone().requires_grad_()
    logit = logit_by_autograd(reward, theta_P, obs, a, t, seen, state_only, include_time)
    np.testing.assert_allclose(reward.compute_logits(Batch(obs, a, t, seen)), logit.detach(), rtol=1e-12, atol=1e-12)
    labels, weight = torch.as_tensor((rng.rand(40) < 0.5) * 1.0), torch.as_tensor(rng.rand(40))
    p = torch.sigmoid(logit)
    entropy = -(p * torch.log(p) + (1 - p) * torch.log(1 - p))
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logit, labels, reduction='none')
    expected = (weight * (cross - reward.options.reward_ent_reg_weight * entropy)).sum()
    expected.backward()
    loss, grad_P = reward.loss_gradient(reward.rows(Batch(obs, a, t, seen)), labels, weight)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(grad_P, theta_P.grad, rtol=1e-9, atol=1e-12)


def test_nothing_of_the_next_state_counts_after_a_terminal_step():
    reward, (obs, a, t, seen) = make(True), batch(np.random.RandomState(0), True)
    other = seen._replace(nextobs_B_Do=seen.nextobs_B_Do + 5.0)
    same = reward.compute_reward(Batch(obs, a, t, seen)) == reward.compute_reward(Batch(obs, a, t, other))
    np.testing.assert_array_equal(same, seen.terminal_B)


@pytest.mark.parametrize('gamma', [0.9, 1.0])
def test_terminal_states_last_to_the_horizon(gamma):
    reward, (obs, a, t, seen) = make(True, horizon=20, ended=(3.0, 40.0)), batch(np.random.RandomState(0), True)
    reward.gamma = gamma
    after = np.where(seen.terminal_B, np.maximum(19 - t, 0), 0)
    for batches in (1, 2):  # frequencies over all batches so far, with one step more in each
        reward.fit(Batch(obs, a, t, seen), Batch(obs, a, t, seen))
        c = np.log((3 + 1) / (40 + 1)) - np.log((batches * after.sum() + 1) / (batches * (40 + after.sum()) + 1))
        extra = reward.compute_reward(Batch(obs, a, t, seen)) - reward.compute_logits(Batch(obs, a, t, seen)).numpy()
        np.testing.assert_allclose(extra, [c * sum(gamma**k for k in range(1, int(n) + 1)) for n in after], rtol=1e-9, atol=1e-12)
    plain, ended = reward.learned_reward(obs, a, t), reward.learned_reward(obs, a, t, seen.terminal_B)
    np.testing.assert_allclose(ended - plain, extra, rtol=1e-9, atol=1e-12)
    again = make(True, horizon=20, seed=5)
    again.gamma = gamma
    again.load_learned(reward.learned(), 'here')
    np.testing.assert_array_equal(again.learned_reward(obs, a, t, seen.terminal_B), ended)
    reward.horizon = None
    np.testing.assert_array_equal(reward.compute_reward(Batch(obs, a, t, seen)), reward.compute_logits(Batch(obs, a, t, seen)).numpy())


@pytest.mark.parametrize('horizon', [None, 20])
def test_steps_in_terminal_states_take_their_share_of_the_weight(horizon):
    """With f a constant, the best logit of pairs is the log ratio of what is left for them: here of (1 − 3/40) to the policy's share."""
    reward, (obs, a, t, seen) = (
        make(True, horizon=horizon, ended=(3.0, 40.0), reward_lr=0.02, reward_ent_reg_weight=0.0, reward_steps=4000),
        batch(np.random.RandomState(0), True),
    )
    reward.theta_P.zero_()
    same = seen._replace(logp_B=np.zeros(40), terminal_B=np.ones(40, bool))
    reward.fit(Batch(obs, a, t, same), Batch(obs, a, t, same))
    after = np.maximum(19 - t, 0).sum()
    best = 0 if horizon is None else np.log((1 - 3 / 40) / (40 / (40 + after)))
    np.testing.assert_allclose(reward.compute_logits(Batch(obs, a, t, same)), best, atol=1e-3)


def test_the_best_logit_is_the_ratio_of_visits_whatever_the_policy():
    """With log π known, D's optimum is logit = log(ρ_E/ρ_π): so f = log π + log(ρ_E/ρ_π), here in a table."""
    rng = np.random.RandomState(0)
    S, A = 5, 3
    pi_S_A, expert_S_A, visited_S_A = (rng.dirichlet(np.ones(A), S) for _ in range(3))
    policy_N, expert_N = (pi_S_A / S).ravel(), (expert_S_A * visited_S_A.sum(1, keepdims=True) / S).ravel()
    options = ImitationOptions(policy_hidden_spec='[]', reward_lr=0.02, reward_ent_reg_weight=0.0, discount=0.9)
    reward = AIRLReward(options, ContinuousSpace(S), FiniteSpace(A))
    obs, a, t = np.repeat(np.eye(S), A, axis=0), np.tile(np.arange(A), S)[:, None], np.zeros(S * A)
    seen = Transitions(np.roll(obs, 1, axis=0), np.zeros(S * A, bool), np.log(pi_S_A).ravel())
    twice = [np.concatenate([x, x]) for x in (obs, a, t, *seen)]
    rows, weight = reward.rows(Batch(*twice[:3], Transitions(*twice[3:]))), torch.as_tensor(np.concatenate([policy_N, expert_N]))
    for i in range(3000):
        reward.adam.lr = 0.05 * 0.998**i
        reward.adam.step(reward.loss_gradient(rows, torch.as_tensor(np.repeat([0.0, 1.0], S * A)), weight)[1])
    np.testing.assert_allclose(reward.compute_logits(Batch(obs, a, t, seen)), np.log(expert_N / policy_N), atol=1e-3)


def test_a_reward_of_the_state_alone_is_the_true_one_up_to_a_constant():
    r_S, g_S_A, h_S, v_S = airl_recovery.recover(state_only=1)
    assert np.abs(g_S_A - r_S[:, None]).max() < 1e-2 and np.abs(h_S - v_S).max() < 1e-2
    assert np.ptp(r_S) > 1  # there was something to find


def test_a_reward_of_state_and_action_need_not_be():
    r_S, g_S_A, _, _ = airl_recovery.recover(state_only=0, iterations=500)
    assert np.abs(g_S_A - r_S[:, None]).max() > 0.5


def test_a_reward_of_the_state_alone_survives_another_body_and_others_need_not():
    r_S, g_S_A, _, _ = airl_recovery.recover(state_only=1, seed=2)
    both_S_A = airl_recovery.recover(state_only=0, seed=2, iterations=500)[1]
    true_S_A = np.repeat(r_S[:, None], airl_recovery.A, axis=1)

    def returned(pi_S_A):
        return (airl_recovery.visits(pi_S_A, transfer.REVERSED) * true_S_A).sum()

    best, new, with_actions = (returned(transfer.best_policy(r, transfer.REVERSED)) for r in (true_S_A, g_S_A, both_S_A))
    assert new == pytest.approx(best) and with_actions < best - 0.1 and returned(transfer.expert_of(r_S)) < best - 0.1


def test_weights_and_accuracies_count_expert_rows_as_often_as_they_were_drawn():
    rng = np.random.RandomState(1)
    one, two = make(True), make(True)
    obs, a, t, seen = batch(rng, True)
    count = rng.randint(1, 4, size=40)
    again = np.repeat(np.arange(40), count)
    expert = Batch(obs + 1, a, t, seen)
    fields1, r1 = one.fit(Batch(obs, a, t, seen), expert, count)
    fields2, r2 = two.fit(Batch(obs, a, t, seen), expert.rows(again))
    np.testing.assert_allclose(r1, r2, rtol=1e-9)
    assert [f[:1] for f in fields1] == [f[:1] for f in fields2]
    np.testing.assert_allclose([v for _, v, _ in fields1 if v is not None], [v for _, v, _ in fields2 if v is not None], rtol=1e-9)
    assert ClassifierRows(2, 3, np.array([1, 2, 1]), one.theta_P).weight_Ball.tolist() == [0.5, 0.5, 0.25, 0.5, 0.25]


# What a batch says of its ends ------------------------------------------------------------------------------------------------------


class Walk(gymnasium.Env):
    """Counts its steps: every third episode is cut short by the environment itself, the others end in a terminal state."""

    observation_space, action_space = gymnasium.spaces.Box(-99, 99, (1,)), gymnasium.spaces.Discrete(2)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.kind = 0, Walk.episodes % 3
        Walk.episodes += 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == 4 + self.kind
        return np.full(1, self.t, np.float32), 1.0, over and self.kind > 0, over and self.kind == 0, {}


def test_ends_of_an_environment_that_cuts_episodes_short_itself():
    Walk.episodes = 0
    mdp = MDP(Walk)
    trajs = sample_batch(RandomActor(mdp.info), mdp, SimConfig(9, 0, 100, 1), (0, 'x'))
    np.testing.assert_array_equal(trajs.lastobs_B_Do[:, 0], trajs.lengths)
    np.testing.assert_array_equal(trajs.terminal_B, trajs.lengths > 4)


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('env_name', ['CartPole-v0', 'MountainCar-v0', 'Acrobot-v0'])
def test_the_last_observation_is_what_the_last_action_led_to(env_name, workers):
    from policyopt.environments.rlgymenv import SingleEnv

    mdp = MDP(env_name)
    trajs = sample_batch(RandomActor(mdp.info), mdp, SimConfig(0, 1500, 120, workers), (4, 'ends'))
    mdp.close()
    np.testing.assert_array_equal(trajs.terminal_B, trajs.lengths < 120)
    env = SingleEnv(env_name).env.unwrapped
    for i, traj in enumerate(trajs):
        env.reset(seed=0)
        env.state = np.array(traj.obs_T_Do[-1])
        obs = env.step(int(traj.a_T_Da[-1, 0]))[0]
        np.testing.assert_allclose(trajs.lastobs_B_Do[i], obs, atol=1e-5)


def test_successors_of_a_batch_with_and_without_its_ends():
    trajs = TrajBatch(np.arange(5.0)[:, None], np.zeros((5, 0)), np.zeros((5, 1), int), np.zeros(5), [2, 3])
    nextobs, terminal, known = trajs.successors(3)
    assert nextobs[known, 0].tolist() == [1, 0, 3, 4] and terminal.tolist() == [False, True, False, False, False]
    assert known.tolist() == [True] * 4 + [False]  # the second trajectory was cut at the horizon, and what came then is not known
    trajs.lastobs_B_Do, trajs.terminal_B = np.array([[7.0], [8.0]]), np.array([False, True])
    nextobs, terminal, known = trajs.successors(3)
    assert nextobs[:, 0].tolist() == [1, 7, 3, 4, 8] and terminal.tolist() == [False] * 4 + [True] and known.all()
    assert trajs.first(1).successors(3)[0][:, 0].tolist() == [1, 7]


def test_trajectory_files_keep_ends_and_old_ones_lack_them(tmp_path):
    mdp = MDP('CartPole-v0')
    trajs = sample_batch(RandomActor(mdp.info), mdp, SimConfig(4, 0, 15, 1), (0, 'x'))
    save_trajs(tmp_path / 't.h5', trajs, {})
    again = load_trajs(tmp_path / 't.h5', 3)
    np.testing.assert_array_equal(again.lastobs_B_Do, trajs.lastobs_B_Do[:3])
    np.testing.assert_array_equal(again.terminal_B, trajs.terminal_B[:3])
    trajs.lastobs_B_Do = None
    save_trajs(tmp_path / 'old.h5', trajs, {})
    assert load_trajs(tmp_path / 'old.h5').lastobs_B_Do is None
    demos = po.Demonstrations.load(tmp_path / 't.h5')
    demos.save(tmp_path / 'copy.h5')
    np.testing.assert_array_equal(load_trajs(tmp_path / 'copy.h5').terminal_B, demos.terminal_B)


@pytest.mark.parametrize(
    'name, shape, said', [('lastobs_B_Do', (3, 4), 'B is 4 in'), ('lastobs_B_Do', (4, 2), 'Do is 4 in'), ('terminal_B', (3,), 'B is 4 in')]
)
def test_ends_of_another_shape_are_refused(tmp_path, name, shape, said):
    mdp = MDP('CartPole-v0')
    trajs = sample_batch(RandomActor(mdp.info), mdp, SimConfig(4, 0, 15, 1), (0, 'x'))
    setattr(trajs, name, np.zeros(shape))
    save_trajs(tmp_path / 't.h5', trajs, {})
    with pytest.raises(UserError, match=f'{name} has shape .*{said}'):
        load_trajs(tmp_path / 't.h5')


# Runs -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """trajs.h5 of the CartPole expert, and finished runs: airl.h5, fem.h5 and ga.h5 with their rewards, bare.h5 without."""
    path = tmp_path_factory.mktemp('airl')
    expert = po.load_policy(REPO / 'expert_policies/classic/CartPole-v0.h5')
    po.Demonstrations.record(expert, 'CartPole-v0', 3, seed=0).save(path / 'trajs.h5')
    run(AIRL, path, '--log', 'airl.h5')
    for word, name, save in (('l2ball', 'fem', 1), ('simplex', 'simplex', 1), ('nn', 'ga', 1), ('nn', 'bare', 0)):
        run([*AIRL[:4], word, *AIRL[5:]], path, '--log', f'{name}.h5', '--save_reward', save)
    return path


def script(name, folder, *args, rc=0):
    return run_command(name, *args, cwd=folder, rc=rc)


def test_snapshots_hold_rewards_where_they_should(folder):
    def held(name):
        with tables.open_file(folder / name) as h5:
            return {
                kind: [g._v_name for g in h5.root.snapshots if kind in g] for kind in ('AIRLReward', 'LinearReward', 'TransitionClassifier')
            }

    with_reward = ['iter0000000', 'iter0000002']
    assert held('airl.h5') == {'AIRLReward': with_reward, 'LinearReward': [], 'TransitionClassifier': []}
    assert held('fem.h5')['LinearReward'] == with_reward and held('ga.h5')['TransitionClassifier'] == with_reward
    assert not any(held('bare.h5').values())
    for name in ('airl.h5', 'bare.h5'):
        assert po.load_policy(folder / name).act(np.zeros(4)) in (0, 1)


@pytest.mark.parametrize('name', ['airl', 'fem', 'simplex', 'ga'])
def test_a_reward_that_was_taken_out_stays_as_it_is(folder, name):
    mdp = MDP('CartPole-v0')
    reward = load_reward(folder / f'{name}.h5', mdp)
    obs, a, t = np.random.RandomState(0).randn(9, 4), np.random.RandomState(1).randint(2, size=(9, 1)), np.arange(9.0)
    first = reward.learned_reward(obs, a, t)
    np.testing.assert_array_equal(first, reward.learned_reward(np.concatenate([obs, obs * 50]), np.tile(a, (2, 1)), np.tile(t, 2))[:9])


def test_a_policy_is_trained_on_a_reward_that_was_taken_out(folder):
    script('run_rl_mj.py', folder, '--reward', 'airl.h5', '--env_name', 'CartPole-v0', *SHORT, '--log', 'on.h5')
    with tables.open_file(folder / 'on.h5') as h5:
        log = h5.root.log.read()
        assert json.loads(str(h5.root._v_attrs['args']))['reward'] == 'airl.h5'
    assert {'ret', 'iret'} <= set(log.dtype.names) and np.ptp(log['iret']) > 0
    # the first batch is of the policy of the same seed on the true reward: same returns, other advantages
    script('run_rl_mj.py', folder, '--env_name', 'CartPole-v0', *SHORT, '--log', 'true.h5')
    with tables.open_file(folder / 'true.h5') as h5:
        true = h5.root.log.read()
    assert log['ret'][0] == true['ret'][0] and log['gnorm'][0] != true['gnorm'][0] and 'iret' not in true.dtype.names


def test_a_run_on_a_reward_continues_with_that_reward_only(folder, tmp_path):
    shutil.copy(folder / 'airl.h5', tmp_path / 'first.h5')
    shutil.copy(folder / 'airl.h5', tmp_path / 'moved.h5')
    shutil.copy(folder / 'ga.h5', tmp_path / 'other.h5')
    options = ['--env_name', 'CartPole-v0', *SHORT, '--max_iter', '300', '--log', 'on.h5']
    command = [sys.executable, REPO / 'scripts' / 'run_rl_mj.py', '--reward', 'first.h5', *options]
    with subprocess.Popen(command, cwd=tmp_path, env=script_env(), stdout=subprocess.PIPE, text=True) as started:
        next(line for line in started.stdout if line.split()[0] == '2')  # three iterations are done
        started.terminate()
        started.communicate()
    assert started.returncode == 75
    for reward, said in ((['--reward', 'other.h5'], 'with other data than --reward other.h5; give the same'), ([], 'than the true reward')):
        done = script('run_rl_mj.py', tmp_path, *reward, *options, '--resume', rc=2)
        assert done.stderr.count('\n') == 1 and said in done.stderr, done.stderr
    assert 'continuing on.h5.part' in script('run_rl_mj.py', tmp_path, '--reward', 'moved.h5', *options, '--resume').stdout
    assert len(read_log(tmp_path / 'on.h5')) == 300


def test_options_of_airl_are_refused_for_other_rewards(folder):
    done = run([*AIRL[:4], 'nn', *AIRL[5:]], folder, '--airl_state_only', 1, rc=2)
    assert '--airl_state_only 1 with --reward_type nn; expected it only with --reward_type airl' in done.stderr
    with tables.open_file(folder / 'ga.h5') as h5, tables.open_file(folder / 'airl.h5') as airl:
        stored, with_airl = (json.loads(str(h.root._v_attrs['args'])) for h in (h5, airl))
    assert set(with_airl) - set(stored) == {'airl_state_only', 'airl_absorbing'}


def test_the_reward_is_printed_along_an_episode(folder):
    out = script('vis_mj.py', folder, 'airl.h5/snapshots/last', '--reward', 'airl.h5', '--count', 2, '--seed', 0).stdout.splitlines()
    trajs = po.Demonstrations.record(po.load_policy(folder / 'airl.h5'), 'CartPole-v0', 2, seed=0)
    learned = load_reward(folder / 'airl.h5', MDP('CartPole-v0')).learned_reward(
        trajs.obs.stacked, trajs.a.stacked, trajs.time.stacked, trajs.successors(200)[1]
    )
    steps = [line.split() for line in out if line.split()[0].isdigit()]
    assert len(steps) == trajs.lengths[0] and [float(s[1]) for s in steps] == [1.0] * len(steps)
    np.testing.assert_allclose([float(s[2]) for s in steps], learned[: len(steps)], rtol=1e-4)
    assert any(line.startswith('learned return: ') for line in out)


WRONG = {
    'no reward kept': (['--reward', 'bare.h5', '--env_name', 'CartPole-v0'], 'holds GibbsPolicy and no reward function'),
    'of another task': (['--reward', 'airl.h5', '--env_name', 'MountainCar-v0'], 'has shape'),
    'of another task, linear': (['--reward', 'fem.h5', '--env_name', 'MountainCar-v0'], 'has shape'),
    'missing': (['--reward', 'none.h5', '--env_name', 'CartPole-v0'], 'none.h5'),
    'overwritten': (['--reward', 'airl.h5', '--env_name', 'CartPole-v0', '--log', 'airl.h5'], 'exists already'),
}


@pytest.mark.parametrize('case', WRONG)
def test_a_reward_that_does_not_fit_is_refused(folder, case):
    args, said = WRONG[case]
    done = script('run_rl_mj.py', folder, *args, *SHORT, rc=2)
    assert done.stderr.count('\n') == 1 and said in done.stderr, done.stderr


def test_data_without_what_follows_them_are_used_as_far_as_they_go(folder, tmp_path):
    trajs = load_trajs(folder / 'trajs.h5')
    trajs.lastobs_B_Do = None
    save_trajs(tmp_path / 'trajs.h5', trajs, {})
    run(AIRL, tmp_path, '--log', 'a.h5')
    one = TrajBatch(trajs.obs[0][:1], np.zeros((1, 0)), trajs.a[0][:1], np.zeros(1), [1])
    save_trajs(tmp_path / 'one.h5', one, {})
    done = run([*AIRL[:6], 'one.h5', *AIRL[7:], '--max_traj_len', '1'], tmp_path, rc=2)
    assert 'one.h5: what follows its pairs is not known' in done.stderr


def test_learns_cartpole(folder):
    """Survival, which the sign of its reward alone would not give: with episodes that just end, it unlearns to stand."""
    demos = po.Demonstrations.load(folder / 'trajs.h5')
    options = {'min_total_sa': 1500, 'iterations': 40, 'seed': 0, 'progress': False, 'tiny_policy': True}
    returns = [po.train('airl', 'CartPole-v0', demos, airl_absorbing=on, **options).log['trueret'][-5:].mean() for on in (1, 0)]
    assert returns[0] > 100 > returns[1], returns
