"""Parity of imitation with the 2016 code: rewards, cloning, expert data, whole steps, hashes and log tables (see golden_tools.py)."""

import json

import numpy as np
import pytest
import tables
import torch
from golden_tools import (
    action_dim,
    action_space,
    check_beyond_rounding,
    check_fields,
    check_vars,
    close,
    files,
    perturb,
    read,
    set_vars,
)  # fmt: skip

from policyopt import cloning, imitation, optim, policies, rewards, trajectories, valuefuncs
from policyopt.files import training_log
from policyopt.files.trajectory_file import load_trajs
from policyopt.options import ImitationOptions
from policyopt.sampling.mdp import RecordedTask
from policyopt.torchutil import NetConfig
from policyopt.trajectories import Batch, ContinuousSpace, Expert, TrajBatch

# e, f: reward functions


@files('e_classifier_*.npz')
def test_transition_classifier(path):
    d, meta = read(path)
    for steps, tag in ((1, 's1'), (3, 's3')):
        clf = rewards.TransitionClassifier(
            ImitationOptions(
                policy_hidden_spec=meta['hidden_spec'],
                favor_zero_expert_reward=int(meta['favor_zero_expert_reward']),
                reward_include_time=int(meta['include_time']),
                reward_lr=meta['adam_lr'],
                reward_steps=steps,
                reward_ent_reg_weight=meta['ent_reg_weight'],
            ),
            ContinuousSpace(meta['obs_dim']),
            action_space(meta['kind'], meta['num_actions_or_action_dim']),
            meta['time_scale'],
            NetConfig(np.random.RandomState(meta['init_seed'])),
        )
        check_vars(clf, d, 'init')
        clf.theta_P.copy_(torch.as_tensor(d[f'{tag}_start_flat']))
        clf.update_inputnorm(d['exinit_obs'], d['exinit_a'])
        check_vars(clf, d, f'{tag}_start')
        probe = Batch(d['probe_obs'], d['probe_a'], d['probe_t'])
        for k, expected in enumerate(meta[f'{tag}_fields']):
            batch = Batch(*(d[f'fit{k}_{n}'] for n in ('obs', 'a', 't')))
            fields, r_B = clf.fit(batch, Batch(*(d[f'fit{k}_{n}'] for n in ('exobs', 'exa', 'ext'))))
            check_fields(fields, expected)
            check_vars(clf, d, f'{tag}_fit{k}', atol=1e-12)
            close(clf.compute_scores(probe), d[f'{tag}_fit{k}_scores'], atol=1e-12)
            close(clf.compute_reward(probe), d[f'{tag}_fit{k}_reward'], atol=1e-12)
            close(r_B, clf.compute_reward(batch))
    for name, var in clf.variables.items():
        if '/out/' in name:
            var.mul_(400)
    close(clf.compute_scores(probe), d['extreme_scores'], atol=1e-9)
    close(clf.compute_reward(probe), d['extreme_reward'], atol=1e-9)


def linear_reward(d, meta, ex, rng):
    return rewards.LinearReward(
        ImitationOptions(
            reward_type=meta['mode'],
            favor_zero_expert_reward=int(meta['favor_zero_expert_reward']),
            reward_include_time=int(meta['include_time']),
        ),
        ContinuousSpace(meta['obs_dim']),
        action_space(meta['kind'], meta['num_actions_or_action_dim']),
        meta['time_scale'],
        Expert(*ex),
        rng,
        quadratic_features=meta['quadratic_features'],
        sqscale=meta['sqscale'],
    )


@files('f_linear_*.npz')
def test_linear_reward(path):
    d, meta = read(path)
    ex = d['ex_obs'], d['ex_a'], d['ex_t']
    batches = [Batch(*(d[f'b{k}_{n}'] for n in ('obs', 'a', 't'))) for k in (0, 1)]
    reward = linear_reward(d, meta, ex, np.random.RandomState(meta['ctor_seed']))
    for n, value in (('count', reward.inputnorm.count), ('mean', reward.inputnorm.mean_1_D), ('meansq', reward.inputnorm.meansq_1_D)):
        close(value, d[f'ctor_inputnorm_{n}'])
    close(reward.w, d['ctor_w_or_idx'])
    close(reward.expert_mean_F, d['expert_featexp'])
    reward.update_inputnorm(*ex[:2])
    close(reward.inputnorm.stdev_1_D[0], d['inputnorm2_stdev'])
    close(reward.features(batches[0]), d['b0_features'])
    expected_fields = dict(meta['fields'])
    for line in meta['sequence']:
        op, call = line.split(': ')
        batch = batches[int(call.split('batch ')[1][0])]
        if op.startswith('fit'):
            close(reward.features(batch).mean(axis=0), d[f'{op}_featexp'])
            fields, _ = reward.fit(batch)
            check_fields(fields, expected_fields[op])
            close(reward.w, d[f'{op}_w_or_idx'])
        else:
            close(reward.compute_reward(batch), d[f'{op}_reward'])
            close(reward.reward_bound, d[f'{op}_reward_bound'])


# g, h, j: cloning steps, data, hashes


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


@files('h_load_dataset*.npz')
def test_expert_subsampling(path, tmp_path):
    d, meta = read(path)
    trajs = load_trajs(path.with_name(path.name.replace('h_load_dataset', 'h_dataset_in')).with_suffix('.h5'))
    for case, options in meta.items():
        limit = options['limit_trajs']
        kept = TrajBatch.from_trajs([trajs[i] for i in range(min(limit or len(trajs), len(trajs)))])
        rows, start = trajectories.subsampled_rows(kept, options['data_subsamp_freq'])
        obs, a, t = (x.stacked[rows] for x in (kept.obs, kept.a, kept.time))
        np.testing.assert_array_equal(start, d[f'{case}_start_times'])
        np.testing.assert_array_equal(obs, d[f'{case}_obs'])
        np.testing.assert_array_equal(a, d[f'{case}_a'])
        np.testing.assert_array_equal(t, d[f'{case}_t'])


@files('j_hash*.json')
def test_hash_of_2016_depends_on_the_number_of_variables_only(path):
    for num, digest in json.loads(path.read_text())['num_variables_to_hash'].items():
        assert training_log.legacy_hash(int(num)) == digest


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
    ts, is_nn = meta['time_scale'], meta['reward_type'] == 'nn'
    names = ['reward_type', 'discount', 'lam', 'policy_max_kl', 'policy_cg_damping', 'policy_ent_reg', 'obsnorm_mode']
    names += ['vf_max_kl', 'vf_cg_damping', *(['reward_lr', 'reward_steps', 'reward_ent_reg_weight'] if is_nn else [])]
    signs = {name: int(meta[name]) for name in ('favor_zero_expert_reward', 'reward_include_time')}
    options = ImitationOptions(policy_hidden_spec=spec, **{name: meta[name] for name in names}, **signs)
    before = 'before0' if s == 0 else 'after0'

    def compute(noise_rng):
        policy = policies.make_policy(obs_space, space, spec, meta['obsnorm_mode'] != 'none')
        vf = valuefuncs.ValueFunc(options, obs_space.dim, ts)
        set_vars(policy, d, meta['policy'], f'{before}_policy')
        set_vars(vf, d, meta['value_function'], f'{before}_vf')
        perturb(policy, noise_rng)
        perturb(vf, noise_rng)
        if is_nn:
            reward = rewards.TransitionClassifier(options, obs_space, space, ts)
            set_vars(reward, d, meta['reward'], 'before0_reward')
        else:
            reward = rewards.LinearReward(options, obs_space, space, ts, Expert(*ex), np.random.RandomState(0))
            close(reward.expert_mean_F, d['before0_reward_expert_featexp'])
            reward.update_inputnorm(*ex[:2])
            bound, w = d['before0_reward_bound'], d['before0_reward_w_or_idx']
            reward.load_state({'/w': w, '/reward_bound': bound, '/expert_mean_F': reward.expert_mean_F})
        mdp = RecordedTask(TrajBatch(ex[0], np.zeros((len(ex[0]), 0)), ex[1], np.zeros(len(ex[0])), [len(ex[0])]))
        opt = ReplayedOptimizer(options, mdp, policy, vf, reward, Expert(*ex), None)
        opt.batches = [TrajBatch(*(d[f'batch{k}_{n}'] for n in ('obs', 'adist', 'a', 'r', 'lengths')), d[f'batch{k}_time']) for k in (0, 1)]
        if s == 1:
            replay_first_step(opt, meta, d)
        opt.rng = np.random.RandomState(meta['step_seeds'][s])
        fields = opt.step()
        ours = [f for f in fields if f[0] not in ('tsamp', 'tadv', 'tstep', 'ttotal')]
        new = [] if is_nn else [['reward_bound', 'float']]
        assert [[n, k.__name__] for n, _, k in fields] == meta['all_field_names_in_order'] + new
        found = {f'field {n}': v for n, v, _ in ours if v is not None} | {'cg vf': vf.last_step.cg_solution_P.numpy()}
        models = {'policy': policy, 'vf': vf} | ({'reward': reward} if is_nn else {})
        for m, model in models.items():
            found |= {f'{m}_var{i:02d}': v.numpy().copy() for i, v in enumerate(model.variables.values())}
        if not is_nn:
            found |= {'reward_w_or_idx': reward.w, 'reward_bound': reward.reward_bound, 'reward_inputnorm_mean': reward.inputnorm.mean_1_D}
        return found

    after = f'after{s}_'
    expected = {
        k[len(after) :]: d[k] for k in d.files if k.startswith(after) and ('_var' in k or k.endswith(('idx', 'bound', 'norm_mean')))
    }
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
    options = ImitationOptions(**{f'bclone_{name}': meta[name] for name in ('lr', 'batch_size', 'eval_freq', 'train_frac')})
    expert = Expert(d['ex_obs'], d['ex_a'], np.zeros(len(d['ex_a'])))
    rng = np.random.RandomState(meta['optimizer_constructor_seed'])
    opt = cloning.BehavioralCloningOptimizer(options, None, policy, expert, NetConfig(rng))
    np.testing.assert_array_equal(d['ex_obs'][opt.train_rows], d['train_obs'])
    np.testing.assert_array_equal(d['ex_a'][opt.val_rows], d['val_a'])
    opt.rng = np.random.RandomState(meta['steps_seed'])
    for k, expected in enumerate(meta['fields']):
        check_fields(opt.step(), expected)
        close(policy.theta_P, d['flat_after'][k], atol=1e-12)


@files('l_log_schema*.json')
@pytest.mark.parametrize('run', ['bclone_cartpole', 'ga_cartpole'])
def test_log_tables_have_the_columns_of_2016(path, run, tmp_path):
    schema = json.loads(path.read_text())[run]
    log = training_log.TrainingLog(str(tmp_path / 'log.h5'), {'args': '{}'})
    kinds = {'int32': int, 'float32': float}
    log.append([(name, 0, kinds[kind]) for name, kind in schema['columns']])
    log.finish({})
    with tables.open_file(log.path) as h5:
        assert [[n, str(h5.root.log.dtype[n])] for n in h5.root.log.colnames] == schema['columns']
