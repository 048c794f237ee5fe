"""Parity with the 2016 code, in numbers that its own functions produced.

Every file of a known kind in the folder named by GOLDEN_DIR (default tests/golden) is taken, so further vectors can be dropped in.
rtol is 1e-8 unless a comment says why not.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tables
import torch

from policyopt import imitation, optim, policies, rl, snapshots, trajectories, valuefuncs
from policyopt.nn import Standardizer
from policyopt.trajectories import ContinuousSpace, FiniteSpace, RaggedArray, TrajBatch

GOLDEN = Path(os.environ.get('GOLDEN_DIR') or Path(__file__).parent / 'golden')
RTOL = 1e-8


def files(pattern):
    found = sorted(GOLDEN.glob(pattern))
    return pytest.mark.parametrize('path', found, ids=[p.stem for p in found])


def read(path):
    """(arrays, JSON fields) of a golden file."""
    meta = path.with_suffix('.json')
    return np.load(path), json.loads(meta.read_text()) if meta.exists() else {}


def close(actual, expected, rtol=RTOL, atol=1e-13, name=''):
    actual = actual.numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual, dtype=float)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=name)


def check_fields(fields, expected, **tol):
    """Log fields against the golden list [[name, value(, type)], …]; timings are not in it."""
    ours = [f for f in fields if not (f[0].startswith('t') and f[0] in ('tsamp', 'tadv', 'tstep', 'ttotal'))]
    assert [f[0] for f in ours] == [e[0] for e in expected]
    for (name, value, kind), entry in zip(ours, expected, strict=True):
        close(np.nan if value is None else value, np.nan if entry[1] is None else entry[1], name=name, **tol)
        if len(entry) > 2:
            assert kind.__name__ == entry[2], name


def set_vars(model, d, meta, prefix):
    """Load golden variables NN into a model through its names, which must be those of 2016 in their order."""
    names = [v['name'] for v in meta['all_variables_in_order']]
    assert list(model.variables) == names
    model.load({n: d[f'{prefix}_var{i:02d}'] for i, n in enumerate(names)}, 'golden')


def check_vars(model, d, prefix, rtol=RTOL, atol=1e-13):
    for i, (name, var) in enumerate(model.variables.items()):
        close(var, d[f'{prefix}_var{i:02d}'], rtol, atol, f'{prefix} {name}')
    close(model.theta_P, d[f'{prefix}_flat'], rtol, atol, f'{prefix}_flat')


def action_space(kind, n):
    return FiniteSpace(n) if kind in ('gibbs', 'disc') else ContinuousSpace(n)


# a, b: advantages, distributions, standardiser


@files('a_discount_advantage*.npz')
def test_discounts_advantages_and_entropies(path):
    d, _ = read(path)
    r, time_N = RaggedArray(d['r'], d['lengths']), d['time']
    tags = sorted({k[: -len('_gamma')] for k in d.files if k.startswith('g') and k.endswith('_gamma')})
    assert tags
    for tag in tags:
        gamma, lam = float(d[f'{tag}_gamma']), float(d[f'{tag}_lam'])
        adv_N, q, vf_r2, tdvf_r2 = rl.advantages(r, time_N, d['v'], gamma, lam)
        close(r.padded(), d[f'{tag}_r_padded'])
        close(q.stacked, d[f'{tag}_q'])
        close(adv_N, d[f'{tag}_adv'])
        close(vf_r2, d[f'{tag}_vfunc_r2'])
        close(tdvf_r2, d[f'{tag}_simplev_r2'])
        close((adv_N - adv_N.mean()) / (adv_N.std() + 1e-8), d[f'{tag}_adv_standardized'])
    for case in ('discount2', 'discount3', 'discount_long'):
        close(rl.discount(d[f'{case}_in'], float(d[f'{case}_gamma'])), d[f'{case}_out'])


@files('a_discount_advantage*.npz')
def test_distribution_closed_forms_and_simple_value_functions(path):
    d, _ = read(path)
    t = torch.as_tensor
    close(policies.categorical_entropy(t(d['cat_probs'])), d['cat_entropy'])
    close(policies.categorical_entropy(t(d['cat_probs_zero'])), d['cat_entropy_zero'])
    close(policies.gaussian_entropy(t(d['gauss_stdevs'])), d['gauss_entropy'])
    close(policies.gaussian_kl(*(t(d[f'gkl_{k}']) for k in ('mean1', 'sd1', 'mean2', 'sd2'))), d['gkl'])
    rng = np.random.RandomState(int(d['sample_cats_seed']))
    for drawn in d['sample_cats_out']:
        np.testing.assert_array_equal(policies.sample_categorical(d['sample_cats_probs'], rng.rand(len(drawn))), drawn)
    linear = valuefuncs.LinearValueFunc()
    linear.fit(d['obs'], d['time'], d['r'])
    close(linear.w_F, d['linvf_w'])
    close(linear.evaluate(d['obs'], d['time']), d['linvf_eval'])
    constant = valuefuncs.ConstantValueFunc(len(d['constvf_v']))
    constant.fit(d['obs'], d['time'], d['r'])
    close(constant.v_T, d['constvf_v'])
    close(constant.evaluate(d['obs'], d['time']), d['constvf_eval'])


@files('b_standardizer*.npz')
def test_standardizer_pools_exactly(path):
    d, meta = read(path)
    norm = Standardizer(d['probe'].shape[1])
    for s in range(len(meta['update_sizes']) + 1):
        if s:
            norm.update(torch.as_tensor(d[f'update{s}_x']))
        for name, value in (('count', norm.count), ('mean', norm.mean_1_D), ('meansq', norm.meansq_1_D), ('stdev', norm.stdev_1_D[0])):
            # a constant column's variance is a difference of equal numbers: its root is rounding noise of 1e-8
            close(value, d[f's{s}_{name}'], atol=1e-7 if name == 'stdev' else 1e-13, name=f's{s}_{name}')
        probe, varied = torch.as_tensor(d['probe']), d[f's{s}_stdev'] > 1e-6
        close(norm.standardize(probe)[:, varied], d[f's{s}_standardize'][:, varied])
        close(norm.unstandardize(probe), d[f's{s}_unstandardize'], atol=1e-7)


# c, d: policies, TRPO, value function


def golden_policy(d, meta):
    cls = policies.GibbsPolicy if meta['kind'] == 'gibbs' else policies.GaussianPolicy
    space = action_space(meta['kind'], meta['num_actions_or_action_dim'])
    rng = np.random.RandomState(meta['init_seed']) if 'init_seed' in meta else None
    obs_dim = meta.get('obs_dim', d['obs'].shape[1] if 'obs' in d.files else None)
    return cls(ContinuousSpace(obs_dim), space, meta['hidden_spec'], meta.get('enable_obsnorm', True), rng)


@files('c_policy_*.npz')
def test_policy_evaluations_gradients_and_hessian_products(path):
    d, meta = read(path)
    policy = golden_policy(d, meta)
    check_vars(policy, d, 'init')
    set_vars(policy, d, meta, 'vars')
    x, a = policy.normalized_obs(d['obs']), policy.action_tensor(d['actions'])
    adist = policy.compute_adist(d['obs'])
    close(x, d['normalized_obs'])
    close(adist, d['actiondist'])
    close(policy.logprob(adist, a), d['logprobs'])
    close(policy.entropy(adist), d['entropy'])
    actor = policy.actor()
    close(actor.adist(d['obs']), d['actiondist'])
    rng = np.random.RandomState(int(d['sample_seed']))
    noise = rng.rand(len(x), 1) if actor.finite else rng.randn(*d['actions'].shape)
    close(actor.act(d['actiondist'], noise), d['sampled_actions'])
    close(actor.act(d['actiondist']), d['deterministic_actions'])
    adv = torch.as_tensor(d['adv'])
    for tag, old in (('on', adist), ('off', torch.as_tensor(d['off_proposal_actiondist']))):
        obj, grad_P = rl.surrogate_gradient(policy, x, a, old, adv)
        close(obj, d[f'{tag}_obj'], atol=1e-12)
        close(policy.kl(old, adist).mean(), d[f'{tag}_kl'])
        close(grad_P, d[f'{tag}_grad'])
        hvp = policy.kl_hvp(x) if tag == 'on' else policy.kl_hvp(x, old)
        for v, hv in zip(d['hvp_v'], d[f'{tag}_hvp'], strict=True):
            close(hvp(torch.as_tensor(v)), hv)
    logp, grad_P = policy.logprob_gradient(x, a, lambda logp, rows: torch.full_like(logp, -1 / len(x)))
    close(-logp.mean(), d['bclone_loss'])
    close(grad_P, d['bclone_grad'])


@files('c_policy_*.npz')
def test_obsnorm_update_leads_to_the_golden_state(path):
    d, meta = read(path)
    policy = golden_policy(d, meta)
    policy.update_obsnorm(d['obsnorm_update_x'])
    for i, (name, var) in enumerate(policy.variables.items()):
        if 'Standardizer' in name:
            close(var, d[f'vars_var{i:02d}'], name=name)


def check_beyond_rounding(compute, expected):
    """Assert compute(0) equals the golden arrays to rtol 1e-8, give or take what rounding does to this very computation.

    Ten CG iterations amplify rounding by a factor that differs from case to case (the files say so: `rounding_sensitivity_*`), so it
    is measured: compute(eps) perturbs the starting parameters by relative 1e-15. A noise above 1e-5 would make the check vacuous.
    """
    actual = compute(None)
    others = [compute(np.random.RandomState(seed)) for seed in range(4)]
    for name, want in expected.items():
        noise = max(np.max(np.abs(np.asarray(o[name], dtype=float) - np.asarray(actual[name], dtype=float))) for o in others)
        assert noise <= 1e-5 * max(1.0, np.max(np.abs(want))), name
        close(actual[name], want, atol=1e-12 + 20 * noise, name=name)


def perturb(model, rng):
    if rng is not None:
        model.theta_P.mul_(1 + 1e-15 * torch.as_tensor(rng.randn(len(model.theta_P))))


@files('c_policy_*.npz')
@pytest.mark.parametrize('case', ['trpo_full', 'trpo_full_kl1', 'trpo_sub', 'trpo_gradstop'])
def test_trpo_steps(path, case):
    d, meta = read(path)
    args, info = meta[f'{case}_args'], meta[f'{case}_info']
    if case == 'trpo_sub':
        drawn = optim.subsample_rows(len(d['adv']), args['subsample_hvp_frac'], np.random.RandomState(meta['trpo_sub_seed']))
        np.testing.assert_array_equal(drawn, d['trpo_sub_subsample_inds'])

    def compute(noise_rng):
        policy = golden_policy(d, meta)
        set_vars(policy, d, meta, 'vars')
        perturb(policy, noise_rng)
        x, a = policy.normalized_obs(d['obs']), policy.action_tensor(d['actions'])
        step, obj0, grad_P = rl.surrogate_step(
            policy, x, a, policy.compute_adist(d['obs']), torch.as_tensor(d['adv']), args['max_kl'], args['damping'],
            np.random.RandomState(meta.get(f'{case}_seed', 0)), args['subsample_hvp_frac'], max_cg_iter=args['max_cg_iter'],
            grad_stop_tol=args['grad_stop_tol'], enable_backtracking=args['enable_bt'],
        )  # fmt: skip
        found = {'flat': policy.theta_P.numpy().copy(), 'obj1': -step.f, 'kl1': step.kl, 'gnorm': grad_P.abs().max(), 'bt': step.num_backtracks}
        if step.cg_solution_P is not None:
            found |= {'cg': step.cg_solution_P.numpy(), 'products': step.num_products}
        return found

    expected = {'flat': d[f'{case}_flat_after']} | {k: info[k] for k in ('obj1', 'kl1', 'gnorm', 'bt')}
    if f'{case}_cg_solution' in d.files:
        expected |= {'cg': d[f'{case}_cg_solution'], 'products': meta[f'{case}_num_hvp_in_cg']}
    check_beyond_rounding(compute, expected)


@files('c_policy_*.npz')
def test_trpo_on_raw_advantages(path):
    d, meta = read(path)
    args = meta['trpo_sub_args']

    def compute(noise_rng):
        policy = golden_policy(d, meta)
        set_vars(policy, d, meta, 'vars')
        perturb(policy, noise_rng)
        adist = policy.compute_adist(d['obs']).numpy()
        rng = np.random.RandomState(meta['trpofn_seed'])
        fields = rl.trpo_step(policy, d['obs'], d['actions'], adist, d['adv_raw'], args['max_kl'], args['damping'], rng)
        return {'flat': policy.theta_P.numpy().copy()} | {name: value for name, value, _ in fields}

    check_beyond_rounding(compute, {'flat': d['trpofn_flat_after']} | {name: value for name, value, *_ in meta['trpofn_fields']})


@files('d_valuefunc_*.npz')
def test_value_function_evaluations(path):
    d, meta = read(path)
    vf = golden_vf(meta)
    obs, t = d['obs'], d['time']
    check_vars(vf, d, 'init')
    close(vf.evaluate(obs[0], t[0]), d['init_evaluate'])
    set_vars(vf, d, meta, 'vars')
    close(vf.evaluate(obs[0], t[0]), d['vars_evaluate'])
    vf.update_obsnorm(obs[2])
    check_vars(vf, d, 'preupd')
    x = torch.cat([torch.as_tensor(d['std_obs']), torch.as_tensor(t[0])[:, None] * meta['time_scale']], dim=1)
    set_vars(vf, d, meta, 'full1')
    v, obj, grad_P = vf.objective_gradient(x, torch.as_tensor(d['std_target']))
    old = torch.as_tensor(d['old_val'])
    close(v, d['raw_val'])
    close(obj, d['obj'])
    close(((old - v) ** 2).mean(), d['kl'])
    close(grad_P, d['grad'])
    hvp = vf.kl_hvp(x, old)
    for vec, hv in zip(d['hvp_v'], d['hvp'], strict=True):
        close(hvp(torch.as_tensor(vec)), hv)


def golden_vf(meta):
    rng = np.random.RandomState(meta['init_seed'])
    return valuefuncs.ValueFunc(meta['obs_dim'], meta['hidden_spec'], meta['time_scale'], meta['max_kl'], meta['damping'], rng)


@files('d_valuefunc_*.npz')
@pytest.mark.parametrize('case, start, k', [('full0', 'preupd', 0), ('full1', 'full0', 1), ('sub', 'full1', 2)])
def test_value_function_fits(path, case, start, k):
    d, meta = read(path)

    def compute(noise_rng):
        vf = golden_vf(meta)
        set_vars(vf, d, meta, start)
        perturb(vf, noise_rng)
        rng = np.random.RandomState(meta['sub_seed'])
        fields = vf.fit(d['obs'][k], d['time'][k], d['y'][k], rng, 0.1 if case == 'sub' else None)
        found = {name: value for name, value, _ in fields} | {'evaluate': vf.evaluate(d['obs'][0], d['time'][0])}
        found |= {f'var{i:02d}': v.numpy().copy() for i, v in enumerate(vf.variables.values())}
        return found | {'cg_solution': vf.last_step.cg_solution_P.numpy()}

    names = [f'var{i:02d}' for i in range(len(meta['all_variables_in_order']))] + ['evaluate', 'cg_solution']
    expected = {n: d[f'{case}_{n}'] for n in names if f'{case}_{n}' in d.files}
    check_beyond_rounding(compute, expected | {name: value for name, value, *_ in meta[f'{case}_fields']})
    if case == 'sub':
        drawn = optim.subsample_rows(len(d['y'][k]), 0.1, np.random.RandomState(meta['sub_seed']))
        np.testing.assert_array_equal(drawn, d['sub_subsample_inds'])


# e, f: reward functions


@files('e_classifier_*.npz')
def test_transition_classifier(path):
    d, meta = read(path)
    for steps, tag in ((1, 's1'), (3, 's3')):
        clf = imitation.TransitionClassifier(
            ContinuousSpace(meta['obs_dim']), action_space(meta['kind'], meta['num_actions_or_action_dim']), meta['hidden_spec'],
            meta['favor_zero_expert_reward'], meta['include_time'], meta['time_scale'], meta['adam_lr'], steps, meta['ent_reg_weight'],
            np.random.RandomState(meta['init_seed']),
        )  # fmt: skip
        check_vars(clf, d, 'init')
        clf.theta_P.copy_(torch.as_tensor(d[f'{tag}_start_flat']))
        clf.update_inputnorm(d['exinit_obs'], d['exinit_a'])
        check_vars(clf, d, f'{tag}_start')
        probe = d['probe_obs'], d['probe_a'], d['probe_t']
        for k, expected in enumerate(meta[f'{tag}_fields']):
            batch = [d[f'fit{k}_{n}'] for n in ('obs', 'a', 't')]
            fields, r_B = clf.fit(*batch, *(d[f'fit{k}_{n}'] for n in ('exobs', 'exa', 'ext')))
            check_fields(fields, expected)
            check_vars(clf, d, f'{tag}_fit{k}', atol=1e-12)
            close(clf.compute_scores(*probe), d[f'{tag}_fit{k}_scores'], atol=1e-12)
            close(clf.compute_reward(*probe), d[f'{tag}_fit{k}_reward'], atol=1e-12)
            close(r_B, clf.compute_reward(*batch))
    for name, var in clf.variables.items():
        if '/out/' in name:
            var.mul_(400)
    close(clf.compute_scores(*probe), d['extreme_scores'], atol=1e-9)
    close(clf.compute_reward(*probe), d['extreme_reward'], atol=1e-9)


def linear_reward(d, meta, ex, rng):
    return imitation.LinearReward(
        ContinuousSpace(meta['obs_dim']), action_space(meta['kind'], meta['num_actions_or_action_dim']), meta['mode'],
        meta['favor_zero_expert_reward'], meta['include_time'], meta['time_scale'], *ex, rng, meta['quadratic_features'], meta['sqscale'],
    )  # fmt: skip


@files('f_linear_*.npz')
def test_linear_reward(path):
    d, meta = read(path)
    ex = d['ex_obs'], d['ex_a'], d['ex_t']
    batches = [tuple(d[f'b{k}_{n}'] for n in ('obs', 'a', 't')) for k in (0, 1)]
    reward = linear_reward(d, meta, ex, np.random.RandomState(meta['ctor_seed']))
    for n, value in (('count', reward.inputnorm.count), ('mean', reward.inputnorm.mean_1_D), ('meansq', reward.inputnorm.meansq_1_D)):
        close(value, d[f'ctor_inputnorm_{n}'])
    close(reward.w, d['ctor_w_or_idx'])
    close(reward.expert_mean_F, d['expert_featexp'])
    reward.update_inputnorm(*ex[:2])
    close(reward.inputnorm.stdev_1_D[0], d['inputnorm2_stdev'])
    close(reward.features(*batches[0]), d['b0_features'])
    expected_fields = dict(meta['fields'])
    for line in meta['sequence']:
        op, call = line.split(': ')
        batch = batches[int(call.split('batch ')[1][0])]
        if op.startswith('fit'):
            close(reward.features(*batch).mean(axis=0), d[f'{op}_featexp'])
            fields, _ = reward.fit(*batch)
            check_fields(fields, expected_fields[op])
            close(reward.w, d[f'{op}_w_or_idx'])
        else:
            close(reward.compute_reward(*batch), d[f'{op}_reward'])
            close(reward.reward_bound, d[f'{op}_reward_bound'])


# g, h, i, j: cloning steps, data, optimisation, hashes


@files('g_bclone_*.npz')
def test_cloning_adam_steps(path):
    d, meta = read(path)
    space = action_space(meta['kind'], action_dim(meta))
    cls = policies.GibbsPolicy if meta['kind'] == 'gibbs' else policies.GaussianPolicy
    policy = cls(ContinuousSpace(d['obs_batches'].shape[2]), space, meta['hidden_spec'])
    set_vars(policy, d, meta, 'vars')
    adam = optim.Adam(policy.theta_P, meta['lr'], meta['beta1'], meta['beta2'], meta['eps'])

    def loss_gradient(k):
        x, a = policy.normalized_obs(d['obs_batches'][k]), policy.action_tensor(d['action_batches'][k])
        logp, grad_P = policy.logprob_gradient(x, a, lambda logp, rows: torch.full_like(logp, -1 / len(x)))
        return -logp.mean(), grad_P

    for k in range(len(d['losses'])):
        loss, grad_P = loss_gradient(k)
        adam.step(grad_P)
        close(loss, d['losses'][k])
        close(policy.theta_P, d['flat_after'][k], atol=1e-12)


def action_dim(meta):
    """Outputs of the net, from the shape of its last bias."""
    return meta['all_variables_in_order'][-1]['shape'][1]


@files('h_load_dataset*.npz')
def test_expert_subsampling(path, tmp_path):
    d, meta = read(path)
    trajs = trajectories.load_trajs(path.with_name(path.name.replace('h_load_dataset', 'h_dataset_in')).with_suffix('.h5'))
    for case, options in meta.items():
        limit = options['limit_trajs']
        kept = TrajBatch.from_trajs([trajs[i] for i in range(min(limit or len(trajs), len(trajs)))])
        obs, a, t, start = trajectories.subsample(kept, options['data_subsamp_freq'])
        np.testing.assert_array_equal(start, d[f'{case}_start_times'])
        np.testing.assert_array_equal(obs, d[f'{case}_obs'])
        np.testing.assert_array_equal(a, d[f'{case}_a'])
        np.testing.assert_array_equal(t, d[f'{case}_t'])


@files('i_optim*.npz')
def test_line_search_natural_gradient_and_subsample(path):
    d, _ = read(path)
    A, H, b, x0 = (torch.as_tensor(d[k]) for k in ('A', 'H', 'b', 'x0'))
    f = lambda x: float(x @ A @ x / 2 + b @ x)  # noqa: E731
    kl = lambda x: float((x - x0) @ H @ (x - x0) / 2)  # noqa: E731
    g0 = A @ x0 + b
    close(f(x0), d['f0'])
    close(g0, d['g0'])
    for k in range(sum(name.endswith('_accept_ratio') for name in d.files)):
        dx = torch.as_tensor(d[f'bt{k}_dx'])
        x, rejected = optim.backtracking_line_search(
            f, x0, f(x0), float(g0 @ dx), dx, float(d[f'bt{k}_accept_ratio']), float(d[f'bt{k}_shrink']), int(d[f'bt{k}_max_steps'])
        )
        assert rejected == d[f'bt{k}_num_steps']
        close(x, d[f'bt{k}_x'])
    for case in sorted({name.split('_')[0] for name in d.files if name.startswith('ng')}):
        scale = float(d[f'{case}_hvp_scale']) if f'{case}_hvp_scale' in d.files else 1.0
        step = optim.natural_gradient_step(
            x0, f(x0), g0, lambda x: (f(x), kl(x)), lambda scale=scale: lambda v: scale * (H @ v), float(d[f'{case}_max_kl']),
            float(d[f'{case}_damping']), int(d[f'{case}_max_cg_iter']),
            enable_backtracking=bool(d[f'{case}_enable_bt']) if f'{case}_enable_bt' in d.files else True,
        )  # fmt: skip
        close(step.x_P, d[f'{case}_x'])
        assert step.num_backtracks == d[f'{case}_num_bt']
        close(step.cg_solution_P, d[f'{case}_cg_solution'])
        if f'{case}_f' in d.files:
            close(step.f, d[f'{case}_f'])
            close(step.kl, d[f'{case}_kl'])
            assert step.num_products == d[f'{case}_num_hvp_in_cg']
    hv = optim.finite_difference_hvp(d['numdiff_v'], lambda x: d['A'] @ x + d['b'], d['x0'])
    close(hv, d['numdiff_hvp'], rtol=1e-7)
    drawn = optim.subsample_rows(int(d['subsample_len']), float(d['subsample_frac']), np.random.RandomState(int(d['subsample_seed'])))
    np.testing.assert_array_equal(drawn, d['subsample_inds'])


@pytest.mark.parametrize('path', sorted(GOLDEN.glob('j_hash*.json')), ids=lambda p: p.stem)
def test_hash_of_2016_depends_on_the_number_of_variables_only(path):
    for num, digest in json.loads(path.read_text())['num_variables_to_hash'].items():
        assert snapshots.legacy_hash(int(num)) == digest


# k, l: whole steps, log schema


class ReplayedOptimizer(imitation.ImitationOptimizer):
    """The product's own step on the golden batches: only where trajectories come from is replaced."""

    def sample(self):
        return self.batches[self.iteration]


@files('k_imitation_step_*.npz')
@pytest.mark.parametrize('s', [0, 1])
def test_imitation_steps(path, s):
    """Each of the two full steps from its golden state before: log fields, all variables, both CG solutions."""
    d, meta = read(path)
    kind, spec = 'disc' if meta['discrete'] else 'cont', meta['hidden_spec_all_nets']
    obs_space = ContinuousSpace(d['ex_obs'].shape[1])
    num_adist = d['batch0_adist'].shape[1]
    space = action_space(kind, num_adist if kind == 'disc' else num_adist // 2)
    ex = d['ex_obs'], d['ex_a'], d['ex_t']
    fz, it, ts = meta['favor_zero_expert_reward'], meta['reward_include_time'], meta['time_scale']
    is_nn = meta['reward_type'] == 'nn'
    before = 'before0' if s == 0 else 'after0'

    def compute(noise_rng):
        policy = policies.make_policy(obs_space, space, spec, meta['obsnorm_mode'] != 'none')
        vf = valuefuncs.ValueFunc(obs_space.dim, spec, ts, meta['vf_max_kl'], meta['vf_cg_damping'])
        set_vars(policy, d, meta['policy'], f'{before}_policy')
        set_vars(vf, d, meta['value_function'], f'{before}_vf')
        perturb(policy, noise_rng)
        perturb(vf, noise_rng)
        if is_nn:
            reward = imitation.TransitionClassifier(
                obs_space, space, spec, fz, it, ts, meta['reward_lr'], meta['reward_steps'], meta['reward_ent_reg_weight']
            )
            set_vars(reward, d, meta['reward'], 'before0_reward')
        else:
            reward = imitation.LinearReward(obs_space, space, meta['reward_type'], fz, it, ts, *ex, np.random.RandomState(0))
            close(reward.expert_mean_F, d['before0_reward_expert_featexp'])
            reward.update_inputnorm(*ex[:2])
            bound, w = d['before0_reward_bound'], d['before0_reward_w_or_idx']
            reward.load_state({'/w': w, '/reward_bound': bound, '/expert_mean_F': reward.expert_mean_F})
        opt = ReplayedOptimizer(
            None, policy, vf, reward, ex, None, meta['discount'], meta['lam'], meta['policy_max_kl'], meta['policy_cg_damping'],
            meta['policy_ent_reg'], 0, None, meta['obsnorm_mode'],
        )  # fmt: skip
        opt.batches = [
            TrajBatch(*(d[f'batch{k}_{n}'] for n in ('obs', 'adist', 'a', 'r', 'lengths')), d[f'batch{k}_time']) for k in (0, 1)
        ]
        if s == 1:
            replay_first_step(opt, meta, d)
        opt.rng = np.random.RandomState(meta['step_seeds'][s])
        fields = opt.step()
        ours = [f for f in fields if f[0] not in ('tsamp', 'tadv', 'tstep', 'ttotal')]
        assert [[n, k.__name__] for n, _, k in fields] == meta['all_field_names_in_order']
        found = {f'field {n}': v for n, v, _ in ours if v is not None} | {'cg vf': vf.last_step.cg_solution_P.numpy()}
        models = {'policy': policy, 'vf': vf} | ({'reward': reward} if is_nn else {})
        for m, model in models.items():
            found |= {f'{m}_var{i:02d}': v.numpy().copy() for i, v in enumerate(model.variables.values())}
        if not is_nn:
            found |= {'reward_w_or_idx': reward.w, 'reward_bound': reward.reward_bound, 'reward_inputnorm_mean': reward.inputnorm.mean_1_D}
        return found

    after = f'after{s}_'
    expected = {k[len(after) :]: d[k] for k in d.files if k.startswith(after) and ('_var' in k or k.endswith(('idx', 'bound', 'norm_mean')))}
    expected |= {f'field {e[0]}': e[1] for e in meta['fields'][s] if e[1] is not None}
    check_beyond_rounding(compute, expected | {'cg vf': d[f'step{s}_vf_cg_solution']})


def replay_first_step(opt, meta, d):
    """Take step 0 for the counters and the Adam state, then put policy and value function back on the golden state after it."""
    keep = [(m, m.export()) for m in (opt.policy, opt.vf)]
    opt.rng = np.random.RandomState(meta['step_seeds'][0])
    set_vars(opt.policy, d, meta['policy'], 'before0_policy')
    set_vars(opt.vf, d, meta['value_function'], 'before0_vf')
    opt.step()
    for model, arrays in keep:
        model.load(arrays, 'golden')


@files('k_bclone_steps_*.npz')
def test_cloning_optimizer(path):
    d, meta = read(path)
    space = action_space(meta['kind'], action_dim(meta))
    policy = policies.make_policy(ContinuousSpace(d['ex_obs'].shape[1]), space, meta['hidden_spec'])
    set_vars(policy, d, meta, 'before')
    opt = imitation.BehavioralCloningOptimizer(
        policy, d['ex_obs'], d['ex_a'], np.random.RandomState(meta['optimizer_constructor_seed']), meta['lr'], meta['batch_size'],
        meta['eval_freq'], meta['train_frac'],
    )  # fmt: skip
    np.testing.assert_array_equal(d['ex_obs'][opt.train_rows], d['train_obs'])
    np.testing.assert_array_equal(d['ex_a'][opt.val_rows], d['val_a'])
    opt.rng = np.random.RandomState(meta['steps_seed'])
    for k, expected in enumerate(meta['fields']):
        check_fields(opt.step(), expected)
        close(policy.theta_P, d['flat_after'][k], atol=1e-12)


@pytest.mark.parametrize('path', sorted(GOLDEN.glob('l_log_schema*.json')), ids=lambda p: p.stem)
@pytest.mark.parametrize('run', ['bclone_cartpole', 'ga_cartpole'])
def test_log_tables_have_the_columns_of_2016(path, run, tmp_path):
    schema = json.loads(path.read_text())[run]
    log = snapshots.TrainingLog(str(tmp_path / 'log.h5'), {'args': '{}'})
    kinds = {'int32': int, 'float32': float}
    log.append([(name, 0, kinds[kind]) for name, kind in schema['columns']])
    log.finish({})
    with tables.open_file(log.path) as h5:
        assert [[n, str(h5.root.log.dtype[n])] for n in h5.root.log.colnames] == schema['columns']
