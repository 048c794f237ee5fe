"""Policies in files: round trips, hashes, files of 2016, and paths that name nothing."""

import json
import shutil

import numpy as np
import pytest
import tables

from policyopt.errors import UserError
from policyopt.evaluation import load_policy, sample_episodes
from policyopt.files import training_log
from policyopt.files.training_log import TrainingLog, content_hash, legacy_hash, read_log, read_root, read_snapshot, snapshot_names
from policyopt.policies import make_policy, policy_from_snapshot
from policyopt.sampling.mdp import MDP
from policyopt.trajectories import ContinuousSpace, FiniteSpace

SPEC = json.dumps([{'type': 'fc', 'n': 5}, {'type': 'nonlin', 'func': 'tanh'}])
ARGS = {'env_name': 'CartPole-v0', 'policy_hidden_spec': SPEC, 'obsnorm_mode': 'expertdata'}


def cartpole_policy(seed=0):
    policy = make_policy(ContinuousSpace(4), FiniteSpace(2), SPEC, True, np.random.RandomState(seed))
    policy.update_obsnorm(np.random.RandomState(seed).randn(20, 4))
    return policy


@pytest.fixture
def log_file(tmp_path):
    """A finished log with the snapshots of iterations 0 and 20."""
    log = TrainingLog(str(tmp_path / 'run.h5'), {'args': json.dumps(ARGS), 'seed': 7})
    for i in (0, 20):
        log.append([('iter', i, int), ('loss', 0.5 + i, float), ('rkl', None, float)])
        log.add_snapshot(i, cartpole_policy(i).export())
    log.finish({'end_time': 'now'})
    return log.path


def rewrite(path, change):
    """Change an HDF5 file as another program would, without our checksum over the whole file."""
    with tables.open_file(path, 'a') as h5:
        if 'content_sha256' in h5.root._v_attrs:
            del h5.root._v_attrs.content_sha256
        change(h5)


# ---- round trips


def test_a_snapshot_comes_back_verified_to_the_last_bit(log_file):
    snapshot = read_snapshot(f'{log_file}/snapshots/iter0000020')
    expected = cartpole_policy(20).export()
    assert snapshot.status == 'verified' and snapshot.args == ARGS
    assert (snapshot.file, snapshot.path) == (log_file, 'snapshots/iter0000020')
    assert set(snapshot.variables) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(snapshot.variables[name], value)
        assert snapshot.variables[name].dtype == np.float64
    policy = load_policy(f'{log_file}/snapshots/last', MDP('CartPole-v0'))
    np.testing.assert_array_equal(policy.theta_P, cartpole_policy(20).theta_P)
    np.testing.assert_array_equal(policy.obsnorm.mean_1_D, cartpole_policy(20).obsnorm.mean_1_D)


def test_names_log_and_root_of_a_file(log_file):
    assert snapshot_names(log_file) == ['iter0000000', 'iter0000020']
    log = read_log(log_file)
    assert log.dtype.names == ('iter', 'loss', 'rkl') and [str(log.dtype[n]) for n in log.dtype.names] == ['int32', 'float32', 'float32']
    assert log['iter'].tolist() == [0, 20] and log['loss'].tolist() == [0.5, 20.5] and np.isnan(log['rkl']).all()
    root = read_root(log_file)
    assert root['args'] == ARGS and root['seed'] == '7' and root['end_time'] == 'now'


def test_the_snapshot_is_laid_out_as_in_2016(log_file):
    with tables.open_file(log_file) as h5:
        group = h5.root.snapshots.iter0000000
        assert h5.get_node(group, 'GibbsPolicy/hidden/FeedforwardNet/layer_0/AffineLayer/W').shape == (4, 5)
        assert h5.get_node(group, 'GibbsPolicy/obsnorm/Standardizer/count').read() == 20
        assert h5.get_node(group, 'GibbsPolicy/out/AffineLayer/b').shape == (1, 2)
        assert str(group._v_attrs['hash']) == content_hash(cartpole_policy(0).export())


def test_the_hash_depends_on_names_shapes_and_values():
    variables = {'/a/W': np.arange(6.0).reshape(2, 3), '/a/b': np.zeros((1, 3))}
    digest = content_hash(variables)
    assert digest == content_hash(dict(reversed(variables.items())))
    assert digest != content_hash(variables | {'/a/b': np.full((1, 3), 1e-300)})
    assert digest != content_hash({'/a/W': variables['/a/W'].reshape(3, 2), '/a/b': variables['/a/b']})
    assert digest != content_hash({'/a/V': variables['/a/W'], '/a/b': variables['/a/b']})


def test_keep_last_drops_the_other_snapshots_only(log_file):
    before, root = read_log(log_file), read_root(log_file)
    TrainingLog(log_file, {}).keep_last()
    assert snapshot_names(log_file) == ['iter0000020']
    assert read_snapshot(f'{log_file}/snapshots/last').status == 'verified'
    assert read_log(log_file).tobytes() == before.tobytes()
    assert {k: v for k, v in read_root(log_file).items() if k != 'content_sha256'} == {
        k: v for k, v in root.items() if k != 'content_sha256'
    }


# ---- damage


def flip(h5):
    h5.get_node('/snapshots/iter0000020/GibbsPolicy/out/AffineLayer/W')[0, 0] += 1e-12


def test_a_flipped_value_is_refused_by_the_files_checksum(log_file):
    with tables.open_file(log_file, 'a') as h5:
        flip(h5)
    with pytest.raises(UserError, match='damaged'):
        read_snapshot(f'{log_file}/snapshots/iter0000020')


def test_a_flipped_value_is_refused_by_the_snapshots_hash(log_file):
    rewrite(log_file, flip)
    with pytest.raises(UserError, match='iter0000020 is damaged: its contents do not match the stored hash'):
        read_snapshot(f'{log_file}/snapshots/iter0000020')
    assert read_snapshot(f'{log_file}/snapshots/iter0000000').status == 'verified'


def test_variables_of_words_are_refused(log_file):
    def change(h5):
        h5.remove_node('/snapshots/iter0000020/GibbsPolicy/out/AffineLayer/W')
        h5.create_array('/snapshots/iter0000020/GibbsPolicy/out/AffineLayer', 'W', obj=np.array([b'a', b'b']))

    rewrite(log_file, change)
    with pytest.raises(UserError, match='iter0000020/GibbsPolicy/out/AffineLayer/W is not an array of numbers'):
        read_snapshot(f'{log_file}/snapshots/iter0000020')


def test_flipped_bytes_are_refused_or_harmless(log_file, tmp_path):
    bad = tmp_path / 'bad.h5'
    whole = open(log_file, 'rb').read()
    expected, refused = cartpole_policy(20).export(), 0
    for at in np.random.RandomState(1).choice(len(whole), 30, replace=False):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            found = read_snapshot(f'{bad}/snapshots/iter0000020').variables
        except UserError:
            refused += 1
            continue
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    assert refused > 0


def test_nan_and_missing_variables_are_refused(log_file):
    mdp = MDP('CartPole-v0')
    snapshot = read_snapshot(f'{log_file}/snapshots/last')
    name = '/GibbsPolicy/out/AffineLayer/W'
    for change, expected in (
        ({name: np.full((5, 2), np.nan)}, 'holds NaN or infinity'),
        ({name: np.zeros((5, 3))}, r'has shape \(5, 3\), but .* ask for \(5, 2\)'),
        ({name: None}, f'lacks the variable {name}'),
    ):
        variables = {k: v for k, v in (snapshot.variables | change).items() if v is not None}
        with pytest.raises(UserError, match=expected):
            policy_from_snapshot(training_log.Snapshot(ARGS, variables, 'verified', 'f.h5', 'snapshots/x'), mdp)


# ---- files of 2016


def test_a_file_as_in_2016_is_accepted_as_unverified(tmp_path):
    """args as bytes, ':0' behind variable names, the hash that depends on the number of variables only."""
    path, variables = str(tmp_path / 'old.h5'), cartpole_policy(3).export()
    with tables.open_file(path, 'w') as h5:
        h5.root._v_attrs['args'] = json.dumps({'env_name': 'CartPole-v0', 'policy_hidden_spec': SPEC, 'enable_obsnorm': 1}).encode()
        for name, value in variables.items():
            folder, leaf = f'/snapshots/iter0000100{name}'.rsplit('/', 1)
            with pytest.warns(tables.NaturalNameWarning):
                h5.create_array(folder, f'{leaf}:0', obj=value, createparents=True)
        h5.root.snapshots.iter0000100._v_attrs['hash'] = legacy_hash(len(variables)).encode()
    snapshot = read_snapshot(f'{path}/snapshots/iter0000100')
    assert snapshot.status == 'unverified'
    policy = policy_from_snapshot(snapshot, MDP('CartPole-v0'))
    np.testing.assert_array_equal(policy.theta_P, cartpole_policy(3).theta_P)

    rewrite(path, lambda h5: h5.root.snapshots.iter0000100._v_attrs.__setitem__('hash', legacy_hash(3)))
    with pytest.raises(UserError, match='damaged'):
        read_snapshot(f'{path}/snapshots/iter0000100')


# mean and standard deviation of the return as the policies of 2016 play
LEGACY_RETURNS = {'CartPole-v0': (200.0, 0.0), 'MountainCar-v0': (-98.4, 8.2), 'Acrobot-v0': (-80.9, 19.1)}


@pytest.mark.parametrize('env_name', LEGACY_RETURNS)
def test_the_experts_of_2016_play_as_they_did(legacy_dir, env_name):
    path = legacy_dir / 'expert_policies' / 'classic' / f'{env_name}.h5'
    name = f'{path}/snapshots/iter0000100'
    assert read_snapshot(name).status == 'unverified'
    mdp, num = MDP(env_name), 200
    returns = sample_episodes(load_policy(name, mdp), mdp, num, seed=0).returns
    mean, stdev = LEGACY_RETURNS[env_name]
    assert abs(returns.mean() - mean) <= 4 * stdev / np.sqrt(num)
    if not stdev:
        assert returns.std() == 0


def test_all_logs_of_2016_can_be_read(legacy_dir):
    files = sorted((legacy_dir / 'expert_policies').rglob('*.h5'))
    assert len(files) >= 3
    for path in files:
        assert len(read_log(path)) and read_root(path)['args']
        assert read_snapshot(f'{path}/snapshots/last').status == 'unverified'


# ---- paths and files that are no policy

BAD_PATHS = {
    'no such file': ('nowhere.h5/snapshots/iter0000000', 'no such file; a policy is named FILE.h5/snapshots/iter0000100'),
    'no such folder': ('no/where.h5/snapshots/last', 'no such file'),
    'a file only': ('run.h5', 'names a file, not a policy; add /snapshots/'),
    'no such iteration': ('run.h5/snapshots/iter0000005', 'has no snapshots/iter0000005; it holds iter0000000 to iter0000020'),
    'a misspelt group': ('run.h5/snapshot/iter0000000', 'has no snapshot/iter0000000'),
    'a table': ('run.h5/log', 'has no log; it holds'),
    'no HDF5': ('text.h5/snapshots/last', 'not a readable HDF5 file'),
    'no args': ('noargs.h5/snapshots/last', "has no attribute 'args'"),
    'args not JSON': ('nojson.h5/snapshots/last', "attribute 'args' of / is not JSON"),
    'args a list': ('list.h5/snapshots/last', 'expected a table as JSON'),
    'no snapshots': ('nosnaps.h5/snapshots/last', 'holds no snapshots'),
    'no snapshot yet': ('young.h5/snapshots/last', 'holds no snapshots yet'),
}


@pytest.mark.parametrize('case', BAD_PATHS)
def test_a_path_that_names_no_policy_is_explained(case, log_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('noargs', 'nojson', 'list', 'nosnaps', 'young'):
        shutil.copy(log_file, f'{name}.h5')
    rewrite('noargs.h5', lambda h5: h5.root._v_attrs.__delitem__('args'))
    rewrite('nojson.h5', lambda h5: h5.root._v_attrs.__setitem__('args', '{env_name: CartPole}'))
    rewrite('list.h5', lambda h5: h5.root._v_attrs.__setitem__('args', '[1, 2]'))
    rewrite('nosnaps.h5', lambda h5: h5.remove_node('/snapshots', recursive=True))
    rewrite('young.h5', lambda h5: (h5.remove_node('/snapshots', recursive=True), h5.create_group('/', 'snapshots')))
    (tmp_path / 'text.h5').write_text('no HDF5')
    path, expected = BAD_PATHS[case]
    with pytest.raises(UserError) as e:
        read_snapshot(path)
    assert expected in str(e.value) and '\n' not in str(e.value)


def test_a_policy_of_another_task_is_refused(log_file):
    for env_name, expected in (('MountainCar-v0', 'has shape'), ('Pendulum-v1', 'holds GibbsPolicy, but the task needs a GaussianPolicy')):
        with pytest.raises(UserError, match=expected):
            load_policy(f'{log_file}/snapshots/last', MDP(env_name))
