"""Demonstrations from elsewhere: they arrive as they were, or are refused in one sentence."""

import os
import pickle
import shlex
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import policyopt
from policyopt.command_line import run_main
from policyopt.errors import UserError
from policyopt.files.importers import ReadOptions, batch_of, import_trajs, read_minari, save_minari
from policyopt.files.trajectory_file import load_trajs

LENGTHS = [3, 5, 2]


def episodes(dims=4):
    """[(obs with one row more than actions, actions, rewards)]."""
    rng = np.random.RandomState(0)
    return [(rng.normal(size=(n + 1, dims)), rng.randint(0, 2, n), rng.rand(n)) for n in LENGTHS]


def stacked(eps):
    obs, acts, rews = zip(*eps, strict=True)
    return np.concatenate([o[:-1] for o in obs]), np.concatenate(acts), np.concatenate(rews), np.concatenate([o[1:] for o in obs])


def check(path, eps, rewards=True):
    trajs = load_trajs(path)
    obs, acts, rews, _ = stacked(eps)
    assert trajs.lengths.tolist() == LENGTHS and trajs.a.stacked.dtype == np.int64
    np.testing.assert_array_equal(trajs.obs.stacked, obs)
    np.testing.assert_array_equal(trajs.a.stacked[:, 0], acts)
    np.testing.assert_array_equal(trajs.r.stacked, rews if rewards else 0 * rews)
    return trajs


def npz_arrays(kind):
    eps = episodes()
    obs, acts, rews, next_obs = stacked(eps)
    ends = np.zeros(len(acts), bool)
    ends[np.cumsum(LENGTHS) - 1] = True
    by_limit = ends.copy()
    by_limit[LENGTHS[0] - 1] = False
    flat = {'obs': obs, 'acts': acts}
    if kind == 'numbered':
        return {f'{name}_{i}': x for i, e in enumerate(eps) for name, x in zip(('obs', 'acts', 'rews'), e, strict=True)}
    if kind == 'padded':
        pad = [[np.resize(x, (9, *x.shape[1:])) for x in e] for e in eps]
        return {name: np.array([p[i] for p in pad]) for i, name in enumerate(('obs', 'acts', 'rews'))} | {'lengths': np.array(LENGTHS)}
    return {
        'flat': flat | {'rews': rews, 'terminal': ends},
        'd4rl': {'observations': obs, 'actions': acts, 'rewards': rews, 'terminals': by_limit, 'timeouts': ends & ~by_limit},
        'transitions': flat | {'next_obs': next_obs, 'dones': by_limit, 'infos': np.array([{}] * len(acts))},
        'trajectories': {
            'obs': np.concatenate([e[0] for e in eps]),
            'acts': acts,
            'rews': rews,
            'indices': np.cumsum(LENGTHS)[:-1],
            'terminal': np.ones(len(eps), bool),
        },
    }[kind]


@pytest.mark.parametrize('kind', ['numbered', 'padded', 'flat', 'd4rl', 'transitions', 'trajectories'])
def test_npz_files_of_every_kind(kind, run_script, tmp_path):
    np.savez(tmp_path / 'in.npz', **npz_arrays(kind))
    done = run_script('import_trajs.py', 'in.npz', 'out.h5', '--env_name', 'CartPole-v1')
    trajs = check(tmp_path / 'out.h5', episodes(), rewards=kind != 'transitions')
    assert trajs.env_name == 'CartPole-v1' and 'out.h5: 3 trajectories, 10 pairs' in done.stdout
    assert ('no rewards' in done.stderr) == (kind == 'transitions') and '--data out.h5' in done.stderr


def test_what_else_says_where_episodes_end_beside_indices_is_noted_or_refused(run_script, tmp_path):
    np.savez(tmp_path / 'in.npz', **npz_arrays('trajectories'), dones=np.arange(10) == 4)
    said = run_script('import_trajs.py', 'in.npz', '--inspect').stdout
    assert 'not used: dones\n' in said and 'note: indices say where episodes begin, so that dones is not used\n' in said
    assert '--ends does not apply' in run_script('import_trajs.py', 'in.npz', '--inspect', '--ends', 'dones', rc=2).stderr


def write_csvs(folder, eps, header='obs0,obs1,obs2,obs3,note,act,reward'):
    folder.mkdir()
    for i, (obs, acts, rews) in zip((2, 10, 11), eps, strict=True):  # 2 comes before 10
        rows = [','.join([*map(repr, o.tolist()), '0', str(a), repr(float(r))]) for o, a, r in zip(obs[:-1], acts, rews, strict=True)]
        (folder / f'episode{i}.csv').write_text('\n'.join([header, *rows]) + '\n')


def test_a_folder_of_csv_files_can_be_learned_from(run_script, tmp_path):
    write_csvs(tmp_path / 'csvs', episodes())
    run_script('import_trajs.py', 'csvs', 'out.h5')
    check(tmp_path / 'out.h5', episodes())
    options = ('--mode', 'bclone', '--env_name', 'CartPole-v1', '--max_iter', 2, '--log', 'run.h5')
    run_script('imitate_mj.py', *options, '--data', 'out.h5')


@pytest.mark.parametrize('kind', ['dones', 'nothing', 'what the last action led to'])
def test_a_folder_of_npz_files_has_an_episode_in_each(kind, run_script, tmp_path):
    (tmp_path / 'in').mkdir()
    for i, (obs, acts, rews) in zip((2, 10, 11), episodes(), strict=True):
        arrays = {'obs': obs if kind.startswith('what') else obs[:-1], 'acts': acts, 'rews': rews}
        said = {} if kind == 'nothing' else {'dones' if kind == 'dones' else 'timeouts': np.arange(len(acts)) == len(acts) - 1}
        np.savez(tmp_path / 'in' / f'episode{i}.npz', **arrays, **said)
    run_script('import_trajs.py', 'in', 'out.h5')
    trajs = check(tmp_path / 'out.h5', episodes())
    assert (trajs.lastobs_B_Do is not None) == kind.startswith('what')


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self):
        return open, ('ran', 'w')


def bad_npz(**changes):
    return lambda folder: np.savez(folder / 'in.npz', **{k: v for k, v in (npz_arrays('flat') | changes).items() if v is not None})


def bad_csv(text):
    def write(folder):
        (folder / 'in').mkdir()
        (folder / 'in' / 'a.csv').write_text(text)

    return write


def npz_folder(*files):
    def write(folder):
        (folder / 'in').mkdir()
        for i, names in enumerate(files):
            np.savez(folder / 'in' / f'{i}.npz', **{n: np.arange(20).reshape(5, 4) if n == 'obs' else np.arange(5) for n in names.split()})

    return write


def edit(path, mark, offset, instead):
    data = bytearray(path.read_bytes())
    at = data.index(mark) + offset
    data[at : at + len(instead)] = instead
    path.write_bytes(data)


BAD = {
    'Python objects': ('in.npz', bad_npz(acts=np.array([Evil()] * 10)), 'acts holds Python objects, which could run code'),
    'a bare pickle': ('in.npz', lambda f: (f / 'in.npz').write_bytes(pickle.dumps(Evil())), 'not a readable .npz file'),
    'a plain array': ('in.npz', lambda f: np.save(open(f / 'in.npz', 'wb'), np.ones(3)), 'not a readable .npz file'),
    'half a file': (
        'in.npz',
        lambda f: (bad_npz()(f), (f / 'in.npz').write_bytes((f / 'in.npz').read_bytes()[:99])),
        'not a readable .npz',
    ),
    'a zip of a later version': ('in.npz', lambda f: (bad_npz()(f), edit(f / 'in.npz', b'PK\x01\x02', 6, b'\x4d')), 'not a readable .npz'),
    'no file': ('in.npz', lambda f: None, 'no such file'),
    'no obs': ('in.npz', bad_npz(obs=None), "has no array 'obs'; it has acts, rews, terminal"),
    'no end': ('in.npz', bad_npz(terminal=None), 'nothing says where an episode ends'),
    'pictures': ('in.npz', bad_npz(obs=np.ones((10, 4, 4, 3))), 'observations of shape'),
    'fewer acts': ('in.npz', bad_npz(acts=np.ones(9)), '10 observations for 9 actions; expected as many'),
    'text': ('in.npz', bad_npz(acts=np.array(['left'] * 10)), 'actions of type <U4; expected numbers'),
    'returns without a mean': ('in.npz', bad_npz(rews=np.full(10, 1e200)), 'the return of trajectory 0 is 3e+200 in size'),
    'NaN': ('in.npz', bad_npz(rews=np.full(10, np.nan)), 'NaN or infinity among the rewards of step 0'),
    'no columns': ('in.npz', bad_npz(obs=np.ones((10, 0))), 'observations of shape'),
    'actions that wrap': ('in.npz', bad_npz(acts=np.full(10, 2**63, np.uint64)), 'actions: 9223372036854775808 is among them'),
    'a folder in a folder': ('in', lambda f: (f / 'in' / 'a.csv').mkdir(parents=True), 'a folder without .npz or .csv files'),
    'no steps': ('in.npz', bad_npz(acts=np.ones(0)), 'at least one step'),
    'words as indices': ('in.npz', bad_npz(indices=np.array(['a'])), 'indices of type <U1; expected whole numbers'),
    'acts without obs': (
        'in.npz',
        bad_npz(obs_0=np.ones((3, 4)), acts_0=np.ones(3), acts_1=np.ones(3)),
        'acts_1 belongs to no episode obs_1',
    ),
    'a number twice': ('in.npz', bad_npz(obs_1=np.ones((3, 4)), acts_1=np.ones(3), obs_01=np.ones((3, 4))), 'obs_01 belongs to no episode'),
    'one axis beside three': (
        'in.npz',
        bad_npz(obs=np.ones((10, 5, 4)), rews=None),
        'acts has shape (10,), obs (10, 5, 4); expected the same episodes and steps',
    ),
    'a scalar': ('in.npz', bad_npz(acts=np.array(3)), '10 observations for 1 actions'),
    'lengths': ('in.npz', lambda f: np.savez(f / 'in.npz', **npz_arrays('padded') | {'lengths': np.array([3, 10, 2])}), '1 to 9'),
    'npz files of other arrays': ('in', npz_folder('obs acts', 'obs acts rews'), '1.npz: differs from 0.npz in rews'),
    'npz and csv': ('in', lambda f: (npz_folder('obs acts')(f), (f / 'in' / 'a.csv').write_text('')), 'holds .npz and .csv files'),
    'no csv': ('in', lambda f: (f / 'in').mkdir(), 'a folder without .npz or .csv files'),
    'a csv without a header': ('in', bad_csv('1,2,3\n4,5,6\n'), "its columns are '1,2,3'; expected obs0"),
    'an empty csv': ('in', bad_csv(''), 'its columns are'),
    'a word in a csv': ('in', bad_csv('obs0,act\n1,0\n1,left\n'), "line 3: 'left' is not a number"),
    'a short line': ('in', bad_csv('obs0,act\n1,0\n1\n'), 'line 3 has 1 fields, the first line 2'),
    'a csv with no step': ('in', bad_csv('obs0,act\n'), '0 observations for 0 actions'),
    'no HDF5 file': ('in.h5', lambda f: None, 'no such file'),
    'a picture': ('in.png', lambda f: None, 'expected an .npz or .csv file or a folder of them, HDF5 of D4RL'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_sources_are_refused_in_one_sentence(case, tmp_path, monkeypatch, capsys):
    source, make, expected = BAD[case]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_main('import_trajs', lambda argv: import_trajs(*argv), [source, 'out.h5']) == 2
    err = capsys.readouterr().err
    assert expected in err and err.startswith('import_trajs: error: in') and err.count('\n') - err.count('\n  ') == 1  # lines of code
    assert not (tmp_path / 'out.h5').exists() and not (tmp_path / 'ran').exists()


ARRAYS = 'obs acts rews lengths indices terminal timeouts next_obs obs_0 acts_0 rews_0 obs_1 acts_1'.split()
ANY_ARRAY = st.builds(
    lambda shape, kind, value: np.full(shape, value).astype(kind),
    st.lists(st.integers(0, 3), max_size=4), st.sampled_from(['f8', 'f8', 'i8', '?', 'c16', 'U3', 'M8[s]']), st.integers(0, 3),
)  # fmt: skip


@hypothesis.seed(0)
@settings(max_examples=300, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(arrays=st.dictionaries(st.sampled_from(ARRAYS), ANY_ARRAY, max_size=6))
def test_arrays_of_any_shape_and_type_are_taken_or_refused(arrays, tmp_path):
    np.savez(tmp_path / 'in.npz', **arrays)
    (tmp_path / 'out.h5').unlink(missing_ok=True)
    try:
        trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    except UserError:
        assert not (tmp_path / 'out.h5').exists()
    else:
        assert np.array_equal(load_trajs(str(tmp_path / 'out.h5')).obs.stacked, trajs.obs.stacked)


def test_what_is_said_of_a_task_is_fit_for_a_terminal_and_a_shell(run_script, tmp_path):
    np.savez(tmp_path / 'in.npz', **npz_arrays('flat'))
    unknown = ['--env_name', 'x\x1b[2J\n']
    assert 'cannot be compared with its task' in run_script('import_trajs.py', 'in.npz', "it's.h5", *unknown, rc=2).stderr
    assert not (tmp_path / "it's.h5").exists()
    done = run_script('import_trajs.py', 'in.npz', "it's.h5", *unknown, '--force')
    assert '(env x\\x1b[2J\\n)\n' in done.stdout and done.stdout.count('\n') == 1
    note, *_, following = done.stderr.splitlines()
    assert note.startswith('note: in.npz: not compared with a task, because ') and '\x1b' not in done.stderr
    assert shlex.split(following.removeprefix('next: '))[3:9] == ['gail', '--env_name', 'x\\x1b[2J\\n', '--data', "it's.h5", '--max_iter']


def test_a_name_that_is_no_utf8_is_stored_escaped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csvs(tmp_path / os.fsdecode(b'caf\xe9'), episodes())
    import_trajs(os.fsdecode(b'caf\xe9'), 'out.h5', os.fsdecode(b'x\xff'), force=True)
    assert check('out.h5', episodes()).env_name == r'x\udcff'


OF_ANOTHER_TASK = {
    'actions of .9': ({'acts': np.full(10, 0.9)}, 'CartPole-v1', 'actions that are decimal numbers from 0.9 to 0.9'),
    'a third action': ({'acts': np.arange(10) % 3}, 'CartPole-v1', "numbers from 0 to 2, but env 'CartPole-v1' takes integers"),
    'fewer observations': ({'obs': np.ones((10, 3))}, 'CartPole-v1', "3 observation dims, but env 'CartPole-v1' has 4"),
    'two actions': ({'acts': np.ones((10, 2))}, 'MountainCarContinuous-v0', '4 observation dims'),
}


@pytest.mark.parametrize('case', OF_ANOTHER_TASK)
def test_data_that_the_named_task_cannot_have_are_refused(case, tmp_path, monkeypatch, capsys):
    arrays, env_name, expected = OF_ANOTHER_TASK[case]
    bad_npz(**arrays)(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_main('import_trajs', lambda argv: import_trajs(*argv), ['in.npz', 'out.h5', env_name]) == 2
    err = capsys.readouterr().err
    assert expected in err and err.startswith('import_trajs: error: in.npz: ') and err.count('\n') == 1
    assert not (tmp_path / 'out.h5').exists()
    import_trajs('in.npz', 'out.h5', 'Elsewhere-v0', force=True)  # a task that is not on this computer
    assert 'note: in.npz: not compared with a task, because ' in capsys.readouterr().err
    assert load_trajs('out.h5').env_name == 'Elsewhere-v0'


def test_finished_data_are_not_overwritten(run_script, tmp_path):
    write_csvs(tmp_path / 'csvs', episodes())
    (tmp_path / 'out.h5').write_text('mine')
    assert 'never overwritten' in run_script('import_trajs.py', 'csvs', 'out.h5', rc=2).stderr
    assert (tmp_path / 'out.h5').read_text() == 'mine'


def test_data_of_another_kind_name_the_command_that_converts_them(run_script, tmp_path):
    np.savez(tmp_path / 'demos.npz', **npz_arrays('flat'))
    (tmp_path / 'csvs').mkdir()
    command = 'converted with: python scripts/import_trajs.py'
    done = run_script('imitate_mj.py', '--mode', 'ga', '--env_name', 'CartPole-v1', '--data', 'demos.npz', rc=2)
    assert f'{command} demos.npz trajs.h5\n' in done.stderr
    for source in (str(tmp_path / 'csvs'), 'cartpole/expert-v0'):
        with pytest.raises(UserError, match=f'{command} {source} trajs.h5'):
            load_trajs(source)


# ---- Minari


@pytest.fixture
def minari(tmp_path, monkeypatch):
    """Minari with its data sets in a folder of this test."""
    package = pytest.importorskip('minari', reason="Minari is not installed (pip install -e '.[minari]')")
    pytest.importorskip('h5py', reason='Minari stores data sets with h5py')
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(tmp_path / 'minari'))
    return package


def record(minari, name, env_id, num=3):
    """Let Minari record episodes of random actions; returns [(observations, actions, rewards, whether it ended in a terminal state)]."""
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    env = gymnasium.make(env_id, max_episode_steps=15)
    buffers = []
    for seed in range(num):
        env.action_space.seed(seed)
        obs, acts, rews, ended = [env.reset(seed=seed)[0]], [], [], [False, False]
        while not any(ended):
            acts.append(env.action_space.sample())
            o, r, *ended, _ = env.step(acts[-1])
            obs.append(o)
            rews.append(float(r))
        last = [False] * (len(rews) - 1)
        buffers.append(EpisodeBuffer(seed, seed, None, np.array(obs), np.array(acts), rews, [*last, ended[0]], [*last, ended[1]], {}))
    minari.create_dataset_from_buffers(name, buffers, env=env)
    return [(b.observations, b.actions, b.rewards, b.terminations[-1]) for b in buffers]


@pytest.mark.parametrize('env_id', ['CartPole-v1', 'MountainCarContinuous-v0'])
def test_what_minari_has_recorded_arrives_and_goes_back(env_id, minari, run_script, tmp_path):
    recorded = record(minari, 'mine/random-v0', env_id)
    done = run_script('import_trajs.py', 'mine/random-v0', 'out.h5')
    trajs = load_trajs(tmp_path / 'out.h5')
    terminal = [end for *_, end in recorded]
    assert f'3 trajectories, {sum(len(a) for _, a, _, _ in recorded)} pairs' in done.stdout and trajs.env_name == env_id
    assert trajs.terminal_B.tolist() == terminal and len(set(terminal)) == (2 if env_id == 'CartPole-v1' else 1)
    for i, (traj, (obs, acts, rews, _)) in enumerate(zip(trajs, recorded, strict=True)):
        np.testing.assert_array_equal([*traj.obs_T_Do, trajs.lastobs_B_Do[i]], obs)
        np.testing.assert_array_equal(traj.a_T_Da, acts.reshape(len(acts), -1))
        np.testing.assert_array_equal(traj.r_T, rews)
    save_minari(trajs, 'mine/back-v0', env_id)
    dataset = minari.load_dataset('mine/back-v0')
    for episode, (obs, acts, rews, end) in zip(dataset.iterate_episodes(), recorded, strict=True):
        np.testing.assert_array_equal(episode.observations, obs)
        np.testing.assert_array_equal(episode.actions, acts)
        np.testing.assert_array_equal(episode.rewards, rews)
        last = [False] * (len(acts) - 1)
        assert episode.terminations.tolist() == [*last, end] and episode.truncations.tolist() == [*last, not end]
    for back in (policyopt.Demonstrations.from_minari('mine/back-v0'), policyopt.Demonstrations.from_minari(dataset)):
        assert np.array_equal(back.lastobs_B_Do, trajs.lastobs_B_Do) and np.array_equal(back.terminal_B, trajs.terminal_B)
        assert np.array_equal(back.obs.stacked, trajs.obs.stacked) and np.array_equal(back.a.stacked, trajs.a.stacked)
        assert back.env_name == env_id and np.array_equal(back.r.stacked, trajs.r.stacked)


def test_an_episode_of_unknown_end_is_truncated_for_minari(minari):
    rng = np.random.default_rng(0)
    demos = policyopt.Demonstrations.from_arrays([rng.normal(size=(5, 4))], [np.ones(5, int)])
    save_minari(demos, 'mine/unknown-v0', 'CartPole-v1')
    (episode,) = minari.load_dataset('mine/unknown-v0').iterate_episodes()
    assert episode.truncations.tolist() == [False] * 4 + [True] and not episode.terminations.any()
    np.testing.assert_array_equal(episode.observations[-1], episode.observations[-2])


def test_minari_faults_are_one_sentence(minari, run_script, tmp_path):
    done = run_script('import_trajs.py', 'mine/nothing-v0', 'out.h5', rc=2)
    assert 'no Minari data set of that name on this computer, and no file; --download fetches it' in done.stderr
    assert done.stderr.count('\n') == 1
    record(minari, 'mine/once-v0', 'CartPole-v1')
    run_script('import_trajs.py', 'mine/once-v0', 'out.h5')
    with pytest.raises(UserError, match='mine/new-v0: 4 observation dims'):
        save_minari(load_trajs(tmp_path / 'out.h5'), 'mine/new-v0', 'MountainCar-v0')
    with pytest.raises(UserError, match='mine/once-v0: Minari does not store this data set: .*already exists'):
        save_minari(load_trajs(tmp_path / 'out.h5'), 'mine/once-v0', 'CartPole-v1')


def test_without_minari_its_extra_is_named(run_script, tmp_path):
    (tmp_path / 'minari.py').write_text('raise ImportError("not here")')
    done = run_script('import_trajs.py', 'cartpole/expert-v0', 'out.h5', env={'PYTHONPATH': str(tmp_path)}, rc=2, fresh=True)
    assert "pip install -e '.[minari]'" in done.stderr


FAULTS = {
    'without network': ('OSError("Name or service\\nnot known")', 'cannot be fetched (Name or service not known); check the name and the'),
    'without its extra': (
        'ImportError("no h5py")',
        'Minari lacks a package to fetch or read it (no h5py); install it: pip',
    ),
    'at no remote': ('ValueError("no version")', 'cannot be fetched (no version)'),
    'of its own kind': ('type("Odd", (Exception,), {})("odd")', 'cannot be fetched (odd)'),
}


@pytest.mark.parametrize('case', FAULTS)
def test_what_download_ends_in_is_one_sentence(case, run_script, tmp_path):
    fault, expected = FAULTS[case]
    (tmp_path / 'minari.py').write_text(f'def load_dataset(name, download):\n    assert download\n    raise {fault}\n')
    done = run_script('import_trajs.py', 'cartpole/expert-v0', 'out.h5', '--download', env={'PYTHONPATH': str(tmp_path)}, rc=2, fresh=True)
    assert f'cartpole/expert-v0: {expected}' in done.stderr and done.stderr.count('\n') == 1


class Dataset:
    """As much of a Minari data set as is read, so that Minari need not be installed."""

    def __init__(self, observations, env_id='FetchReach-v4'):
        self.env_spec, acts = SimpleNamespace(id=env_id), np.ones((5, 2))
        ends = {'rewards': np.ones(5), 'terminations': np.arange(5) > 9, 'truncations': np.arange(5) == 4}
        self.episodes = [SimpleNamespace(id=0, observations=observations, actions=acts, **ends)]

    def iterate_episodes(self):
        return iter(self.episodes)


def test_parts_of_minari_observations_are_chosen_by_name(capsys):
    rng = np.random.default_rng(0)
    goal, arm, image = rng.normal(size=(6, 3)), rng.normal(size=(6, 4)), np.zeros((6, 8, 8, 3))
    parts = {'desired_goal': goal, 'robot': {'arm': arm, 'image': image}, 'speeds': (np.arange(6), np.ones((6, 1)))}
    with pytest.raises(
        UserError, match=r'desired_goal \(3,\), robot/arm \(4,\), robot/image \(8, 8, 3\), speeds/0 \(\), .*--obs_keys desired_goal,'
    ):
        read_minari(Dataset(parts), ReadOptions())
    found = read_minari(Dataset(parts), ReadOptions(obs_keys=('robot/arm', 'desired_goal', 'speeds/0')))
    trajs = batch_of(found.episodes, 'it')
    expected = np.concatenate([arm, goal, np.arange(6)[:, None]], axis=1)
    assert np.array_equal(np.concatenate([trajs.obs.stacked, trajs.lastobs_B_Do]), expected) and trajs.terminal_B.tolist() == [False]
    assert found.unused == ['observations/robot/image', 'observations/speeds/1'] and found.env_name is None
    assert found.notes[0].startswith("recorded in 'FetchReach-v4'; name a task")
    with pytest.raises(UserError, match=r'obs_keys= names .image., which is no vector among them: .*image \(8, 8, 3\)'):
        policyopt.Demonstrations.from_minari(Dataset({'goal': goal, 'image': image}), obs_keys='goal,image')
    both = policyopt.Demonstrations.from_minari(Dataset({'goal': goal, 'arm': arm}), obs_keys=['arm', 'goal'])
    assert np.array_equal(both.obs.stacked, np.concatenate([arm, goal], axis=1)[:-1])
    demos = policyopt.Demonstrations.from_minari(Dataset(goal, 'Reach-v0'))
    assert demos.env_name == 'Reach-v0' and np.array_equal(demos.obs.stacked, goal[:-1])
    with pytest.raises(UserError, match='the observations have one part '):
        read_minari(Dataset(goal), ReadOptions(obs_keys=('goal',)))


def test_parts_of_observations_that_minari_has_recorded(minari, run_script, tmp_path):
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    box = gymnasium.spaces.Box(-9, 9, (3,))
    spaces = {'observation_space': gymnasium.spaces.Dict({'goal': box, 'arm': box}), 'action_space': gymnasium.spaces.Discrete(2)}
    goal, arm = np.random.default_rng(0).normal(size=(2, 6, 3)).clip(-9, 9).astype('f4')
    ends = [False] * 4 + [True], [False] * 5
    buffer = EpisodeBuffer(0, None, None, {'goal': goal, 'arm': arm}, np.array([0, 1, 0, 1, 1]), [1.0] * 5, *ends, {})
    minari.create_dataset_from_buffers('mine/parts-v0', [buffer], **spaces)
    assert '--obs_keys arm,goal' in run_script('import_trajs.py', 'mine/parts-v0', 'out.h5', rc=2).stderr
    run_script('import_trajs.py', 'mine/parts-v0', 'out.h5', '--obs_keys', 'goal,arm')
    trajs = load_trajs(tmp_path / 'out.h5')
    assert np.array_equal(trajs.obs.stacked, np.concatenate([goal, arm], axis=1)[:-1]) and trajs.terminal_B.tolist() == [True]
