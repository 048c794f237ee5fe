"""Parity with the 2016 code, in numbers that its own functions produced.

Every file of a known kind in the folder named by GOLDEN_DIR (default tests/golden) is taken, so further vectors can be dropped in.
rtol is 1e-8 unless a comment says why not.
"""

import numpy as np
import pytest
import torch
from golden_tools import action_space, check_beyond_rounding, check_vars, close, files, perturb, read, set_vars

from policyopt import optim, policies, rl, valuefuncs
from policyopt.options import ImitationOptions
from policyopt.sampling import actors
from policyopt.standardizer import Standardizer
from policyopt.torchutil import NetConfig
from policyopt.trajectories import ContinuousSpace, FiniteSpace, RaggedArray

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
    gibbs, gauss = (policies.make_policy(ContinuousSpace(1), space, '[]') for space in (FiniteSpace(2), ContinuousSpace(1)))
    close(gibbs.entropy(t(d['cat_probs']).log()), d['cat_entropy'])
    close(gibbs.entropy(t(d['cat_probs_zero']).log()), d['cat_entropy_zero'])
    close(gauss.entropy(t(d['gauss_stdevs']).repeat(1, 2)), d['gauss_entropy'])
    close(gauss.kl(*(torch.cat([t(d[f'gkl_mean{k}']), t(d[f'gkl_sd{k}'])], dim=1) for k in (1, 2))), d['gkl'])
    rng = np.random.RandomState(int(d['sample_cats_seed']))
    for drawn in d['sample_cats_out']:
        np.testing.assert_array_equal(actors.sample_categorical(d['sample_cats_probs'], rng.rand(len(drawn))), drawn)
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
    return cls(ContinuousSpace(obs_dim), space, meta['hidden_spec'], enable_obsnorm=meta.get('enable_obsnorm', True), nets=NetConfig(rng))


def products(loss, theta_P):
    """v ↦ H v at any point; learning stays at the minimum of the KL, where Curvature holds."""
    return lambda v_P: torch.func.jvp(torch.func.grad(loss), (theta_P,), (v_P,))[1]


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
    frozen = policy.actor()
    close(frozen.adist(d['obs']), d['actiondist'])
    rng = np.random.RandomState(int(d['sample_seed']))
    noise = rng.rand(len(x), 1) if frozen.finite else rng.randn(*d['actions'].shape)
    close(frozen.act(d['actiondist'], noise), d['sampled_actions'])
    close(frozen.act(d['actiondist']), d['deterministic_actions'])
    adv = torch.as_tensor(d['adv'])
    for tag, old in (('on', adist), ('off', torch.as_tensor(d['off_proposal_actiondist']))):
        obj, grad_P, _ = rl.surrogate_gradient(policy, x, a, old, adv)
        close(obj, d[f'{tag}_obj'], atol=1e-12)
        close(policy.kl(old, adist).mean(), d[f'{tag}_kl'])
        close(grad_P, d[f'{tag}_grad'])

        def kl_from(theta_P, old=old):
            out_B_K = policy.net.functional(theta_P[policy.num_own :], x)
            return policy.kl(old, policy._adist_with(out_B_K, theta_P[: policy.num_own])).mean()

        hvp = policy.kl_hvp(x) if tag == 'on' else products(kl_from, policy.theta_P)
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
        step = rl.trpo_step(
            policy, d['obs'], d['actions'], policy.compute_adist(d['obs']), d['adv'], max_kl=args['max_kl'], damping=args['damping'],
            rng=np.random.RandomState(meta.get(f'{case}_seed', 0)), hvp_frac=args['subsample_hvp_frac'], max_cg_iter=args['max_cg_iter'],
            grad_stop_tol=args['grad_stop_tol'], enable_backtracking=args['enable_bt'],
        )  # fmt: skip
        found = {
            'flat': policy.theta_P.numpy().copy(),
            'obj1': -step.f,
            'kl1': step.kl,
            'gnorm': step.gnorm,
            'bt': step.num_backtracks,
        }
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
        rng, adv = np.random.RandomState(meta['trpofn_seed']), rl.standardized(d['adv_raw'])
        step = rl.trpo_step(policy, d['obs'], d['actions'], adist, adv, max_kl=args['max_kl'], damping=args['damping'], rng=rng)
        return {'flat': policy.theta_P.numpy().copy()} | {name: value for name, value, _ in step.fields()}

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
    hvp = products(lambda theta_P: ((old - vf.net.functional(theta_P, x)[:, 0]) ** 2).mean(), vf.theta_P)
    for vec, hv in zip(d['hvp_v'], d['hvp'], strict=True):
        close(hvp(torch.as_tensor(vec)), hv)


def golden_vf(meta):
    rng = np.random.RandomState(meta['init_seed'])
    spec = meta['hidden_spec']
    options = ImitationOptions(policy_hidden_spec=spec, vf_max_kl=meta['max_kl'], vf_cg_damping=meta['damping'])
    return valuefuncs.ValueFunc(options, meta['obs_dim'], meta['time_scale'], NetConfig(rng))


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


# i: optimisation


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
        x = x0.clone()
        step = optim.natural_gradient_step(
            x, f(x0), g0, lambda x=x: (f(x), kl(x)), lambda scale=scale: lambda v: scale * (H @ v), float(d[f'{case}_max_kl']),
            float(d[f'{case}_damping']), int(d[f'{case}_max_cg_iter']),
            enable_backtracking=bool(d[f'{case}_enable_bt']) if f'{case}_enable_bt' in d.files else True,
        )  # fmt: skip
        close(x, d[f'{case}_x'])
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
