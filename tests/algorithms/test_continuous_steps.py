"""Whole iterations of ga, fem and simplex with continuous actions, against an account that shares no code with ours.

The account holds its own state in numpy and goes through several iterations in a row; of ours it is given the first parameters, the
draws and the batches alone. It is written from LEGACY (the contract of 2016) and the papers: rows one by one, backpropagation by hand,
the curvature as a dense matrix. Letters: N rows, P parameters, as everywhere.
"""

import json
import math

import numpy as np
import pytest
import torch
from test_steps import GAMMA, LAM, TIMINGS, slow_advantages, slow_entropy, slow_explained, slow_log_density, slow_returns

from policyopt.imitation import ImitationOptimizer
from policyopt.options import ImitationOptions
from policyopt.policies import make_policy
from policyopt.rewards import LinearReward, TransitionClassifier
from policyopt.sampling.mdp import RecordedTask
from policyopt.torchutil import NetConfig
from policyopt.trajectories import ContinuousSpace, Expert, TrajBatch
from policyopt.valuefuncs import ValueFunc

OBS, ACTIONS = ContinuousSpace(3), ContinuousSpace(2)
NET = [layer for n in (5, 4) for layer in ({'type': 'fc', 'n': n}, {'type': 'nonlin', 'func': 'tanh'})]
LENGTHS, NUM_EXPERT, NUM_ITERATIONS = (9, 21, 6, 30, 14), 40, 4
TIME_SCALE, MAX_KL, DAMPING, LR, STEPS, ENT_REG_WEIGHT = 1 / 50, 0.01, 0.1, 0.01, 2, 0.001


# ---- the account


class Moments:
    """Running mean and mean square: each new batch is pooled with all before it."""

    def __init__(self, dim):
        self.count, self.mean, self.meansq = 0, np.zeros(dim), np.ones(dim)

    def update(self, x_N_D):
        n = self.count + len(x_N_D)
        self.mean = (self.count * self.mean + sum(x_N_D)) / n
        self.meansq = (self.count * self.meansq + sum(x * x for x in x_N_D)) / n
        self.count = n

    @property
    def width(self):
        return np.sqrt(np.maximum(0, self.meansq - self.mean**2)) + 1e-6


class Net:
    """Fully connected layers with tanh between them; `theta` is a list of arrays W, b, W, b, …"""

    def __init__(self, theta):
        self.theta = theta

    def layers(self, x):
        """What goes into each layer, and the output."""
        seen = [x]
        for i in range(0, len(self.theta), 2):
            z = seen[-1] @ self.theta[i] + self.theta[i + 1][0]
            seen.append(z if i + 2 == len(self.theta) else np.array([math.tanh(v) for v in z]))
        return seen

    def output(self, x):
        return self.layers(x)[-1]

    def gradient(self, x, dout):
        """Of dout·output, flat, in the order of theta."""
        seen, parts = self.layers(x), []
        for i in reversed(range(0, len(self.theta), 2)):
            parts = [np.outer(seen[i // 2], dout).ravel(), dout, *parts]
            dout = (self.theta[i] @ dout) * (1 - seen[i // 2] ** 2)
        return np.concatenate(parts)


def flat(arrays):
    return np.concatenate([x.ravel() for x in arrays])


def unflat(theta_P, arrays):
    """As many arrays of the same shapes."""
    ends = np.cumsum([x.size for x in arrays])
    return [part.reshape(x.shape) for part, x in zip(np.split(theta_P, ends[:-1]), arrays, strict=True)]


def natural_step(theta_P, gradient_P, curvature_P_P, objective_and_kl):
    """(new parameters, objective − the old one, KL, rejected): conjugate gradient, scaled to the KL, then a backtracking line search."""
    objective0, _ = objective_and_kl(theta_P)
    if max(abs(gradient_P)) < 1e-6:
        return theta_P, 0.0, 0.0, 0
    A = curvature_P_P + DAMPING * np.eye(len(theta_P))
    d, residual = np.zeros_like(gradient_P), gradient_P.copy()
    direction = residual.copy()
    for _ in range(10):
        if np.linalg.norm(residual) < 1e-5 * np.linalg.norm(gradient_P):
            break
        length = (residual @ residual) / (direction @ A @ direction)
        d = d + length * direction
        smaller = residual - length * (A @ direction)
        direction = smaller + (smaller @ smaller) / (residual @ residual) * direction
        residual = smaller
    step = d / math.sqrt(0.5 * (d @ A @ d) / MAX_KL + 1e-8)
    for rejected in range(11):
        new_P = theta_P + 0.5**rejected * step
        objective, kl = objective_and_kl(new_P)
        if rejected == 10 or (kl <= 2 * MAX_KL and objective - objective0 >= 0.1 * 0.5**rejected * (gradient_P @ step)):
            return new_P, objective - objective0, kl, rejected


class Policy:
    """Gaussian: the net gives means, the logarithms of the deviations are parameters of their own."""

    def __init__(self, theta):
        self.logstdevs, self.net, self.obsnorm = theta[0], Net(theta[1:]), Moments(OBS.dim)

    @property
    def theta(self):
        return [self.logstdevs, *self.net.theta]

    def adist(self, obs_N_Do, theta=None):
        logstdevs, *layers = theta or self.theta
        z = (obs_N_Do - self.obsnorm.mean) / self.obsnorm.width
        return np.array([np.concatenate([Net(layers).output(x), np.exp(logstdevs[0])]) for x in z])

    def step(self, obs, a, old_N_Pa, adv_N, rng):
        """TRPO: mean(π/π_old · standardised advantage) within the mean KL(old ‖ new)."""
        adv_N = (adv_N - np.mean(adv_N)) / (np.std(adv_N) + 1e-8)
        logp_old_N = slow_log_density(ACTIONS, old_N_Pa, a)
        variance = np.exp(2 * self.logstdevs[0])
        z = (obs - self.obsnorm.mean) / self.obsnorm.width
        gradient_P = 0
        for x, action, logp_old, adv, dist in zip(z, a, logp_old_N, adv_N, self.adist(obs), strict=True):
            off = action - dist[: ACTIONS.dim]
            ratio = math.exp(slow_log_density(ACTIONS, [dist], [action])[0] - logp_old)
            dlogp_P = np.concatenate([off**2 / variance - 1, self.net.gradient(x, off / variance)])
            gradient_P = gradient_P + ratio * adv * dlogp_P / len(z)
        rows = rng.choice(len(z), size=int(0.1 * len(z)))
        curvature_P_P = np.zeros((len(gradient_P),) * 2)
        curvature_P_P[range(ACTIONS.dim), range(ACTIONS.dim)] = 2
        for x in z[rows]:
            for k in range(ACTIONS.dim):
                g = self.net.gradient(x, np.eye(ACTIONS.dim)[k])
                curvature_P_P[ACTIONS.dim :, ACTIONS.dim :] += np.outer(g, g) / variance[k] / len(rows)

        def objective_and_kl(theta_P):
            new_N_Pa = self.adist(obs, unflat(theta_P, self.theta))
            ratio_N = np.exp(slow_log_density(ACTIONS, new_N_Pa, a) - logp_old_N)
            kl = 0.0
            for old, new in zip(old_N_Pa, new_N_Pa, strict=True):
                for mean, dev, new_mean, new_dev in zip(*np.split(old, 2), *np.split(new, 2), strict=True):
                    kl += math.log(new_dev / dev) + (dev**2 + (mean - new_mean) ** 2) / (2 * new_dev**2) - 0.5
            return np.mean(ratio_N * adv_N), kl / len(obs)

        theta0_P = flat(self.theta)
        theta_P, dl, kl, bt = natural_step(theta0_P, gradient_P, curvature_P_P, objective_and_kl)
        self.logstdevs, *self.net.theta = unflat(theta_P, self.theta)
        return {'dl': dl, 'kl': kl, 'bt': bt, 'gnorm': max(abs(gradient_P)), 'dx': max(abs(theta_P - theta0_P))}


class Values:
    def __init__(self, theta):
        self.net, self.obsnorm, self.vnorm = Net(theta), Moments(OBS.dim), Moments(1)

    def inputs(self, obs, time_N):
        return np.column_stack([(obs - self.obsnorm.mean) / self.obsnorm.width, time_N * TIME_SCALE])

    def evaluate(self, obs, time_N):
        return np.array([self.net.output(x)[0] for x in self.inputs(obs, time_N)]) * self.vnorm.width + self.vnorm.mean

    def fit(self, obs, time_N, y_N, rng):
        """Both normalisers, then one step on −mean((v − y)²) within mean((v_old − v)²)."""
        self.obsnorm.update(obs)
        self.vnorm.update(y_N[:, None])
        x_N, target_N = self.inputs(obs, time_N), (y_N - self.vnorm.mean) / self.vnorm.width
        old_N = np.array([self.net.output(x)[0] for x in x_N])
        gradient_P = sum(self.net.gradient(x, np.array([2 * (y - v)])) for x, y, v in zip(x_N, target_N, old_N, strict=True)) / len(x_N)
        rows = rng.choice(len(x_N), size=int(0.1 * len(x_N)))
        curvature_P_P = sum(2 * np.outer(g, g) for g in (self.net.gradient(x, np.ones(1)) for x in x_N[rows])) / len(rows)

        def objective_and_kl(theta_P):
            new = Net(unflat(theta_P, self.net.theta))
            v_N = np.array([new.output(x)[0] for x in x_N])
            return -np.mean((v_N - target_N) ** 2), np.mean((old_N - v_N) ** 2)

        theta_P, dl, kl, bt = natural_step(flat(self.net.theta), gradient_P, curvature_P_P, objective_and_kl)
        self.net.theta = unflat(theta_P, self.net.theta)
        return {'vf_dl': dl, 'vf_kl': kl, 'vf_gnorm': max(abs(gradient_P)), 'vf_bt': bt}


class Classifier:
    """GAIL's discriminator, trained by Adam."""

    def __init__(self, theta, favor_zero, expert):
        self.net, self.favor_zero, self.norm = Net(theta), favor_zero, Moments(OBS.dim + ACTIONS.dim)
        self.m, self.v, self.t = 0, 0, 0
        self.norm.update(np.column_stack(expert[:2]))

    def scores(self, obs, a, time_N):
        z = (np.column_stack([obs, a]) - self.norm.mean) / self.norm.width
        self.x_N = np.column_stack([z, time_N * TIME_SCALE])
        return np.array([self.net.output(x)[0] for x in self.x_N])

    def rewards(self, obs, a, time_N):
        """log σ(s) for tasks that end on success, else −log(1 − σ(s))."""
        p_N = 1 / (1 + np.exp(-self.scores(obs, a, time_N)))
        return np.log(p_N) if self.favor_zero else -np.log(1 - p_N)

    def fit(self, batch, expert):
        obs, a, time_N = (np.concatenate(pair) for pair in zip(batch, expert, strict=True))
        n = len(batch[0])
        label_N = np.repeat([0, 1], n)
        self.norm.update(np.column_stack([obs, a]))
        for _ in range(STEPS):
            s_N = self.scores(obs, a, time_N)
            loss, gradient_P = 0.0, 0
            for x, s, label in zip(self.x_N, s_N, label_N, strict=True):
                p = 1 / (1 + math.exp(-s))
                loss -= math.log(p if label else 1 - p) / n
                loss -= ENT_REG_WEIGHT * -(p * math.log(p) + (1 - p) * math.log(1 - p)) / n
                gradient_P = gradient_P + self.net.gradient(x, np.array([(p - label + ENT_REG_WEIGHT * s * p * (1 - p)) / n]))
            self.t += 1
            self.m = 0.9 * self.m + 0.1 * gradient_P
            self.v = 0.999 * self.v + 0.001 * gradient_P**2
            size = LR * math.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
            self.net.theta = unflat(flat(self.net.theta) - size * self.m / (np.sqrt(self.v) + 1e-8), self.net.theta)
        s_N = self.scores(obs, a, time_N)
        raccpi, raccex = np.mean(s_N[:n] <= 0), np.mean(s_N[n:] > 0)
        return {'rloss': loss, 'raccpi': raccpi, 'raccex': raccex, 'racc': (raccpi + raccex) / 2, 'rkl': None, 'rbt': 0}


class Linear:
    """Feature expectation matching over the l2 ball (Abbeel & Ng 2004), or the worst single feature (Syed et al. 2008)."""

    def __init__(self, mode, shift, favor_zero, w, expert):
        self.mode, self.shift, self.favor_zero, self.w, self.bound = mode, shift, favor_zero, w, 0.0
        self.norm = Moments(OBS.dim + ACTIONS.dim)
        self.norm.update(np.column_stack(expert[:2]))
        self.expert_mean_F = sum(self.features(*expert)) / NUM_EXPERT

    def features(self, obs, a, time_N):
        out = []
        for x, t in zip(np.column_stack([obs, a]), time_N * TIME_SCALE, strict=True):
            z = (x - self.norm.mean) / self.norm.width
            f = np.array([*z, *(0.01 * z) ** 2, t, t**2, t**3, 1.0])
            out.append(np.concatenate([f, -f]) if self.mode == 'simplex' else f)
        return out

    def rewards(self, obs, a, time_N):
        """Linear, divided by the number of features, less the bound: with favor_zero a maximum, else a minimum."""
        r_N = [(f[self.w] if self.mode == 'simplex' else f @ self.w) / len(f) for f in self.features(obs, a, time_N)]
        far = max if self.favor_zero else min
        if self.shift == 'running':
            self.bound = far(self.bound, *r_N)
        elif self.shift == 'batch':
            self.bound = far(r_N)
        return np.array(r_N) - self.bound

    def fit(self, batch, expert):
        gap_F = sum(self.features(*batch)) / len(batch[0]) - self.expert_mean_F
        if self.mode == 'simplex':
            self.w = min(range(len(gap_F)), key=lambda i: gap_F[i])
            return {'vmin': min(gap_F)}
        norm = math.sqrt(sum(gap_F**2))
        self.w = -gap_F / (norm + 1e-8)
        return {'l2': norm}


def imitate(policy, values, reward, trajs, expert, ent_reg, rng):
    """One iteration of 2016 in its order, from a batch; returns its log fields but counters and timings."""
    obs, a, old_N_Pa = trajs.obs.stacked, trajs.a.stacked, trajs.adist.stacked
    time_N = np.concatenate([np.arange(n) for n in LENGTHS])
    num = len(LENGTHS)
    unreg_N = reward.rewards(obs, a, time_N)
    bonus_N = -ent_reg * slow_log_density(ACTIONS, old_N_Pa, a)
    r_N = unreg_N + bonus_N
    q_N, v_N = slow_returns(r_N, LENGTHS), values.evaluate(obs, time_N)
    per_time = [np.mean(q_N[time_N == t]) for t in time_N]
    fields = policy.step(obs, a, old_N_Pa, slow_advantages(r_N, v_N, LENGTHS), rng)
    policy.obsnorm.update(obs)
    drawn = rng.choice(NUM_EXPERT, size=len(obs))
    fields |= reward.fit((obs, a, time_N), [x[drawn] for x in expert])
    fields |= values.fit(obs, time_N, slow_returns(reward.rewards(obs, a, time_N), LENGTHS), rng)
    if isinstance(reward, Linear):
        fields['reward_bound'] = reward.bound
    return fields | {
        'vf_r2': slow_explained(q_N, v_N),
        'tdvf_r2': slow_explained(q_N, per_time),
        'ent': slow_entropy(ACTIONS, old_N_Pa),
        'trueret': sum(trajs.r.stacked) / num,
        'iret': sum(r_N) / num,
        'avgr': np.mean(r_N),
        'avgunregr': np.mean(unreg_N),
        'avgpreg': np.mean(bonus_N),
    }


# ---- ours beside it


class Given(ImitationOptimizer):
    """The product's own step; only where trajectories come from is replaced: observations at random, actions from the present policy."""

    def sample(self):
        draws, n = np.random.RandomState(100 + self.iteration), sum(LENGTHS)
        obs_N_Do = np.array([2.0, -1.0, 0.0]) + draws.randn(n, OBS.dim) * [1.0, 0.1, 3.0]
        adist_N_Pa = self.policy.compute_adist(obs_N_Do).numpy()
        mean_N_Da, stdev_N_Da = np.split(adist_N_Pa, 2, axis=1)
        a_N_Da = mean_N_Da + stdev_N_Da * draws.randn(n, ACTIONS.dim)
        time_N = np.concatenate([np.arange(length) for length in LENGTHS])
        self.trajs = TrajBatch(obs_N_Do, adist_N_Pa, a_N_Da, draws.randn(n), LENGTHS, time_N)
        return self.trajs


def layers_of(model, scope):
    return [value for name, value in model.export().items() if name.startswith(scope) and 'AffineLayer' in name]


def both(reward_type, shift, favor_zero, ent_reg):
    """(our optimiser, (policy, values, reward) of the account, the expert's pairs), in the same state."""
    rng = np.random.RandomState(1)
    expert = 1.5 + rng.randn(NUM_EXPERT, OBS.dim), 0.5 * rng.randn(NUM_EXPERT, ACTIONS.dim), rng.randint(30, size=NUM_EXPERT).astype(float)
    policy = make_policy(OBS, ACTIONS, NET, True, rng)
    limits = {'policy_max_kl': MAX_KL, 'policy_cg_damping': DAMPING, 'vf_max_kl': MAX_KL, 'vf_cg_damping': DAMPING}
    learning = {'reward_lr': LR, 'reward_steps': STEPS, 'reward_ent_reg_weight': ENT_REG_WEIGHT, 'reward_shift': shift or 'running'}
    chosen = {'reward_type': reward_type, 'favor_zero_expert_reward': int(favor_zero), 'policy_ent_reg': ent_reg, 'seed': 0}
    options = ImitationOptions(
        policy_hidden_spec=json.dumps(NET), reward_include_time=1, discount=GAMMA, lam=LAM, **limits, **learning, **chosen
    )
    vf = ValueFunc(options, OBS.dim, TIME_SCALE, NetConfig(rng))
    slow_policy = Policy([np.zeros((1, ACTIONS.dim)), *layers_of(policy, '/GaussianPolicy')])
    slow_values = Values(layers_of(vf, '/ValueFunc'))
    if reward_type == 'nn':
        reward = TransitionClassifier(options, OBS, ACTIONS, TIME_SCALE, NetConfig(rng))
        # not zero outputs: its bias would move by rounding alone at first, and Adam makes that large
        reward.theta_P.add_(torch.as_tensor(0.1 * rng.randn(len(reward.theta_P))))
        slow_reward = Classifier(layers_of(reward, '/TransitionClassifier'), favor_zero, expert)
    else:
        reward = LinearReward(options, OBS, ACTIONS, TIME_SCALE, Expert(*expert), rng)
        slow_reward = Linear(reward_type, shift, favor_zero, reward.w, expert)
    for model in (policy, vf):
        model.update_obsnorm(expert[0])
    reward.update_inputnorm(*expert[:2])
    for slow in (slow_policy, slow_values):
        slow.obsnorm.update(expert[0])
    mdp = RecordedTask(TrajBatch(expert[0], np.zeros((NUM_EXPERT, 0)), expert[1], np.zeros(NUM_EXPERT), [NUM_EXPERT]))
    opt = Given(options, mdp, policy, vf, reward, Expert(*expert), np.random.RandomState(7))
    return opt, (slow_policy, slow_values, slow_reward), expert


def moments_of(moments):
    return [np.array(moments.count), moments.mean, moments.meansq]


def state_of(policy, values, reward):
    """Every number that the account has learned, by what it is."""
    found = {'policy': policy.theta, 'policy normaliser': moments_of(policy.obsnorm), 'values': values.net.theta}
    found |= {'values normalisers': moments_of(values.obsnorm) + moments_of(values.vnorm)}
    if isinstance(reward, Classifier):
        return found | {'classifier': reward.net.theta, 'its normaliser': moments_of(reward.norm), 'Adam': [reward.m, reward.v]}
    return found | {'weights': [np.array(reward.w)], 'bound': [np.array(reward.bound)]}


def our_state(opt):
    def named(model, part):
        return [value for name, value in model.export().items() if part in name]

    found = {'policy': [opt.policy.export()['/GaussianPolicy/logstdevs_1_Da'], *named(opt.policy, 'AffineLayer')]}
    found |= {'policy normaliser': named(opt.policy, 'obsnorm'), 'values': named(opt.vf, 'AffineLayer')}
    found |= {'values normalisers': named(opt.vf, 'obsnorm') + named(opt.vf, 'vnorm')}
    if isinstance(opt.reward, TransitionClassifier):
        adam = opt.reward.state()
        found |= {'classifier': named(opt.reward, 'AffineLayer'), 'its normaliser': named(opt.reward, 'inputnorm')}
        return found | {'Adam': [adam['/adam/m_P'], adam['/adam/v_P']]}
    return found | {'weights': [opt.reward.w], 'bound': [opt.reward.reward_bound]}


CASES = {
    'ga': ('nn', None, False, 0.0),
    'ga, success ends, bonus': ('nn', None, True, 0.1),
    **{
        f'{alg}, {shift}, {"success" if favor_zero else "failure"} ends': (kind, shift, favor_zero, 0.0)
        for alg, kind in (('fem', 'l2ball'), ('simplex', 'simplex'))
        for shift in ('running', 'batch', 'none')
        for favor_zero in (False, True)
    },
}


@pytest.mark.parametrize('case', CASES)
def test_iterations_with_continuous_actions_are_those_of_an_independent_account(case):
    """To 1e-8 of the largest number of each array, after each of several iterations in a row."""
    opt, account, expert = both(*CASES[case])
    rng = np.random.RandomState(7)
    for k in range(NUM_ITERATIONS):
        ours = {name: value for name, value, _ in opt.step() if name not in ('iter', 'avglen', 'ntrajs', 'nsa', *TIMINGS)}
        expected = imitate(*account, opt.trajs, expert, CASES[case][3], rng)
        assert set(ours) == set(expected)
        for name, value in expected.items():
            if value is None:
                assert ours[name] is None, name
            else:
                np.testing.assert_allclose(ours[name], value, rtol=1e-8, atol=1e-12, err_msg=f'iteration {k}: {name}')
        found = our_state(opt)
        for name, arrays in state_of(*account).items():
            for mine, theirs in zip(found[name], arrays, strict=True):
                close = 1e-8 * np.max(np.abs(theirs))
                np.testing.assert_allclose(np.ravel(mine), np.ravel(theirs), rtol=0, atol=close, err_msg=f'iteration {k}: {name}')
    assert opt.rng.random_sample() == rng.random_sample(), 'as many numbers were drawn'
