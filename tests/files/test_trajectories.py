"""Ragged arrays, batches of trajectories, and their files: round trips, and what is said about bad files."""

import numpy as np
import pytest
import tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policyopt.errors import UserError
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.trajectories import RaggedArray, TrajBatch, subsampled_rows

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=7)


def batch_of(lengths, seed=0, obs_dim=3, a_dim=1, finite=True):
    rng = np.random.RandomState(seed)
    num = sum(lengths)
    a = rng.randint(0, 4, size=(num, 1)) if finite else rng.randn(num, a_dim)
    return TrajBatch(rng.randn(num, obs_dim), rng.randn(num, 2), a, rng.randn(num), lengths)


def assert_same(loaded, saved):
    assert loaded.lengths.tolist() == saved.lengths.tolist()
    for got, want in ((loaded.obs, saved.obs), (loaded.a, saved.a), (loaded.r, saved.r), (loaded.time, saved.time)):
        np.testing.assert_array_equal(got.stacked, want.stacked)
        assert got.stacked.dtype == want.stacked.dtype


# ---- in memory


@given(lengths=LENGTHS, dims=st.integers(0, 3), fill=st.floats(-5, 5))
def test_a_ragged_array_is_its_parts_padded_and_back(lengths, dims, fill):
    rng = np.random.RandomState(len(lengths))
    parts = [rng.randn(n, dims) for n in lengths]
    ragged = RaggedArray(np.concatenate(parts), lengths)
    assert len(ragged) == len(lengths) and ragged.lengths.tolist() == lengths
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(ragged[i], part)
    padded = ragged.padded(fill)
    assert padded.shape == (len(lengths), max(lengths), dims)
    for row, part in zip(padded, parts, strict=True):
        np.testing.assert_array_equal(row[: len(part)], part)
        assert (row[len(part) :] == fill).all()
    np.testing.assert_array_equal(padded[ragged.mask_B_T], ragged.stacked)
    assert ragged.mask_B_T.sum(axis=1).tolist() == lengths


@given(lengths=LENGTHS, finite=st.booleans())
def test_a_batch_is_its_trajectories(lengths, finite):
    batch = batch_of(lengths, finite=finite, a_dim=2)
    again = TrajBatch.from_trajs([batch[i] for i in range(len(batch))])
    assert_same(again, batch)
    np.testing.assert_array_equal(again.adist.stacked, batch.adist.stacked)
    np.testing.assert_array_equal(batch.time.stacked, np.concatenate([np.arange(n, dtype=float) for n in lengths]))
    np.testing.assert_allclose(batch.returns, [batch.r[i].sum() for i in range(len(batch))])
    for i, n in enumerate(lengths):
        traj = batch[i]
        assert len(traj) == len(traj.obs_T_Do) == len(traj.obsfeat_T_Df) == len(traj.a_T_Da) == len(traj.adist_T_Pa) == n


def test_an_element_is_a_view_and_like_keeps_the_lengths():
    ragged = RaggedArray(np.zeros(5), [2, 3])
    ragged[1][:] = 7
    assert ragged.stacked.tolist() == [0, 0, 7, 7, 7]
    assert ragged.with_rows(np.arange(5))[1].tolist() == [2, 3, 4]


def test_shapes_that_disagree_are_named():
    with pytest.raises(UserError, match='5 rows cannot have lengths that sum to 4'):
        RaggedArray(np.zeros(5), [2, 2])
    with pytest.raises(UserError, match=r'a_N_Da has shape \(4, 1\), but N is 5 in obs_N_Do'):
        TrajBatch(np.zeros((5, 3)), np.zeros((5, 2)), np.zeros((4, 1)), np.zeros(5), [5])
    with pytest.raises(UserError, match='r_N has shape'):
        TrajBatch(np.zeros((5, 3)), np.zeros((5, 2)), np.zeros((5, 1)), np.zeros((5, 1)), [5])


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), freq=st.integers(1, 12))
def test_subsampling_keeps_every_freq_th_step_with_its_true_time(lengths, freq):
    batch = batch_of(lengths)
    start_B = np.random.RandomState(0).randint(0, freq, size=len(lengths))
    kept = [(i, t) for i, n in enumerate(lengths) for t in range(start_B[i], n, freq)]
    if not kept:
        with pytest.raises(UserError, match='keeps no pair'):
            subsampled_rows(batch, freq)
        return
    rows_N, starts = subsampled_rows(batch, freq)
    obs_N_Do, a_N_Da, time_N = (x.stacked[rows_N] for x in (batch.obs, batch.a, batch.time))
    np.testing.assert_array_equal(starts, start_B)
    np.testing.assert_array_equal(obs_N_Do, [batch.obs[i][t] for i, t in kept])
    np.testing.assert_array_equal(a_N_Da, [batch.a[i][t] for i, t in kept])
    np.testing.assert_array_equal(time_N, [t for _, t in kept])


@pytest.mark.parametrize('freq', [0, -2])
def test_a_senseless_frequency_is_refused(freq):
    with pytest.raises(UserError, match=f'data_subsamp_freq is {freq}'):
        subsampled_rows(batch_of([3]), freq)


# ---- files


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=LENGTHS, finite=st.booleans(), seed=st.integers(0, 99))
def test_what_is_saved_is_loaded(tmp_path, lengths, finite, seed):
    path = tmp_path / 'trajs.h5'
    path.unlink(missing_ok=True)
    batch = batch_of(lengths, seed, finite=finite, a_dim=2)
    save_trajs(path, batch, {'env': 'CartPole-v0'})
    loaded = load_trajs(path)
    assert_same(loaded, batch)
    assert loaded.adist.stacked.shape == (sum(lengths), 0)
    assert loaded.a.stacked.dtype == (np.int64 if finite else np.float64)
    first = load_trajs(path, limit_trajs=1)
    np.testing.assert_array_equal(first.obs.stacked, batch.obs[0])


def test_the_file_has_the_layout_of_2016(tmp_path):
    path = tmp_path / 'trajs.h5'
    batch = batch_of([2, 4, 1])
    save_trajs(path, batch, {'env': 'CartPole-v0', 'seed': 3})
    with tables.open_file(path) as h5:
        nodes = {n.name: n for n in h5.root}
        assert sorted(nodes) == ['a_B_T_Da', 'len_B', 'obs_B_T_Do', 'r_B_T']
        assert all(n.filters.complib == 'zlib' and n.filters.complevel > 0 for n in nodes.values())  # HDF5's gzip
        assert nodes['len_B'].dtype == np.int32 and nodes['a_B_T_Da'].dtype == np.int64 and nodes['obs_B_T_Do'].dtype == np.float64
        assert nodes['len_B'].read().tolist() == [2, 4, 1]
        for name in ('obs_B_T_Do', 'a_B_T_Da', 'r_B_T'):
            x = nodes[name].read()
            assert x.shape[:2] == (3, 4) and not x[0, 2:].any() and not x[2, 1:].any(), name
        np.testing.assert_array_equal(nodes['obs_B_T_Do'].read()[0, :2], batch.obs[0])
        assert str(h5.root._v_attrs['env']) == 'CartPole-v0' and str(h5.root._v_attrs['seed']) == '3'


def test_smaller_types_of_other_programs_become_ours(tmp_path):
    path = tmp_path / 'trajs.h5'
    write(path, obs_B_T_Do=np.ones((2, 3, 4), np.float32), a_B_T_Da=np.ones((2, 3, 1), np.uint8), len_B=np.array([3, 2], np.int64))
    loaded = load_trajs(path)
    assert (loaded.obs.stacked.dtype, loaded.a.stacked.dtype, loaded.r.stacked.dtype) == (np.float64, np.int64, np.float64)


# ---- refusals


def good():
    return {
        'obs_B_T_Do': np.ones((2, 3, 4)),
        'a_B_T_Da': np.ones((2, 3, 1), dtype=np.int64),
        'r_B_T': np.ones((2, 3)),
        'len_B': np.array([3, 2], dtype=np.int32),
    }


def write(path, **changes):
    """A trajectory file with some datasets exchanged; None leaves one out, 'group' makes it a folder."""
    with tables.open_file(path, 'w') as h5:
        for name, array in (good() | changes).items():
            if isinstance(array, str):
                h5.create_group('/', name)
            elif array is not None:
                h5.create_array('/', name, obj=array)


def with_value(name, index, value):
    array = good()[name].astype(float)
    array[index] = value
    return {name: array}


BAD = {
    'no observations': ({'obs_B_T_Do': None}, 'lacks the dataset obs_B_T_Do'),
    'no lengths': ({'len_B': None}, 'lacks the dataset len_B'),
    'a group in place of an array': ({'r_B_T': 'group'}, 'r_B_T is not an array of numbers'),
    'integers that wrap': ({'a_B_T_Da': np.full((2, 3, 1), 2**63, np.uint64)}, 'trajectory 0: actions: 9223372036854775808 is among them'),
    'text in place of numbers': ({'a_B_T_Da': np.full((2, 3, 1), b'left')}, 'a_B_T_Da is not an array of numbers'),
    'too few axes': ({'obs_B_T_Do': np.ones((2, 3))}, 'obs_B_T_Do has shape (2, 3), but its name promises 3 axes'),
    'another number of steps': ({'a_B_T_Da': np.ones((2, 4, 1), int)}, 'a_B_T_Da has shape (2, 4, 1), but T is 3 in obs_B_T_Do'),
    'another number of trajectories': ({'len_B': np.array([3, 2, 1])}, 'len_B has shape (3,), but B is 2 in obs_B_T_Do'),
    'no trajectory': ({k: v[:0] for k, v in good().items()}, 'holds no trajectory'),
    'an empty trajectory': ({'len_B': np.array([3, 0])}, 'len_B[1] is 0'),
    'a negative length': ({'len_B': np.array([-1, 2])}, 'len_B[0] is -1'),
    'a length beyond the data': ({'len_B': np.array([3, 4])}, 'len_B[1] is 4; lengths must be whole, 1 to 3'),
    'a broken length': ({'len_B': np.array([3, 1.5])}, 'len_B[1] is 1.5'),
    'a length that is NaN': ({'len_B': np.array([np.nan, 2])}, 'len_B[0] is nan'),
    'NaN observations': (with_value('obs_B_T_Do', (1, 1, 2), np.nan), 'trajectory 1: NaN or infinity among the observations of step 1'),
    'infinite rewards': (with_value('r_B_T', (0, 2), np.inf), 'trajectory 0: NaN or infinity among the rewards of step 2'),
    'NaN actions': (with_value('a_B_T_Da', (0, 0, 0), np.nan), 'trajectory 0: NaN or infinity among the actions of step 0'),
}


@pytest.mark.parametrize('case', BAD)
def test_a_bad_file_is_one_sentence_with_its_name(case, tmp_path):
    changes, expected = BAD[case]
    path = tmp_path / 'trajs.h5'
    write(path, **changes)
    with pytest.raises(UserError) as e:
        load_trajs(path)
    assert expected in str(e.value) and str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)


def test_values_beyond_the_end_of_a_trajectory_do_not_matter(tmp_path):
    path = tmp_path / 'trajs.h5'
    write(path, **with_value('obs_B_T_Do', (1, 2), np.nan))
    assert np.isfinite(load_trajs(path).obs.stacked).all()


@pytest.mark.parametrize('limit', [0, -1, 3])
def test_a_limit_outside_the_dataset_is_refused(tmp_path, limit):
    path = tmp_path / 'trajs.h5'
    write(path)
    with pytest.raises(UserError, match=f'holds 2 trajectories, but limit_trajs is {limit}; give 1 to 2'):
        load_trajs(path, limit)
    assert len(load_trajs(path, 2)) == 2


def test_files_that_are_missing_truncated_or_no_hdf5_are_named(tmp_path):
    path = tmp_path / 'trajs.h5'
    save_trajs(path, batch_of([5, 5, 5]), {})
    whole = path.read_bytes()
    for name, content, expected in (
        ('short.h5', whole[: len(whole) // 2], 'not a readable HDF5 file'),
        ('empty.h5', b'', 'not a readable HDF5 file'),
        ('text.h5', b'obs,a,r\n1,2,3\n', 'not a readable HDF5 file'),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=expected):
            load_trajs(tmp_path / name)
    with pytest.raises(UserError, match='no such file'):
        load_trajs(tmp_path / 'missing.h5')
    with pytest.raises(UserError, match='not a trajectory file .*import_trajs.py'):
        load_trajs(tmp_path)


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    """Thirty single bytes all over the file: refused, or every number read is the one that was written."""
    path, bad = tmp_path / 'trajs.h5', tmp_path / 'bad.h5'
    batch = batch_of([40, 30], obs_dim=4)
    save_trajs(path, batch, {'env': 'CartPole-v0'})
    whole, refused = path.read_bytes(), 0
    for at in np.random.RandomState(0).choice(len(whole), 30, replace=False):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert_same(load_trajs(bad), batch)
        except UserError:
            refused += 1
    assert refused > 0


def test_ends_are_said_by_0_and_1(tmp_path):
    trajs, path = batch_of([2, 3]), str(tmp_path / 't.h5')
    trajs.lastobs_B_Do, trajs.terminal_B = np.ones((2, 3)), np.array([False, True])
    save_trajs(path, trajs, {})
    with tables.open_file(path, 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        h5.remove_node('/terminal_B')
        h5.create_array('/', 'terminal_B', obj=np.array([0, 7]))
    with pytest.raises(UserError, match='t.h5: terminal_B holds other things than 0 and 1'):
        load_trajs(path)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'trajs.h5'
    save_trajs(path, batch_of([2]), {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_trajs(path, batch_of([3]), {'not for JSON': object()})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['trajs.h5']
