"""Whole iterations against a slow account of them: what enters the advantages and what the value targets, which normaliser moves when.

Every step is taken twice: by the optimiser, and by `slow_…` on copies of its models, with loops in place of the vectorised sums, closed
forms in place of the shared code, and repeated rows in place of weighted ones. What the copies call (TRPO step, value fit, classifier
fit, each alone) is held by the golden vectors.
"""

import copy
import json
import math
import signal

import numpy as np
import pytest
import tables
import torch
from training_tools import DATA, RUNS, SAMPLED, run_until

from policyopt import rl
from policyopt.files.training_log import read_log
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.imitation import ImitationOptimizer
from policyopt.options import ImitationOptions, RLOptions
from policyopt.policies import make_policy
from policyopt.rewards import LinearReward, TransitionClassifier
from policyopt.sampling.mdp import MDP, sample_batch
from policyopt.sampling.rollout import SimConfig
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Batch, Expert, FiniteSpace, TrajBatch, subsampled_rows
from policyopt.valuefuncs import ValueFunc

NET = [{'type': 'fc', 'n': 8}, {'type': 'nonlin', 'func': 'tanh'}]
NET_TEXT = json.dumps(NET)
CONFIG = SimConfig(min_num_trajs=0, min_total_sa=150, max_traj_len=40, sim_batch_size=1)
SEED, TIME_SCALE, NUM_EXPERT, NUM_ITERATIONS = 5, 1 / 200, 60, 3
GAMMA, LAM, MAX_KL, DAMPING = 0.99, 0.9, 0.01, 0.1
STEPPING = {'discount': GAMMA, 'lam': LAM, 'policy_max_kl': MAX_KL, 'policy_cg_damping': DAMPING, 'vf_max_kl': MAX_KL}
COMMON = STEPPING | {'vf_cg_damping': DAMPING, 'min_total_sa': 150, 'max_traj_len': 40, 'sim_batch_size': 1, 'policy_hidden_spec': NET_TEXT}
CLOSE = {'rtol': 1e-5, 'atol': 1e-6}  # rounding, which ten conjugate-gradient iterations amplify
TIMINGS = ('tsamp', 'tadv', 'tstep', 'ttotal')


# ---- the slow account


def slow_log_density(space, adist_N_Pa, a_N_Da):
    """log π(a|s) row by row; adist are log-probabilities, or means and then standard deviations."""
    if isinstance(space, FiniteSpace):
        return np.array([row[a[0]] for row, a in zip(adist_N_Pa, a_N_Da, strict=True)])
    logp_N = []
    for row, a in zip(adist_N_Pa, a_N_Da, strict=True):
        density = 1.0
        for mean, stdev, x in zip(row[: len(a)], row[len(a) :], a, strict=True):
            density *= math.exp(-((x - mean) ** 2) / (2 * stdev**2)) / (stdev * math.sqrt(2 * math.pi))
        logp_N.append(math.log(density))
    return np.array(logp_N)


def slow_entropy(space, adist_N_Pa):
    """Mean entropy of the distributions."""
    if isinstance(space, FiniteSpace):
        return -np.mean([sum(math.exp(x) * math.log(math.exp(x) + 1e-10) for x in row) for row in adist_N_Pa])
    dim = adist_N_Pa.shape[1] // 2
    return np.mean([sum(0.5 * math.log(2 * math.pi * math.e * stdev**2) for stdev in row[dim:]) for row in adist_N_Pa])


def slow_returns(r_N, lengths_B):
    """Discounted sums to the end of each trajectory, as the formula has them."""
    q_N, start = [], 0
    for n in lengths_B:
        r_T = r_N[start : start + n]
        q_N += [sum(GAMMA**k * r_T[t + k] for k in range(n - t)) for t in range(n)]
        start += n
    return np.array(q_N)


def slow_advantages(r_N, v_N, lengths_B):
    adv_N, start = [], 0
    for n in lengths_B:
        r_T, v_Tp1 = r_N[start : start + n], [*v_N[start : start + n], 0.0]
        delta_T = [r_T[t] + GAMMA * v_Tp1[t + 1] - v_Tp1[t] for t in range(n)]
        adv_N += [sum((GAMMA * LAM) ** k * delta_T[t + k] for k in range(n - t)) for t in range(n)]
        start += n
    return np.array(adv_N)


def slow_explained(q_N, v_N):
    return 1 - np.mean((q_N - v_N - np.mean(q_N - v_N)) ** 2) / (np.mean((q_N - np.mean(q_N)) ** 2) + 1e-8)


def slow_policy_step(now, rng, trajs, r_N, max_kl=MAX_KL):
    """The first half of every iteration: advantages of r and the TRPO step on the copies; returns the log fields found on the way."""
    obs, a, adist = trajs.obs.stacked, trajs.a.stacked, trajs.adist.stacked
    time_N = np.concatenate([np.arange(n) for n in trajs.lengths])
    q_N = slow_returns(r_N, trajs.lengths)
    mean_q_T = [np.mean(q_N[time_N == t]) for t in range(max(trajs.lengths))]
    tdv_N = np.array([mean_q_T[t] for t in time_N])
    v_N = tdv_N if now['vf'] is None else now['vf'].evaluate(obs, time_N)
    adv_N = slow_advantages(r_N, v_N, trajs.lengths)
    before_P = now['policy'].theta_P.clone()
    adv_N = (adv_N - np.mean(adv_N)) / (np.std(adv_N) + 1e-8)
    fields = rl.trpo_step(now['policy'], obs, a, adist, adv_N, max_kl=max_kl, damping=DAMPING, rng=rng).fields()
    now['policy'].update_obsnorm(obs)
    return {n: value for n, value, _ in fields} | {
        'vf_r2': slow_explained(q_N, v_N),
        'tdvf_r2': slow_explained(q_N, tdv_N),
        'dx': np.abs((now['policy'].theta_P - before_P).numpy()).max(),
        'ent': slow_entropy(now['policy'].action_space, adist),
        'avglen': int(sum(trajs.lengths) / len(trajs.lengths)),
    }


def slow_value_fit(vf, obs, time_N, y_N, rng):
    """As many fits of one step as `vf` takes at once, of which the first alone moves the normalisers."""
    steps, vf.steps = vf.steps, 1
    for k in range(steps):
        fields = vf.fit(obs, time_N, y_N, rng)
        if k == 0:
            vf.update_obsnorm, vf.vnorm.update = (lambda *_: None), (lambda *_: None)
    del vf.update_obsnorm, vf.vnorm.update
    vf.steps = steps
    return fields


def slow_imitation_step(now, rng, trajs, expert, ent_reg, mode, max_kl=MAX_KL):
    """One iteration of adversarial imitation on the copies, as it was in 2016; returns its log fields but counters and timings."""
    obs, a, time_N = trajs.obs.stacked, trajs.a.stacked, np.concatenate([np.arange(n) for n in trajs.lengths])
    policy, vf, reward = now['policy'], now['vf'], now['reward']
    reward.rng = rng  # one stream of draws, as in a run
    played = a if policy.bounds_2_Da is None else np.minimum(np.maximum(a, policy.bounds_2_Da[0].numpy()), policy.bounds_2_Da[1].numpy())
    batch = Batch(obs, played, time_N)
    r_unreg_N = reward.compute_reward(batch)
    bonus_N = -ent_reg * slow_log_density(policy.action_space, trajs.adist.stacked, a)
    fields = slow_policy_step(now, rng, trajs, r_unreg_N + bonus_N, max_kl)
    drawn = rng.choice(len(expert[0]), size=len(obs))
    if reward.options.reward_grad_penalty:  # draws from distinct rows, which are in their order
        distinct, count = np.unique(drawn, return_counts=True)
        reward_fields, r_new_N = reward.fit(batch, Batch(*expert).rows(distinct), count)
    else:
        reward_fields, r_new_N = reward.fit(batch, Batch(*expert).rows(drawn))
    if isinstance(reward, TransitionClassifier):
        score_N = reward.compute_scores(batch).numpy()
        np.testing.assert_allclose(r_new_N, [math.log(1 + math.exp(s)) for s in score_N], rtol=1e-9)
    vf_fields = [] if vf is None else slow_value_fit(vf, obs, time_N, slow_returns(r_new_N, trajs.lengths), rng)
    return (
        fields
        | {n: value for n, value, _ in [*reward_fields, *vf_fields]}
        | {
            'trueret': sum(trajs.r.stacked) / len(trajs.lengths),
            'iret': sum(r_unreg_N + bonus_N) / len(trajs.lengths),
            'avgr': np.mean(r_unreg_N + bonus_N),
            'avgunregr': np.mean(r_unreg_N),
            'avgpreg': np.mean(bonus_N),
        }
        | ({'reward_bound': reward.reward_bound} if isinstance(reward, LinearReward) else {})
    )


# ---- what is compared


def check_fields(fields, expected, total_time):
    found = {name: value for name, value, _ in fields}
    assert set(found) == set(expected) | set(TIMINGS)
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            np.testing.assert_allclose(found[name], value, **CLOSE, err_msg=name)
    assert all(found[name] > 0 for name in TIMINGS)
    np.testing.assert_allclose(found['ttotal'], total_time + found['tsamp'] + found['tadv'] + found['tstep'], rtol=1e-12)
    return found['ttotal']


def check_models(opt, now):
    for name, model in now.items():
        if model is None:
            continue
        ours = getattr(opt, name).export()
        assert list(ours) == list(model.export())
        for variable, value in model.export().items():
            np.testing.assert_allclose(ours[variable], value, **CLOSE, err_msg=f'{name} {variable}')
    if isinstance(now.get('reward'), LinearReward):
        np.testing.assert_allclose(opt.reward.w, now['reward'].w, **CLOSE)
        np.testing.assert_allclose(opt.reward.reward_bound, now['reward'].reward_bound, **CLOSE)


def copies(opt, names):
    return {name: copy.deepcopy(getattr(opt, name)) for name in names}, copy.deepcopy(opt.rng)


# ---- adversarial imitation


def imitation(env, reward_type, ent_reg, with_vf, mode, include_time=False, gail=False):
    """An optimiser with small nets, and the expert pairs that it was given; gail: with every option that mode gail adds."""
    mdp, rng = MDP(env), np.random.RandomState(1)
    obs_dim, finite = mdp.obs_space.dim, isinstance(mdp.action_space, FiniteSpace)
    a = rng.randint(mdp.action_space.size, size=(NUM_EXPERT, 1)) if finite else rng.randn(NUM_EXPERT, mdp.action_space.dim)
    expert = 0.3 + 0.2 * rng.randn(NUM_EXPERT, obs_dim), a, rng.randint(40, size=NUM_EXPERT).astype(float)
    bounds_2_Da = np.array([mdp.info.a_low, mdp.info.a_high]) / 8 if gail and not finite else None
    policy = make_policy(mdp.obs_space, mdp.action_space, NET, mode != 'none', rng, bounds_2_Da=bounds_2_Da)
    added = {'vf_steps': 3, 'reward_grad_penalty': 0.5, 'policy_final_kl': MAX_KL / 5, 'max_iter': NUM_ITERATIONS} if gail else {}
    chosen = {'reward_type': reward_type, 'policy_ent_reg': ent_reg, 'obsnorm_mode': mode, 'reward_include_time': int(include_time)}
    learning = {'reward_lr': 0.05, 'reward_steps': 2, 'favor_zero_expert_reward': int(reward_type != 'nn'), 'seed': SEED}
    options = ImitationOptions(**COMMON, **chosen, **learning, **added)
    nets, vf = NetConfig(rng), None
    if with_vf:
        vf = ValueFunc(options, obs_dim, TIME_SCALE, nets, mode != 'none')
    spaces = mdp.obs_space, mdp.action_space
    if reward_type == 'nn':
        reward = TransitionClassifier(options, *spaces, TIME_SCALE, nets)
    else:
        reward = LinearReward(options, *spaces, TIME_SCALE, Expert(*expert), rng)
    if mode == 'expertdata':
        policy.update_obsnorm(expert[0])
        reward.update_inputnorm(*expert[:2])
        if vf is not None:
            vf.update_obsnorm(expert[0])
    return ImitationOptimizer(options, mdp, policy, vf, reward, Expert(*expert), rng), expert


STEPS = {
    'finite, bonus': ('CartPole-v0', 'nn', 0.3, True, 'expertdata'),
    'finite, bonus, online': ('CartPole-v0', 'nn', 0.3, True, 'online', True),
    'finite, bonus, no value function': ('CartPole-v0', 'nn', 0.3, False, 'none'),
    'finite, bonus, simplex': ('CartPole-v0', 'simplex', 0.3, True, 'none'),
    'continuous, bonus': ('Pendulum-v1', 'nn', 0.3, True, 'none'),
    'continuous, bonus, l2ball': ('Pendulum-v1', 'l2ball', 0.3, True, 'online'),
    'continuous, no bonus': ('Pendulum-v1', 'nn', 0.0, True, 'expertdata', True),
    'finite, gail': ('CartPole-v0', 'nn', 0.0, True, 'expertdata', False, True),
    'continuous, gail': ('Pendulum-v1', 'nn', 0.0, True, 'expertdata', False, True),
}


@pytest.mark.parametrize('case', STEPS)
def test_imitation_takes_the_steps_of_2016_in_their_order(case):
    """The bonus −c·log π(a|s) is in advantages, iret and avgr, not in the value targets; the policy's normaliser moves after its step."""
    opt, expert = imitation(*STEPS[case])
    ent_reg, mode = STEPS[case][2], STEPS[case][4]
    total_time, num_sa, num_trajs = 0.0, 0, 0
    for k in range(NUM_ITERATIONS):
        now, rng = copies(opt, ('policy', 'vf', 'reward'))
        trajs = sample_batch(opt.policy.actor(), opt.mdp, CONFIG, (SEED, k))
        fields = opt.step()
        max_kl = MAX_KL * (1 - 0.8 * k / (NUM_ITERATIONS - 1)) if 'gail' in case else MAX_KL
        expected = slow_imitation_step(now, rng, trajs, expert, ent_reg, mode, max_kl)
        num_sa, num_trajs = num_sa + sum(trajs.lengths), num_trajs + len(trajs.lengths)
        total_time = check_fields(fields, expected | {'iter': k, 'nsa': num_sa, 'ntrajs': num_trajs}, total_time)
        check_models(opt, now)
        assert opt.rng.random_sample() == rng.random_sample(), 'as many numbers were drawn'


def test_the_bonus_alone_is_the_mean_entropy_of_the_actions_played():
    """Uniform over two actions: log π = −log 2 for each pair, so the bonus is c·log 2 to all of them."""
    for ent_reg in (0.0, 0.5):
        opt, _ = imitation('CartPole-v0', 'nn', ent_reg, True, 'expertdata')
        found = {name: value for name, value, _ in opt.step()}
        assert found['avgpreg'] == pytest.approx(ent_reg * math.log(2), abs=1e-12)
        assert found['avgunregr'] == pytest.approx(math.log(2), abs=1e-12)  # a classifier that is not trained yet: −log(1 − σ(0))
        assert found['avgr'] == pytest.approx((1 + ent_reg) * math.log(2), abs=1e-12)


# ---- obsnorm_mode


@pytest.mark.parametrize('mode', ['none', 'online', 'expertdata'])
def test_what_each_normaliser_has_seen_in_every_obsnorm_mode(mode):
    """Counts, and means as weighted means of the rows, after two iterations; values and the classifier are normalised in every mode."""
    opt, expert = imitation('Pendulum-v1', 'nn', 0.0, True, mode)
    start = [expert[0]] if mode == 'expertdata' else []
    rows = []
    for k in range(2):
        rows.append(sample_batch(opt.policy.actor(), opt.mdp, CONFIG, (SEED, k)).obs.stacked)
        opt.step()
    num = sum(map(len, rows))
    assert float(opt.vf.vnorm.count) == num
    assert float(opt.reward.inputnorm.count) == 2 * num + sum(map(len, start))
    for model in (opt.policy, opt.vf):
        if mode == 'none':
            assert model.obsnorm is None and not any('/obsnorm/' in name for name in model.variables)
            np.testing.assert_array_equal(opt.policy.normalized_obs(expert[0]), expert[0])
        else:
            seen = np.concatenate([*start, *rows])
            assert float(model.obsnorm.count) == len(seen)
            np.testing.assert_allclose(model.obsnorm.mean_1_D[0], seen.mean(axis=0), rtol=1e-9)
            np.testing.assert_allclose(model.obsnorm.stdev_1_D[0], seen.std(axis=0), rtol=1e-9)


@pytest.mark.parametrize('mode', ['none', 'online', 'expertdata'])
def test_a_run_starts_its_normalisers_as_the_option_says(mode, tmp_path):
    """Through the command line: a stopped run's state counts the rows that each normaliser has taken in."""
    rng = np.random.RandomState(0)
    trajs = TrajBatch(rng.randn(70, 4), np.zeros((70, 0)), rng.randint(2, size=(70, 1)), np.ones(70), [30, 40])
    save_trajs(tmp_path / 'trajs.h5', trajs, {})
    num_expert = len(subsampled_rows(load_trajs(tmp_path / 'trajs.h5'), 2)[0]) if mode == 'expertdata' else 0
    options = ['imitate_mj.py', '--mode', 'ga', *DATA, *SAMPLED, '--obsnorm_mode', mode, '--log', 'x.h5']
    assert run_until(options, tmp_path, 0, signal.SIGTERM) == 75
    with tables.open_file(tmp_path / 'x.h5.part') as h5:
        found = {n._v_pathname: float(n.read()) for n in h5.walk_nodes('/checkpoint', 'Array') if n._v_name == 'count'}
    num = int(read_log(tmp_path / 'x.h5.part')['nsa'][-1])
    expected = {'ValueFunc/vnorm': num, 'TransitionClassifier/inputnorm': num_expert + 2 * num}
    if mode != 'none':
        expected |= {'GibbsPolicy/obsnorm': num_expert + num, 'ValueFunc/obsnorm': num_expert + num}
    assert found == {f'/checkpoint/{k}/Standardizer/count': v for k, v in expected.items()}


# ---- TRPO on the true reward


TRPO_RUNS = [('CartPole-v0', True, True), ('Pendulum-v1', True, True), ('CartPole-v0', False, False)]


@pytest.mark.parametrize('env, with_vf, enable_obsnorm', TRPO_RUNS)
def test_trpo_on_the_true_reward_takes_its_steps_in_order(env, with_vf, enable_obsnorm):
    """Before the first batch one more is played, that only fills the observation normalisers; the value targets are the returns."""
    mdp, rng = MDP(env), np.random.RandomState(2)
    policy = make_policy(mdp.obs_space, mdp.action_space, NET, enable_obsnorm, rng)
    options = RLOptions(**COMMON, seed=SEED)
    vf = ValueFunc(options, mdp.obs_space.dim, TIME_SCALE, NetConfig(rng), enable_obsnorm) if with_vf else None
    opt = rl.SamplingPolicyOptimizer(options, mdp, policy, vf, rng)
    total_time, num_sa = 0.0, 0
    for k in range(NUM_ITERATIONS):
        now, copied_rng = copies(opt, ('policy', 'vf'))
        actor = policy.actor()
        if k == 0 and enable_obsnorm:
            first_N_Do = sample_batch(actor, mdp, CONFIG, (SEED, 'init')).obs.stacked
            for model in now.values():
                model.obsnorm.update(torch.as_tensor(first_N_Do))
            actor.mean, actor.scale = first_N_Do.mean(axis=0, keepdims=True), first_N_Do.std(axis=0, keepdims=True) + 1e-6
        trajs = sample_batch(actor, mdp, CONFIG, (SEED, k))
        fields = opt.step()
        expected = slow_policy_step(now, copied_rng, trajs, trajs.r.stacked)
        if with_vf:
            targets_N, time_N = slow_returns(trajs.r.stacked, trajs.lengths), trajs.time.stacked
            expected |= {n: value for n, value, _ in now['vf'].fit(trajs.obs.stacked, time_N, targets_N, copied_rng)}
        num_sa += sum(trajs.lengths)
        counted = {'iter': k, 'nsa': num_sa, 'ret': sum(trajs.r.stacked) / len(trajs.lengths)}
        total_time = check_fields(fields, expected | counted, total_time)
        check_models(opt, now)
        assert opt.rng.random_sample() == copied_rng.random_sample(), 'as many numbers were drawn'


def test_run_rl_without_obsnorm_normalises_neither_policy_nor_values(tmp_path):
    options = [*RUNS['rl'], '--enable_obsnorm', '0', '--log', 'x.h5']
    assert run_until(options, tmp_path, 0, signal.SIGTERM) == 75
    with tables.open_file(tmp_path / 'x.h5.part') as h5:
        found = [n._v_pathname for n in h5.walk_nodes('/checkpoint', 'Array') if n._v_name == 'count']
    assert found == ['/checkpoint/ValueFunc/vnorm/Standardizer/count']
