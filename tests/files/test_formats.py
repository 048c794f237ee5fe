"""Demonstrations in the formats that people have, written by the real library where it is installed, and in the documented layout."""

import io
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
import tables

from policyopt.command_line import run_main
from policyopt.errors import UserError
from policyopt.files.importers import ReadOptions, import_trajs, read_source
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.trajectories import TrajBatch

LENGTHS = [30, 50, 40]
ENDED = ['terminated', 'truncated', 'terminated']


def episodes(obs_dim=4):
    """[(obs with one row more than actions, actions, rewards)] in float32."""
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(n + 1, obs_dim)).astype('f4'), rng.normal(size=(n, 2)).astype('f4'), rng.random(n)) for n in LENGTHS]


def flat():
    """The episodes one step after the other, as arrays of D4RL."""
    eps, last = episodes(), np.cumsum(LENGTHS) - 1
    terminals, timeouts = np.zeros(sum(LENGTHS), bool), np.zeros(sum(LENGTHS), bool)
    terminals[last[[0, 2]]] = timeouts[last[1]] = True
    return {
        'observations': np.concatenate([obs[:-1] for obs, _, _ in eps]), 'actions': np.concatenate([a for _, a, _ in eps]),
        'next_observations': np.concatenate([obs[1:] for obs, _, _ in eps]), 'rewards': np.concatenate([r for _, _, r in eps]),
        'terminals': terminals, 'timeouts': timeouts,
    }  # fmt: skip


def check(trajs, ends=True):
    """The trajectories are the episodes, with how each ended and what its last action led to where `ends` says so."""
    assert trajs.lengths.tolist() == LENGTHS
    for traj, (obs, acts, rews) in zip(trajs, episodes(), strict=True):
        np.testing.assert_array_equal(traj.obs_T_Do, obs[:-1])
        np.testing.assert_array_equal(traj.a_T_Da, acts)
        np.testing.assert_allclose(traj.r_T, rews)
    if not ends:
        assert trajs.lastobs_B_Do is None
        return
    assert trajs.terminal_B.tolist() == [how == 'terminated' for how in ENDED]
    np.testing.assert_array_equal(trajs.lastobs_B_Do, [obs[-1] for obs, _, _ in episodes()])


def taken(source, tmp_path, **options):
    """What import_trajs writes for a source, read again."""
    import_trajs(str(source), str(tmp_path / 'out.h5'), **options)
    return load_trajs(str(tmp_path / 'out.h5'))


def said(source, run_script, *options):
    """{first word: rest} of the lines of --inspect, and how many notes there are."""
    lines = run_script('import_trajs.py', source, '--inspect', *options).stdout.splitlines()
    return dict(line.split(': ', 1) for line in lines)


# ---- HDF5


@pytest.fixture(params=['tables', 'h5py'])
def write_h5(request):
    """write(path, {name: array or text}, {group: {attribute: text}}) with PyTables, and with h5py as D4RL and robomimic do."""
    if request.param == 'h5py':
        h5py = pytest.importorskip('h5py', reason='h5py is not installed')

    def with_h5py(path, arrays, attrs):
        with h5py.File(path, 'w') as f:
            for name, x in arrays.items():
                packed = {'compression': 'gzip'} if np.ndim(x) > 1 and np.size(x) else {}
                f.create_dataset(name, data=x, **packed)
            for group, values in attrs.items():
                f[group].attrs.update(values)

    def with_tables(path, arrays, attrs):
        with tables.open_file(path, 'w') as f:
            for name, x in arrays.items():
                parent, _, leaf = f'/{name}'.rpartition('/')
                x = np.asarray(x.encode() if isinstance(x, str) else x)
                create = f.create_carray if x.ndim > 1 and x.size else f.create_array
                create(parent or '/', leaf, obj=x, createparents=True)
            for group, values in attrs.items():
                for key, value in values.items():
                    f.get_node(f'/{group}')._v_attrs[key] = value

    def write(path, arrays, attrs=None):
        (with_h5py if request.param == 'h5py' else with_tables)(str(path), arrays, attrs or {})

    return write


def test_a_file_of_d4rl(write_h5, run_script, tmp_path):
    more = {'infos/qpos': np.ones((120, 3)), 'metadata/algorithm': 'SAC', 'metadata/policy/nonlinearity': 'relu'}
    write_h5(tmp_path / 'hopper.hdf5', flat() | more)
    check(taken(tmp_path / 'hopper.hdf5', tmp_path))
    report = said('hopper.hdf5', run_script)
    assert report['format'] == 'HDF5 as of D4RL, one step after the other' and report['not used'] == 'infos/…, metadata/…'
    assert report['used'] == 'observations, actions, rewards, next_observations, terminals, timeouts'
    assert report['episodes'] == '3 (2 terminated, 1 truncated); after their last actions: kept'


def test_a_file_of_d4rl_without_next_observations(write_h5, tmp_path):
    arrays = flat()
    del arrays['next_observations']
    write_h5(tmp_path / 'hopper.hdf5', arrays)
    check(taken(tmp_path / 'hopper.hdf5', tmp_path), ends=False)
    assert read_source(str(tmp_path / 'hopper.hdf5')).notes == []
    del arrays['timeouts']
    write_h5(tmp_path / 'old.hdf5', arrays)
    found = read_source(str(tmp_path / 'old.hdf5'))
    assert [len(e.acts) for e in found.episodes] == [30, 90] and 'without timeouts' in found.notes[0]


def robomimic(raised=False):
    """Arrays of demonstrations whose numbers are not in the order of their names."""
    arrays = {'mask/train': np.array([b'demo_2', b'demo_10'])}
    for i, (obs, acts, rews) in zip((2, 10, 11), episodes(), strict=True):
        own = {'actions': acts, 'rewards': rews, 'dones': (np.arange(len(acts)) == len(acts) - 1).astype(int) * raised}
        own |= {'obs/object': obs[:-1, :3], 'obs/gripper': obs[:-1, 3], 'obs/image': np.zeros((len(acts), 4, 4, 3), 'u1')}
        own |= {'next_obs/object': obs[1:, :3], 'next_obs/gripper': obs[1:, 3], 'states': np.zeros((len(acts), 7))}
        arrays |= {f'data/demo_{i}/{name}': x for name, x in own.items()}
    attrs = {'data': {'env_args': json.dumps({'env_name': 'Lift', 'type': 1, 'env_kwargs': {}}, indent=4)}}
    return arrays, attrs


@pytest.mark.parametrize('raised', [False, True])
def test_a_file_of_robomimic(raised, write_h5, run_script, tmp_path):
    arrays, attrs = robomimic(raised)
    write_h5(tmp_path / 'low_dim.hdf5', arrays | {'data/demo_10/obs/late': np.zeros(50)}, attrs)
    trajs = taken(tmp_path / 'low_dim.hdf5', tmp_path, obs_keys=('object', 'gripper'))
    if raised:  # by the end of the recording, or by success: nobody says which
        check(trajs, ends=False)
    else:
        assert trajs.terminal_B.tolist() == [False] * 3
        trajs.terminal_B[[0, 2]] = True
        check(trajs)
    report = said('low_dim.hdf5', run_script, '--obs_keys', 'gripper,object')
    assert report['format'].startswith('HDF5 as of robomimic') and report['not used'] == 'states, obs/image, obs/late, mask'
    assert report['used'] == 'obs/gripper, obs/object, actions, rewards, dones, next_obs/gripper, next_obs/object'
    assert report['note'] == "recorded in the environment 'Lift' of robomimic"


def test_the_parts_of_observations_are_named_with_their_shapes(write_h5, run_script, tmp_path):
    write_h5(tmp_path / 'low_dim.hdf5', *robomimic())
    refused = run_script('import_trajs.py', 'low_dim.hdf5', 'out.h5', rc=2).stderr
    assert 'gripper (), image (4, 4, 3), object (3,). Name those' in refused and '--obs_keys gripper,object\n' in refused
    for keys, expected in (('objects', "names 'objects', which is no vector among"), ('image', 'image (4, 4, 3)')):
        assert expected in run_script('import_trajs.py', 'low_dim.hdf5', 'out.h5', '--obs_keys', keys, rc=2).stderr
    arrays = {name: x for name, x in robomimic()[0].items() if 'obs' not in name}
    write_h5(tmp_path / 'raw.hdf5', arrays)
    assert 'dataset_states_to_obs' in run_script('import_trajs.py', 'raw.hdf5', 'out.h5', rc=2).stderr
    assert not (tmp_path / 'out.h5').exists()


def ours(path):
    save_trajs(str(path), TrajBatch(np.ones((5, 2)), np.zeros((5, 0)), np.ones((5, 1)), np.ones(5), [2, 3]), {})


def of_2016(path):
    with tables.open_file(str(path), 'w') as f:
        for name, shape in (('obs_B_T_Do', (2, 3, 2)), ('a_B_T_Da', (2, 3, 1)), ('r_B_T', (2, 3)), ('obsfeat_B_T_Df', (2, 3, 2))):
            f.create_array('/', name, np.ones(shape))
        f.create_array('/', 'len_B', np.array([2, 3]))


def run_of(path):
    with tables.open_file(str(path), 'w') as f:
        f.create_group('/', 'snapshots')
        f.create_array('/', 'log', np.ones(3))


def one_array(path, name, **more):
    with tables.open_file(str(path), 'w') as f:
        f.create_array('/', name, np.ones(3), createparents=True, **more)


HDF5_KINDS = {
    'our trajectory file': (ours, 'is a trajectory file already, which --data takes as it is; python scripts/print_saved_returns.py in.h5'),
    'one of 2016': (of_2016, 'is a trajectory file already, which --data takes as it is'),
    'a run': (run_of, 'is the file of a training run, not demonstrations; its policy records some: python scripts/vis_mj.py in.h5/snap'),
    'results': (lambda path: one_array(path, 'results'), 'holds the results of an experiment, not demonstrations'),
    'a part of Minari': (lambda path: one_array(path, 'episode_0'), 'is a part of a Minari data set; give its id'),
    'anything else': (lambda path: one_array(path, 'weights'), 'is an HDF5 file with weights; expected observations and actions'),
    'no demonstration': (lambda path: tables.open_file(str(path), 'w').create_group('/', 'data')._v_file.close(), 'holds no demonstration'),
    'half a file': (lambda path: (ours(path), path.write_bytes(path.read_bytes()[:999])), 'not a readable HDF5 file'),
}


@pytest.mark.parametrize('kind', HDF5_KINDS)
def test_hdf5_files_that_are_no_demonstrations_say_what_they_are(kind, run_script, tmp_path):
    write, expected = HDF5_KINDS[kind]
    write(tmp_path / 'in.h5')
    refused = run_script('import_trajs.py', 'in.h5', 'out.h5', rc=2).stderr
    assert expected in refused and refused.count('\n') == 1 and not (tmp_path / 'out.h5').exists()


def test_data_that_are_no_trajectory_file_name_the_command_that_converts_them(write_h5, tmp_path):
    write_h5(tmp_path / 'hopper.hdf5', flat())
    with pytest.raises(UserError, match=r'as of d4rl, are converted with: python scripts/import_trajs.py \S*hopper.hdf5 trajs.h5'):
        load_trajs(str(tmp_path / 'hopper.hdf5'))


def test_a_file_that_claims_more_than_it_stores_is_refused(tmp_path):
    with tables.open_file(str(tmp_path / 'in.h5'), 'w') as f:
        for name, shape in (('observations', (10**9, 4)), ('actions', (10**9,))):
            f.create_carray('/', name, tables.Float64Atom(), shape, filters=tables.Filters(1))
    with pytest.raises(UserError, match=r'declares \d+ bytes, but the file stores 0 for it'):
        read_source(str(tmp_path / 'in.h5'))


@pytest.mark.parametrize('link', [tables.File.create_soft_link, tables.File.create_external_link])
def test_links_are_refused(link, tmp_path):
    with tables.open_file(str(tmp_path / 'in.h5'), 'w') as f:
        link(f, '/', 'observations', '/etc' if link is tables.File.create_soft_link else 'other.h5:/x')
        f.create_array('/', 'actions', np.ones(3))
    with pytest.raises(UserError, match="'/observations' is a link"):
        read_source(str(tmp_path / 'in.h5'))


def changed(arrays, **changes):
    """Arrays with other values, or without those that are None."""
    return {name: x for name, x in (arrays | changes).items() if x is not None}


DEMO = 'data/demo_10/'
BAD_HDF5 = {  # [arrays, attributes, what is said]
    'words': (changed(flat(), actions=np.array([b'left'] * 120)), {}, 'actions is not an array of numbers'),
    'NaN': (changed(flat(), rewards=np.full(120, np.nan)), {}, 'episode 0: NaN or infinity among the rewards of step 0'),
    'too few flags': (changed(flat(), timeouts=np.zeros(9)), {}, r'timeouts has shape \(9,\) for 120 actions'),
    'ragged': (changed(flat(), actions=np.zeros((119, 2))), {}, '120 observations for 119 actions'),
    'no actions': (changed(flat(), actions=None), {}, 'expected observations and actions at its root'),
    'no step': ({name: x[:0] for name, x in flat().items()}, {}, 'at least one step'),
    'pictures': (changed(flat(), observations=np.zeros((120, 2, 2, 3)), next_observations=None), {}, 'observations of shape'),
    'a part is missing': (changed(robomimic()[0], **{DEMO + 'obs/object': None}), {}, 'obs/object is in only one of demo_2 and demo_10'),
    'rewards of some': (changed(robomimic()[0], **{'data/demo_2/rewards': None}), {}, 'rewards is in only one of demo_2 and demo_10'),
    'next_obs of some': (changed(robomimic()[0], **{'data/demo_2/next_obs/object': None}), {}, 'next_obs/object is in only one of demo'),
    'a part is shorter': (changed(robomimic()[0], **{DEMO + 'obs/object': np.zeros((3, 3))}), {}, 'demo_10: parts of the observations'),
    'another size': (changed(robomimic()[0], **{DEMO + 'actions': np.zeros((50, 3))}), {}, 'demo_10: 3 action dims, but 2 in'),
    'a demo without steps': (changed(robomimic()[0], **{DEMO + 'actions': np.zeros((0, 2))}), {}, 'demo_10: 50 observations for 0 actions'),
    'infinity': (changed(robomimic()[0], **{DEMO + 'rewards': np.full(50, np.inf)}), {}, 'demo_10: NaN or infinity among the rewards'),
    'env_args': (robomimic()[0], {'data': {'env_args': '{'}}, "the attribute 'env_args' of /data is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD_HDF5)
def test_hdf5_files_that_are_wrong_inside_are_refused(case, write_h5, tmp_path):
    arrays, attrs, expected = BAD_HDF5[case]
    write_h5(tmp_path / 'in.hdf5', arrays, attrs)
    keys = ('object', 'gripper') if 'data/demo_2/actions' in arrays else None
    with pytest.raises(UserError, match=expected):
        import_trajs(str(tmp_path / 'in.hdf5'), str(tmp_path / 'out.h5'), obs_keys=keys)
    assert not (tmp_path / 'out.h5').exists()


def test_a_demonstration_may_be_one_step_long_and_its_file_a_link(write_h5, tmp_path):
    one = {'actions': np.ones((1, 2)), 'dones': np.zeros(1), 'obs/object': np.ones((1, 3)), 'next_obs/object': np.full((1, 3), 2.0)}
    write_h5(tmp_path / 'one.hdf5', {f'data/demo_0/{name}': x for name, x in one.items()})
    (tmp_path / 'link.hdf5').symlink_to(tmp_path / 'one.hdf5')
    trajs = taken(tmp_path / 'link.hdf5', tmp_path)
    assert trajs.lengths.tolist() == [1] and trajs.terminal_B.tolist() == [False] and trajs.lastobs_B_Do.tolist() == [[2.0] * 3]


def test_an_npz_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / 'in.npz', **flat() | {'observations': np.zeros((120, 10000))})
    monkeypatch.setattr(os, 'sysconf', lambda name: {'SC_PHYS_PAGES': 1000, 'SC_PAGE_SIZE': 4096}[name])
    with pytest.raises(UserError, match='observations unpacks to 9600128 bytes, but this computer has 4096000'):
        read_source(str(tmp_path / 'in.npz'))


NO_USE = {'obs_keys': ('obs',), 'ends': 'dones', 'time_axis': 0}


@pytest.mark.parametrize(('name', 'option'), [('d4rl', 'obs_keys'), ('robomimic', 'ends'), ('robomimic', 'time_axis')])
def test_options_that_a_format_has_no_use_for_are_refused(name, option, write_h5, tmp_path):
    write_h5(tmp_path / 'in.hdf5', *((flat(),) if name == 'd4rl' else robomimic()))
    with pytest.raises(UserError, match=f'--{option} does not apply to this format'):
        read_source(str(tmp_path / 'in.hdf5'), ReadOptions(**{option: NO_USE[option]}))


# ---- .npz of other programs


def test_lines_of_python_name_the_file_and_nothing_else_is_replaced(tmp_path):
    (tmp_path / 'minari').mkdir()
    (tmp_path / 'minari' / 'data').mkdir()
    (tmp_path / 'minari' / 'data' / 'main_data.hdf5').touch()
    with pytest.raises(UserError) as e:
        read_source(str(tmp_path / 'minari'))
    assert 'MINARI_DATASETS_PATH' in str(e.value)


def equally_long(num=3, T=50):
    rng = np.random.default_rng(0)
    return {'obs': rng.normal(size=(num, T, 4)), 'acs': rng.normal(size=(num, T, 2)), 'rews': rng.random((num, T))}


def test_a_file_of_gail_of_baselines(run_script, tmp_path):
    arrays = equally_long()
    np.savez(tmp_path / 'in.npz', **arrays, ep_rets=arrays['rews'].sum(axis=1))
    trajs = taken(tmp_path / 'in.npz', tmp_path)
    assert trajs.lengths.tolist() == [50] * 3 and np.array_equal(trajs.obs.stacked, arrays['obs'].reshape(-1, 4))
    report = said('in.npz', run_script)
    assert report['used'] == 'obs, acs, rews, ep_rets' and report['format'] == '.npz, axes (episode, step)' and 'note' not in report
    np.savez(tmp_path / 'other.npz', **arrays, ep_rets=np.arange(3))
    assert said('other.npz', run_script)['note'].startswith('ep_rets says 0 of episode 0, whose rewards add up to 2')


def test_what_baselines_fills_up_with_zeros_is_no_step(tmp_path):
    arrays, lens = equally_long(), np.array([30, 50, 40])
    for x in arrays.values():
        x[np.arange(50) >= lens[:, None]] = 0
    np.savez(tmp_path / 'told.npz', **arrays, lens=lens, rets=arrays['rews'].sum(axis=1))
    assert taken(tmp_path / 'told.npz', tmp_path).lengths.tolist() == lens.tolist()
    np.savez(tmp_path / 'untold.npz', **arrays)
    with pytest.raises(UserError, match=r"episode 0: steps 30 to 49 hold nothing but zeros.*add an array 'lengths'"):
        read_source(str(tmp_path / 'untold.npz'))
    flat = {name: x[2] for name, x in arrays.items()}  # an array that was made for 50 steps and filled with 40
    np.savez(tmp_path / 'flat.npz', **flat, dones=np.arange(50) == 39)
    with pytest.raises(UserError, match='steps 40 to 49 hold nothing but zeros'):
        read_source(str(tmp_path / 'flat.npz'))


def test_episodes_as_python_objects_are_refused_with_the_lines_that_convert_them(run_script, tmp_path, monkeypatch):
    ragged = {name: np.empty(3, object) for name in ('obs', 'acs', 'rews')}
    for i, episode in enumerate(episodes()):
        for x, part in zip(ragged.values(), (episode[0][:-1], *episode[1:]), strict=True):
            x[i] = part
    np.savez(tmp_path / 'in.npz', **ragged, ep_rets=np.array([r.sum() for _, _, r in episodes()]))
    refused = run_script('import_trajs.py', 'in.npz', 'out.h5', rc=2).stderr
    assert 'obs holds Python objects, which could run code' in refused and 'If you trust who made the file, convert it:' in refused
    monkeypatch.chdir(tmp_path)
    run_lines_of('in.npz')
    check(taken('converted.npz', tmp_path), ends=False)


def test_a_file_of_generate_expert_traj(run_script, tmp_path):
    starts = np.isin(np.arange(120), np.cumsum([0, *LENGTHS[:-1]]))
    arrays = {'actions': flat()['actions'], 'obs': flat()['observations'], 'rewards': flat()['rewards']}
    np.savez(tmp_path / 'in.npz', **arrays, episode_returns=[r.sum() for _, _, r in episodes()], episode_starts=starts)
    check(taken(tmp_path / 'in.npz', tmp_path), ends=False)
    report = said('in.npz', run_script)
    assert report['used'] == 'obs, actions, rewards, episode_starts, episode_returns' and 'note' not in report
    np.savez(tmp_path / 'odd.npz', **arrays, episode_returns=[1.0], episode_starts=starts)
    assert said('odd.npz', run_script)['note'] == 'episode_returns holds 1 returns, but there are 3 episodes'


def buffer_of(num_envs, size, next_obs=True):
    """Arrays (step, environment, …) of `size` steps in which an episode of environment e takes 10 + e steps, and what they hold."""
    rng, T = np.random.default_rng(0), size
    obs, after = rng.normal(size=(T, num_envs, 3)).astype('f4'), np.zeros((T, num_envs, 3), 'f4')
    after[:-1] = obs[1:]
    dones = np.zeros((T, num_envs))
    for e in range(num_envs):
        dones[9 + e :: 10 + e, e] = 1
    after[(dones == 1) | (np.arange(T)[:, None] == T - 1)] = 7
    arrays = {
        'observations': obs,
        'actions': rng.integers(2, size=(T, num_envs, 1)),
        'rewards': np.ones((T, num_envs), 'f4'),
        'dones': dones,
    }
    return arrays | {'timeouts': np.zeros((T, num_envs))} | ({'next_observations': after} if next_obs else {})


@pytest.mark.parametrize('num_envs', [1, 3])
def test_a_replay_buffer_of_several_environments(num_envs, tmp_path):
    arrays = buffer_of(num_envs, 40)
    np.savez(tmp_path / 'in.npz', **arrays)
    trajs = taken(tmp_path / 'in.npz', tmp_path)
    assert trajs.lengths.tolist() == [10, 10, 10, 10, 11, 11, 11, 7, 12, 12, 12, 4][: 4 * num_envs]
    assert trajs.terminal_B.tolist() == [True, True, True, True, True, True, True, False, True, True, True, False][: 4 * num_envs]
    assert (trajs.lastobs_B_Do == 7).all() and np.array_equal(trajs.obs[1], arrays['observations'][10:20, 0])
    del arrays['next_observations']
    np.savez(tmp_path / 'without.npz', **arrays)
    with pytest.raises(UserError, match='--time_axis 0'):
        read_source(str(tmp_path / 'without.npz'))
    found = read_source(str(tmp_path / 'without.npz'), ReadOptions(time_axis=0))
    assert [len(e.acts) for e in found.episodes] == trajs.lengths.tolist()


def test_a_replay_buffer_that_is_not_full_or_has_begun_again(tmp_path):
    arrays = buffer_of(2, 40)
    ring = {name: np.roll(x, 15, axis=0) for name, x in arrays.items()}
    np.savez(tmp_path / 'ring.npz', **ring, pos=15, full=True)
    part = {name: np.concatenate([x, np.zeros_like(x)]) for name, x in arrays.items()}
    np.savez(tmp_path / 'part.npz', **part, pos=40, full=False)
    for name in ('ring', 'part'):
        found = read_source(str(tmp_path / f'{name}.npz'))
        assert [len(e.acts) for e in found.episodes] == [10, 10, 10, 10, 11, 11, 11, 7] and not found.notes
        assert np.array_equal(found.episodes[0].obs[:-1], arrays['observations'][:10, 0])
    np.savez(tmp_path / 'untold.npz', **part)
    with pytest.raises(UserError, match='environment 0: steps 40 to 79 hold nothing but zeros'):
        read_source(str(tmp_path / 'untold.npz'))
    for pos, expected in ((99, 'pos is'), (0, 'the buffer is empty'), (1.5, 'pos is'), ([1, 2], 'pos is')):
        np.savez(tmp_path / 'bad.npz', **part, pos=pos)
        with pytest.raises(UserError, match=expected):
            read_source(str(tmp_path / 'bad.npz'))


def rollout(T=40, num_envs=3):
    arrays = buffer_of(num_envs, T, next_obs=False)
    starts = np.roll(arrays.pop('dones'), 1, axis=0)
    starts[0] = 1
    del arrays['timeouts']
    return arrays | {'episode_starts': starts, 'values': np.ones((T, num_envs)), 'log_probs': np.ones((T, num_envs))}


@pytest.mark.parametrize('num_envs', [1, 3])
@pytest.mark.parametrize('flattened', [False, True])
def test_a_rollout_buffer_before_and_after_its_samples_were_taken(flattened, num_envs, tmp_path):
    arrays = rollout(num_envs=num_envs)
    obs = arrays['observations']
    for name in ('observations', 'actions', 'values', 'log_probs') if flattened else ():  # as RolloutBuffer.get does
        x = arrays[name] if arrays[name].ndim > 2 else arrays[name][..., None]
        arrays[name] = x.swapaxes(0, 1).reshape(num_envs * 40, *x.shape[2:])
    np.savez(tmp_path / 'in.npz', **arrays)
    trajs = taken(tmp_path / 'in.npz', tmp_path)
    assert trajs.lengths.tolist() == [10, 10, 10, 10, 11, 11, 11, 7, 12, 12, 12, 4][: 4 * num_envs]
    np.testing.assert_array_equal(trajs.obs.stacked, obs.swapaxes(0, 1).reshape(-1, 3))


def test_buffers_that_stable_baselines3_has_filled(tmp_path):
    sb3 = pytest.importorskip('stable_baselines3', reason='Stable-Baselines3 is not installed')
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env('CartPole-v1', n_envs=2, seed=0)
    model = sb3.DQN('MlpPolicy', env, buffer_size=200, learning_starts=1000, seed=0)
    model.learn(300)
    buffer = model.replay_buffer
    names = ('observations', 'next_observations', 'actions', 'rewards', 'dones', 'timeouts')
    np.savez(tmp_path / 'replay.npz', **{name: getattr(buffer, name) for name in names}, pos=buffer.pos, full=buffer.full)
    found = read_source(str(tmp_path / 'replay.npz'))
    ends = np.roll(buffer.dones, -buffer.pos, axis=0)
    assert sum(len(e.acts) for e in found.episodes) == 200 and buffer.full
    assert sum(bool(e.terminated) for e in found.episodes) == ends.sum() and not found.notes
    model = sb3.PPO('MlpPolicy', make_vec_env('CartPole-v1', n_envs=2, seed=0), n_steps=64, batch_size=64, n_epochs=1, seed=0)
    model.learn(128)
    buffer = model.rollout_buffer
    names = ('observations', 'actions', 'rewards', 'episode_starts', 'values', 'log_probs', 'returns', 'advantages')
    np.savez(tmp_path / 'rollout.npz', **{name: getattr(buffer, name) for name in names})
    found = read_source(str(tmp_path / 'rollout.npz'))
    assert len(found.episodes) == buffer.episode_starts[1:].sum() + 2
    np.testing.assert_array_equal(np.concatenate([e.obs for e in found.episodes]), buffer.observations)


# ---- folders of imitation


def imitation(path, terminal=(True, True, True), limits=(None, None, None), **columns):
    """A folder as imitation.data.serialize.save writes it, with pyarrow alone; `limits` are TimeLimit.truncated of the last infos."""
    pa = pytest.importorskip('pyarrow', reason="pyarrow is not installed (pip install -e '.[hf]')")
    infos = [['{}'] * (n - 1) + ['{}' if limit is None else json.dumps({'TimeLimit.truncated': limit, 'x': {'py/type': 'os.system'}})]
             for n, limit in zip(LENGTHS, limits, strict=True)]  # fmt: skip
    obs, acts, rews = ([x.tolist() for x in kind] for kind in zip(*episodes(), strict=True))
    table = pa.table({'obs': obs, 'acts': acts, 'infos': infos, 'terminal': list(terminal), 'rews': rews} | columns)
    path.mkdir()
    names = ['data-00000-of-00002.arrow', 'data-00001-of-00002.arrow']
    for name, part in zip(names, (table.slice(0, 2), table.slice(2)), strict=True):
        with pa.OSFile(str(path / name), 'wb') as f, pa.ipc.new_stream(f, table.schema) as writer:
            writer.write_table(part)
    (path / 'state.json').write_text(json.dumps({'_data_files': [{'filename': name} for name in names]}))
    return path


def test_a_folder_of_imitation(run_script, tmp_path):
    imitation(tmp_path / 'told', limits=(False, True, False))
    check(taken(tmp_path / 'told', tmp_path))
    report = said('told', run_script)
    assert report['used'] == 'obs, acts, rews, terminal, TimeLimit.truncated of infos'
    assert report['not used'] == 'infos (texts of jsonpickle, never unpickled)'
    (tmp_path / 'out.h5').unlink()
    check(taken(imitation(tmp_path / 'flagged', terminal=(True, False, True)), tmp_path))
    assert said('flagged', run_script)['used'] == 'obs, acts, rews, terminal'


BAD_FOLDERS = {
    'another file': (lambda p: p.joinpath('state.json').write_text('{"_data_files": [{"filename": "../x.arrow"}]}'), 'of its own folder'),
    'no list of files': (lambda p: p.joinpath('state.json').write_text('[]'), 'names no _data_files'),
    'half a file': (lambda p: next(p.glob('*.arrow')).write_bytes(next(p.glob('*.arrow')).read_bytes()[:900]), 'not a readable Arrow'),
    'a file less': (lambda p: (p / 'data-00001-of-00002.arrow').unlink(), 'but state.json names it'),
}


@pytest.mark.parametrize('case', BAD_FOLDERS)
def test_damaged_folders_of_imitation_are_refused(case, run_script, tmp_path):
    spoil, expected = BAD_FOLDERS[case]
    spoil(imitation(tmp_path / 'in'))
    refused = run_script('import_trajs.py', 'in', 'out.h5', rc=2).stderr
    assert expected in refused and refused.count('\n') == 1


BAD_COLUMNS = {
    'ragged': ({'obs': [[[1.0, 2.0], [1.0]]] * 3}, 'obs holds vectors of different lengths'),
    'no value': ({'acts': [[1.0, None]] * 3}, 'acts holds entries without a value'),
    'no list': ({'acts': [None, [1.0], [1.0]]}, 'acts is missing'),
    'words': ({'acts': [['left'] * n for n in LENGTHS]}, 'actions of type object; expected numbers'),
    'no flag': ({'terminal': [None, True, True]}, 'terminal is None; expected true or false'),
    'NaN': ({'rews': [[float('nan')] * n for n in LENGTHS]}, 'NaN or infinity among the rewards'),
    'too few': ({'acts': [[1.0]] * 3}, '31 observations for 1 actions'),
}


@pytest.mark.parametrize('case', BAD_COLUMNS)
def test_columns_of_imitation_that_are_no_episodes_are_refused(case, tmp_path):
    columns, expected = BAD_COLUMNS[case]
    with pytest.raises(UserError, match=expected):
        import_trajs(str(imitation(tmp_path / 'in', **columns)), str(tmp_path / 'out.h5'))


def test_what_imitation_has_saved(tmp_path):
    pytest.importorskip('imitation', reason='imitation is not installed')
    from imitation.data import serialize, types

    trajs = [
        types.TrajectoryWithRew(obs, acts, np.array([{}] * (len(acts) - 1) + [{'TimeLimit.truncated': how == 'truncated'}]), True, rews)
        for (obs, acts, rews), how in zip(episodes(), ENDED, strict=True)
    ]
    serialize.save(tmp_path / 'in', trajs)
    check(taken(tmp_path / 'in', tmp_path))
    datasets = pytest.importorskip('datasets')
    datasets.DatasetDict({'train': datasets.load_from_disk(str(tmp_path / 'in'))}).save_to_disk(str(tmp_path / 'parts'))
    with pytest.raises(UserError, match='a data set of several parts. Give one of its folders: .*train'):
        read_source(str(tmp_path / 'parts'))


def test_without_pyarrow_its_extra_is_named(run_script, tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'state.json').write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (tmp_path / 'pyarrow.py').write_text('raise ImportError("not here")')
    refused = run_script('import_trajs.py', 'in', 'out.h5', env={'PYTHONPATH': str(tmp_path)}, rc=2, fresh=True).stderr
    assert "need the package pyarrow (not here); install it: pip install -e '.[hf]'" in refused and refused.count('\n') == 1


# ---- what is not read


def as_zip(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as f:
        for name in names:
            f.writestr(name, b'')
    return file.getvalue()


UNREAD = {
    'demos.pkl': (pickle.dumps([1]), 'is a pickle, which could run code'),
    'demos.bin': (pickle.dumps({'x': 1}, protocol=2), 'is a pickle, which could run code'),
    'buffer.pkl': (b'\x80\x05\x95\x00 stable_baselines3.common.buffers', 'is a replay buffer of Stable-Baselines3, pickled'),
    'episode.parquet': (b'PAR1', 'is a Parquet file'),
    'lerobot/data/chunk-000/file.parquet': (b'PAR1', 'is a Parquet file'),
    'rlds.tfrecord-00000-of-00001': (b'', 'is a data set of TensorFlow (RLDS, TFRecord files)'),
    'rlds/1.0.0/x-train.tfrecord-00000-of-00001': (b'', 'is a data set of TensorFlow (RLDS, TFRecord files)'),
    'demos.json': (b'[]', 'is a JSON file'),
    'obs.npy': (b'\x93NUMPY', 'is a single array'),
    'ppo.zip': (as_zip('data', 'policy.pth'), 'is a model that Stable-Baselines3 has saved, not demonstrations'),
    'net.pt': (as_zip('archive/data.pkl'), 'is a file of torch.save, which could run code'),
    'renamed.zip': (as_zip('obs.npy', 'acts.npy'), 'is an .npz file under another name'),
    'all.zip': (as_zip('a.npz'), 'is an archive. Unpack it'),
    'half.zip': (as_zip('a.npz')[:20], 'is an archive. Unpack it'),
    'all.tar.gz': (b'\x1f\x8b', 'is an archive. Unpack it'),
    'play.mp4': (b'\0\0\0\x18ftypmp42', 'is a video or a picture, which holds no actions'),
    'demos.mat': (b'MATLAB 5.0 MAT-file', 'is a MATLAB file'),
    'data-00000.arrow': (b'ARROW1', 'is a part of a data set. Give the folder'),
    'replay.zarr/.zgroup': (b'{}', 'is a Zarr store'),
    'expert-v0/data/main_data.hdf5': (b'', 'is a Minari data set. Give its id'),
    'notes.xyz': (b'hello', 'is of no known format; expected an .npz or .csv file or a folder of them'),
}


@pytest.mark.parametrize('name', UNREAD)
def test_what_is_not_read_says_what_it_is(name, tmp_path, monkeypatch, capsys):
    content, expected = UNREAD[name]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    source = name.split('/')[0]
    assert run_main('import_trajs', lambda argv: import_trajs(*argv), [source, 'out.h5']) == 2
    refused = capsys.readouterr().err
    assert refused.startswith(f'import_trajs: error: {source}: {expected}') and not (tmp_path / 'out.h5').exists()
    assert all(line.startswith('  ') for line in refused.splitlines()[1:])


@pytest.mark.parametrize('module', [json, pickle])
def test_the_lines_that_convert_a_list_of_episodes_do(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [{'observations': o[:-1].tolist(), 'actions': a.tolist(), 'rewards': r.tolist()} for o, a, r in episodes()]
    name = f'demos.{module.__name__}'
    (tmp_path / name).write_bytes(json.dumps(found).encode() if module is json else pickle.dumps(found))
    run_lines_of(name)
    check(taken('converted.npz', tmp_path), ends=False)


def test_the_lines_that_convert_a_replay_buffer_do(tmp_path, monkeypatch):
    sb3 = pytest.importorskip('stable_baselines3', reason='Stable-Baselines3 is not installed')
    monkeypatch.chdir(tmp_path)
    model = sb3.DQN('MlpPolicy', 'CartPole-v1', buffer_size=100, learning_starts=1000, seed=0)
    model.learn(150)
    model.save_replay_buffer('buffer.pkl')
    run_lines_of('buffer.pkl')
    found = read_source('converted.npz')
    kept = np.roll(model.replay_buffer.observations, -model.replay_buffer.pos, axis=0)
    np.testing.assert_array_equal(np.concatenate([e.obs[:-1] for e in found.episodes]), kept[:, 0])
    model.save('model.zip')
    with pytest.raises(UserError, match='a model that Stable-Baselines3 has saved'):
        read_source('model.zip')


def run_lines_of(source):
    """Run the lines of Python in the message that refuses a file."""
    with pytest.raises(UserError) as refused:
        read_source(source)
    exec('\n'.join(line[2:] for line in str(refused.value).splitlines()[1:]), {})


# ---- what is said of any format


def csvs(path):
    path.mkdir()
    for i, (obs, acts, rews) in enumerate(episodes()):
        names = [*(f'obs{k}' for k in range(4)), 'act0', 'act1', 'rew', 'x', *(f'next_obs{k}' for k in range(4)), 'terminated', 'truncated']
        end = np.zeros((len(acts), 2))
        end[-1, int(ENDED[i] == 'truncated')] = 1
        table = np.concatenate([obs[:-1], acts, rews[:, None], rews[:, None], obs[1:], end], axis=1)
        np.savetxt(path / f'{i}.csv', table, delimiter=',', header=','.join(names), comments='', fmt='%.17g')


STAND_IN = """
import types
import numpy as np
import test_formats

def load_dataset(name, download):
    episodes = []
    for i, (obs, acts, rews) in enumerate(test_formats.episodes()):
        end = np.arange(len(acts)) == len(acts) - 1
        ends = {'terminations': end * (i != 1), 'truncations': end * (i == 1)}
        episodes.append(types.SimpleNamespace(id=i, observations=obs, actions=acts, rewards=rews, **ends))
    return types.SimpleNamespace(env_spec=None, iterate_episodes=lambda: episodes)
"""


def of_minari(folder, monkeypatch):
    """A module minari that holds the episodes, so that the package need not be installed."""
    (folder / 'minari.py').write_text(STAND_IN)
    monkeypatch.delitem(sys.modules, 'minari', raising=False)  # the package, where another test has imported it
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(folder), os.path.dirname(__file__)]))


def write_tables(path, arrays):
    with tables.open_file(str(path), 'w') as f:
        for name, x in arrays.items():
            parent, _, leaf = f'/{name}'.rpartition('/')
            f.create_array(parent or '/', leaf, obj=x, createparents=True)


def numbered():
    return {f'{name}_{i}': x for i, e in enumerate(episodes()) for name, x in zip(('obs', 'acts', 'rews'), e, strict=True)} | {
        f'terminal_{i}': how == 'terminated' for i, how in enumerate(ENDED)
    }


FORMATS = {  # [how it is written, the source, the ends are known]
    'npz, flat': (lambda p, _: np.savez(p / 'in.npz', **flat()), 'in.npz', True),
    'npz, numbered': (lambda p, _: np.savez(p / 'in.npz', **numbered()), 'in.npz', True),
    'd4rl': (lambda p, _: write_tables(p / 'in.hdf5', flat()), 'in.hdf5', True),
    'robomimic': (lambda p, _: write_tables(p / 'in.hdf5', robomimic()[0]), 'in.hdf5', False),
    'csv': (lambda p, _: csvs(p / 'in'), 'in', True),
    'imitation': (lambda p, _: imitation(p / 'in', terminal=(True, False, True)), 'in', True),
    'minari': (of_minari, 'mine/demos-v0', True),
}


@pytest.mark.parametrize('name', FORMATS)
def test_every_format_is_reported_alike(name, run_script, tmp_path, monkeypatch):
    write, source, known = FORMATS[name]
    write(tmp_path, monkeypatch)
    keys = ('--obs_keys', 'object,gripper') if name == 'robomimic' else ()
    report = said(source, run_script, *keys)
    assert report['used'] == 'obs_N, acts_N, rews_N, terminal_N' if name == 'npz, numbered' else report['used']
    for word in ('format', 'used', 'not used'):
        assert report.pop(word)
    assert report.pop('episodes') == f'3 ({"2 terminated, 1 truncated" if known else "3 truncated"}); after their last actions: kept'
    returns = [r.sum() for _, _, r in episodes()]
    spread = f'{min(returns):.6g} to {max(returns):.6g}, median {np.median(returns):.6g}'
    assert report.pop('lengths') == f'30 to 50, median 40; returns: {spread}'
    obs, acts = (np.concatenate(x) for x in ([o[:-1] for o, _, _ in episodes()], [a for _, a, _ in episodes()]))
    each = ', '.join(f'{x.min():.4g} to {x.max():.4g}' for x in obs.T)
    assert report.pop('observations') == f'4 numbers, {obs.min():.4g} to {obs.max():.4g} (each: {each})'
    assert report.pop('actions') == f'2 numbers, {acts.min():.4g} to {acts.max():.4g}' and not report.keys() - {'note'}
    written = run_script('import_trajs.py', source, 'out.h5', *keys)
    assert set(written.stderr.splitlines()) >= set(run_script('import_trajs.py', source, '--inspect', *keys).stdout.splitlines())
