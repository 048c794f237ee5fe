"""The table of algorithms, and what docs/extending.md promises: a reward that is added by one class and one row really trains."""

import pickle
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPO, script_env
from training_tools import RUNS, command, differences, run

import policyopt as po
from policyopt import algorithms
from policyopt.files.training_log import read_log, read_snapshot, snapshot_names
from policyopt.files.trajectory_file import save_trajs
from policyopt.policies import POLICY_CLASSES, GaussianPolicy, GibbsPolicy, Policy, make_policy
from policyopt.rl import trpo_step
from policyopt.trajectories import ContinuousSpace, TrajBatch

PAGE = (REPO / 'docs' / 'extending.md').read_text(encoding='utf-8')


def block(name):
    """The code of the page that begins with the comment `# name`."""
    return re.search(rf'```python\n(# {name}.*?)```', PAGE, re.S)[1]


# the trainer as it is, in a process that has read the module of docs/extending.md before anything else
TRAIN = """
import my_reward, sys
from policyopt import commands
sys.exit(commands.run('imitate_mj', sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the module of docs/extending.md, a trainer that knows it, and expert data that could be CartPole's."""
    (tmp_path / 'my_reward.py').write_text(block('my_reward.py'))
    (tmp_path / 'train.py').write_text(TRAIN)
    rng = np.random.RandomState(0)
    trajs = TrajBatch(rng.randn(120, 4) * 0.1, rng.rand(120, 2), rng.randint(2, size=(120, 1)), np.ones(120), [40, 40, 40])
    save_trajs(str(tmp_path / 'trajs.h5'), trajs, {'env_name': 'CartPole-v0'})
    return tmp_path


def logit_run(folder, word='logit'):
    return [str(folder / 'train.py'), *RUNS['ga'][1:], '--reward_type', word]


def test_a_reward_of_one_class_and_one_row_trains_and_continues_bit_for_bit(folder):
    run(logit_run(folder), folder, '--log', 'logit.h5', fresh=True)
    log = read_log(folder / 'logit.h5')
    assert len(log) == 31 and 'racc' in log.dtype.names and snapshot_names(folder / 'logit.h5')[-1] == 'iter0000030'
    assert log['avgunregr'].min() < 0, 'a classifier of ours pays nothing below zero: this was not the new class'
    with subprocess.Popen(command(logit_run(folder), '--log', 'again.h5'), cwd=folder, env=script_env(), stdout=subprocess.PIPE) as process:
        next(line for line in process.stdout if line.split()[:1] == [b'5'])
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 75
    run(logit_run(folder), folder, '--log', 'again.h5', '--resume', fresh=True)
    assert differences(folder / 'logit.h5', folder / 'again.h5') == []


def test_the_row_is_all_that_pipeline_and_pictures_need(folder):
    code = (
        'import my_reward\nfrom policyopt import algorithms\nfrom policyopt.pipeline.spec import load_spec\n'
        'from policyopt.reporting.figures import styles_of\n'
        f'spec = load_spec({str(REPO / "pipelines" / "classic.yaml")!r}, ["training.algorithms.ga.name=logit2"])\n'
        'print(spec.algorithm("logit2").eval, styles_of(["logit"])["logit"]["color"], algorithms.label_of("logit"))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, env=script_env(), capture_output=True, text=True, timeout=60)
    assert done.stdout == 'last #000000 logit of the discriminator\n', done.stderr


def test_a_reward_without_a_row_is_refused_with_those_that_have_one(folder):
    err = run(logit_run(folder, 'logits'), folder, rc=2, fresh=True).stderr
    assert "'logits'" in err and all(f"'{word}'" in err for word in ('nn', 'l2ball', 'simplex', 'logit'))


@pytest.mark.parametrize(('name', 'row'), [('ga', 'ga'), ('ga_entreg-3', 'ga'), ('simplex2', 'simplex'), ('bclone', 'bclone'), ('g', None)])
def test_names_begin_with_that_of_their_row(name, row):
    assert algorithms.find(name) == (algorithms.ALGORITHMS[row] if row else None)


def test_an_algorithm_is_found_by_the_first_word_of_its_name():
    rows = algorithms.ALGORITHMS
    assert all(algorithms.find(name) is rows['ga'] for name in ('ga', 'ga_entreg-3', 'ga+0.1', 'ga2'))
    assert algorithms.find('gail_wide') is rows['gail'] and algorithms.find('garden') is None and algorithms.find('') is None


def test_every_row_can_be_built_and_looks_like_no_other():
    rows = algorithms.ALGORITHMS.values()
    assert all(row.mode in algorithms.MODES and row.rule in algorithms.RULES for row in rows)
    methods = ('from_options', 'compute_reward', 'fit', 'update_inputnorm', 'export', 'load', 'state', 'load_state')
    assert all(callable(getattr(algorithms.load(name), m)) for name in algorithms.rewards().values() for m in methods)
    assert all(callable(algorithms.load(mode.optimizer)) for mode in algorithms.MODES.values())
    for look in ('label', 'colour', 'line', 'marker'):
        assert len({getattr(row, look) for row in rows}) == len(rows)


# ---- a policy distribution


def copied(cls):
    """A policy class with the functions of another, and with the default derivatives and actor."""
    names = ('adist', 'logprob', 'kl', 'entropy', 'action', 'own_shapes', '_split', 'actions')
    return type(f'Plain{cls.__name__}', (Policy,), {name: vars(cls)[name] for name in names if name in vars(cls)})


PlainGaussianPolicy, PlainGibbsPolicy = copied(GaussianPolicy), copied(GibbsPolicy)


@pytest.mark.parametrize(('cls', 'plain_cls'), [(GaussianPolicy, PlainGaussianPolicy), (GibbsPolicy, PlainGibbsPolicy)])
def test_default_derivatives_equal_those_that_are_written_out(cls, plain_cls):
    rng, space = np.random.RandomState(0), cls.actions(3)
    ours, plain = (make_policy(ContinuousSpace(4), space, '[{"type":"fc","n":8},{"type":"nonlin","func":"tanh"}]', policy_class=c)
                   for c in (cls, plain_cls))  # fmt: skip
    for policy in (ours, plain):
        policy.theta_P.copy_(torch.as_tensor(np.random.RandomState(1).randn(len(policy.theta_P)) * 0.3))
    obs, a = rng.randn(600, 4), rng.randint(3, size=(600, 1)) if cls is GibbsPolicy else rng.randn(600, 3)
    v_P, weight = torch.as_tensor(rng.randn(len(ours.theta_P))), torch.as_tensor(rng.randn(600))

    def derivatives(policy):
        x = policy.normalized_obs(obs)
        gradient = policy.logprob_gradient(x, policy.action_tensor(a), lambda logp, rows: weight[rows])[1]
        return gradient.numpy(), policy.kl_hvp(x)(v_P).numpy()

    for found, expected in zip(derivatives(plain), derivatives(ours), strict=True):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    steps = [trpo_step(p, obs, a, p.compute_adist(obs).numpy(), obs[:, 0], max_kl=0.01, damping=0.1, rng=np.random.RandomState(0))
             for p in (ours, plain)]  # fmt: skip
    assert steps[0].kl > 1e-3
    np.testing.assert_allclose(plain.theta_P.numpy(), ours.theta_P.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(('cls', 'plain_cls'), [(GaussianPolicy, PlainGaussianPolicy), (GibbsPolicy, PlainGibbsPolicy)])
def test_the_default_actor_draws_from_the_distribution_and_survives_pickling(cls, plain_cls):
    ours, plain = (make_policy(ContinuousSpace(4), cls.actions(3), '[]', policy_class=c) for c in (cls, plain_cls))
    for policy in (ours, plain):
        policy.theta_P.copy_(torch.as_tensor(np.random.RandomState(1).randn(len(policy.theta_P)) * 0.3))
    obs, fast, slow = np.tile([[0.1, 0.2, -0.3, 0.4]], (40_000, 1)), ours.actor(), pickle.loads(pickle.dumps(plain.actor()))
    np.testing.assert_allclose(slow.adist(obs[:5]), fast.adist(obs[:5]), rtol=1e-12)
    np.testing.assert_array_equal(slow.act(slow.outputs(obs[:5])), fast.act(fast.outputs(obs[:5])))
    drawn = [a.act(a.outputs(obs), a.noise(np.random.default_rng(0), len(obs))) for a in (slow, fast)]
    if cls is GibbsPolicy:
        assert drawn[0].dtype == np.int64
        np.testing.assert_array_equal(*drawn)
    else:
        np.testing.assert_allclose(*(a.mean(0) for a in drawn), atol=0.03)
        np.testing.assert_allclose(*(a.std(0) for a in drawn), atol=0.03)


def test_a_class_that_would_inherit_derivatives_of_another_distribution_is_rejected():
    with pytest.raises(TypeError, match='Squashed: derive it from Policy'):
        type('Squashed', (GaussianPolicy,), {})


@pytest.fixture(scope='module')
def beta_folder(tmp_path_factory):
    """A folder with the Beta policy of the page, after its learn.py has run there."""
    path = tmp_path_factory.mktemp('beta')
    for name in ('beta_policy.py', 'learn.py', 'train.py'):
        (path / name).write_text(block(name))
    done = in_folder(path, 'learn.py')
    name, mean = done.stdout.split()
    assert name == 'BetaPolicy' and float(mean) > 85, 'the car does not reach its goal as the demonstrations do'
    return path


def in_folder(folder, *args, rc=0):
    done = subprocess.run([sys.executable, *map(str, args)], cwd=folder, env=script_env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == rc, done.stderr
    return done


def test_a_beta_policy_clones_learns_by_gail_and_is_read_from_its_file(beta_folder):
    log = read_log(beta_folder / 'beta.h5')
    assert log['kl'][-1] > 1e-4 and np.isfinite(log['ent']).all()
    variables = read_snapshot(f'{beta_folder}/beta.h5/snapshots/last').variables
    assert {name.split('/')[1] for name in variables} == {'BetaPolicy'}


RECORD = """
import policyopt as po
po.Demonstrations.record(lambda obs: [0.9 if obs[1] > 0 else -0.9], 'MountainCarContinuous-v0', 2).save('trajs.h5')
"""
DAGGER = (
    'train.py --mode dagger --expert beta.h5 --dagger_beta 0.5 --dagger_label sampled --dagger_rounds 2 --max_iter 21 --seed 0 '
    '--env MountainCarContinuous-v0 --data trajs.h5 --sim_batch_size 1 --bclone_eval_freq 10 --log dagger.h5'
)


def test_commands_train_a_beta_policy_and_reject_its_file_without_the_module(beta_folder):
    in_folder(beta_folder, '-c', RECORD)
    in_folder(beta_folder, *DAGGER.split())
    assert read_log(beta_folder / 'dagger.h5')['nlabels'][-1] > 200
    err = in_folder(beta_folder, REPO / 'scripts' / 'vis_mj.py', 'dagger.h5/snapshots/last', rc=2).stderr
    assert 'holds BetaPolicy' in err and 'import the module that defines the class' in err


def policy_class(name='Odd', **functions):
    """A policy class whose functions are those of a Gaussian of stdev 1, but for some."""
    good = {
        'adist': lambda self, out: out,
        'logprob': lambda self, adist, a: -((a - adist) ** 2).sum(1) / 2,
        'kl': lambda self, old, new: ((old - new) ** 2).sum(1) / 2,
        'entropy': lambda self, adist: adist.sum(1) * 0,
        'action': lambda self, adist, u=None: adist if u is None else adist + torch.special.ndtri(u),
    }
    return type(name, (Policy,), {k: v for k, v in (good | functions).items() if v is not None})


WRONG_CLASSES = {
    'no kl': ({'kl': None}, r'Odd.kl\(\) is missing; a policy class has adist, logprob'),
    'NaN actions': ({'action': lambda self, adist, u=None: adist * np.nan}, r'action\(\) returned .* with NaN .*shape \(2, 3\)'),
    'one number for three': (
        {'action': lambda self, adist, u=None: adist[:, 0]},
        r'action\(\) returned a tensor of shape \(2,\) for 2 rows',
    ),
    'numpy': ({'action': lambda self, adist, u=None: adist.numpy()}, r'action\(\) returned a ndarray'),
    'complex actions': ({'action': lambda self, adist, u=None: adist + 1j}, 'of complex numbers'),
    'no noise': ({'action': lambda self, adist: adist}, r'action\(\) failed with TypeError: .*takes 2 positional'),
    'an exit': ({'entropy': lambda self, adist: sys.exit(0)}, r'entropy\(\) failed with SystemExit: 0'),
    'a column for a vector': ({'kl': lambda self, old, new: (old - new) ** 2}, r'kl\(\) returned a tensor of shape \(2, 3\)'),
    'a mean': ({'logprob': lambda self, adist, a: adist.mean()}, r'logprob\(\) returned a tensor of shape \(\)'),
    'no outputs': ({'outputs_per_action': 0}, "Odd.outputs_per_action is '0'; expected a whole number of 1 or more"),
    'finite actions': (
        {'actions': po.FiniteSpace},
        r'Odd is for actions of a FiniteSpace; the actions are of ContinuousSpace\(dim=3\)',
    ),
}


@pytest.mark.parametrize('case', WRONG_CLASSES)
def test_a_policy_class_with_a_wrong_function_is_refused_before_anything_is_played(case):
    functions, says = WRONG_CLASSES[case]
    with pytest.raises(po.UserError, match=says):
        make_policy(ContinuousSpace(4), ContinuousSpace(3), '[]', policy_class=policy_class(**functions))


def test_nan_of_an_action_function_is_not_played():
    brittle = policy_class('Brittle', action=lambda self, adist, u=None: torch.where(adist == 0, adist, torch.nan))
    actor = make_policy(ContinuousSpace(4), ContinuousSpace(3), '[]', policy_class=brittle).actor()
    assert not actor.act(np.zeros((2, 3))).any()
    with pytest.raises(po.RunFailed, match=r'Brittle.action\(\) returned NaN or infinity'):
        actor.act(np.ones((2, 3)))


@pytest.mark.parametrize('given', [dict, 'GibbsPolicy', 3])
def test_what_is_no_policy_class_is_refused(given, monkeypatch):
    with pytest.raises(po.UserError, match='policy_class is .*; expected a class that is derived from Policy'):
        make_policy(ContinuousSpace(4), ContinuousSpace(3), '[]', policy_class=given)
    monkeypatch.setitem(POLICY_CLASSES, ContinuousSpace, given)
    with pytest.raises(po.UserError, match=r'POLICY_CLASSES\[ContinuousSpace\] is .*; expected a class'):
        po.train('trpo', 'Pendulum-v1', iterations=1, progress=False)
