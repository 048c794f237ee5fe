"""Nothing lost and nothing silently wrong: runs killed at any moment, files with a flipped byte or cut short, a full disk.

Damaged files are read in a process of its own, because the HDF5 library can take its process down with it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tables
from command_tools import REPO, run_command, script_env
from training_tools import RUNS, TINY_NET, differences

from policyopt.errors import UserError
from policyopt.files import hdf5, results_file
from policyopt.files.training_log import TrainingLog, read_log, read_snapshot, snapshot_names
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.trajectories import TrajBatch

GA = [sys.executable, '-u', str(REPO / 'scripts' / RUNS['ga'][0]), '--mode', 'ga', '--data', 'trajs.h5', '--data_subsamp_freq', '2']
GA += ['--env_name', 'CartPole-v0', '--policy_hidden_spec', TINY_NET, '--seed', '3', '--min_total_sa', '150', '--sim_batch_size', '1']
GA += ['--max_iter', '61', '--save_freq', '5']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with expert trajectories and undisturbed.h5."""
    path = tmp_path_factory.mktemp('faults')
    rng, lengths = np.random.RandomState(0), [40, 25, 33]
    num = sum(lengths)
    trajs = TrajBatch(rng.normal(size=(num, 4)), np.zeros((num, 0)), rng.randint(0, 2, (num, 1)), np.ones(num), lengths)
    save_trajs(str(path / 'trajs.h5'), trajs, {'env_name': 'CartPole-v0'})
    train(path, '--log', 'undisturbed.h5')
    return path


def train(cwd, *options, rc=0):
    return run_command(*GA[2:], *options, cwd=cwd, rc=rc)


# ---- killed at any moment


def kill_and_resume(folder, log, num_kills, seed):
    """Kill a run that many times, each time some milliseconds after it has begun, or printed the row of, a random iteration."""
    rng = np.random.RandomState(seed)
    targets, delays = sorted(rng.randint(-3, 46, num_kills)), rng.uniform(0, 0.06, num_kills)
    for target, delay in zip(targets, delays, strict=True):
        with subprocess.Popen([*GA, '--log', log, '--resume'], cwd=folder, env=script_env(), stdout=subprocess.PIPE, text=True) as process:
            if target < 0:
                delay *= 40  # while it imports, or restores
            else:
                next(line for line in process.stdout if line.split()[0].isdigit() and int(line.split()[0]) >= target)
            time.sleep(delay)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not (folder / log).exists()
        if (folder / f'{log}.part').exists():
            assert len(read_log(folder / f'{log}.part')) % 5 == 1
    train(folder, '--log', log, '--resume')
    assert differences(folder / 'undisturbed.h5', folder / log) == []


@pytest.mark.parametrize('num_kills', [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_ends_in_the_file_of_an_undisturbed_run(num_kills, folder):
    kill_and_resume(folder, f'killed{num_kills}.h5', num_kills, seed=num_kills)
    for left in folder.glob(f'killed{num_kills}.h5.*'):  # what a kill in the middle of a save can leave
        assert left.suffix == '.tmp'


# ---- flipped bytes, cut files


def small_files(folder):
    """One file of each kind, as the product writes them; {kind: path}."""
    rng, lengths = np.random.RandomState(0), [7, 5]
    paths = {kind: str(folder / f'{kind}.h5') for kind in ('trajectories', 'run', 'results', 'policy')}
    trajs = TrajBatch(rng.normal(size=(12, 4)), np.zeros((12, 0)), rng.randint(0, 2, (12, 1)), rng.rand(12), lengths)
    save_trajs(paths['trajectories'], trajs, {'env_name': 'CartPole-v0', 'seed': 3})
    for kind in ('run', 'policy'):
        log = TrainingLog(paths[kind], {'args': json.dumps({'env_name': 'CartPole-v0', 'lam': 0.97}), 'seed': 7, 'data_digest': 'abc'})
        for i in (0, 20, 40):
            log.append([('iter', i, int), ('loss', 0.5 + i, float), ('rkl', None, float)])
            log.add_snapshot(i, {'/Policy/out/W': rng.normal(size=(3, 2)), '/Policy/out/b': rng.normal(size=(1, 2))})
            log.save({'/model/W': rng.normal(size=30), '/rng/keys': rng.randint(0, 2**32, 624, dtype=np.uint32)})
        paths['checkpoint'] = str(folder / 'checkpoint.h5.part')
        os.replace(log.part_path, paths['checkpoint'])
        log.finish({'end_time': 'now'})
    log.keep_last()
    row = results_file.ResultRow('ga', 'x', 4, 0, 7, 'iter0000300', 0, rng.rand(3), np.full(3, 2), rng.rand(5), np.arange(5))
    task = results_file.TaskRow('x', 'Env-v0', '', rng.rand(3), np.full(3, 2), rng.rand(5), np.ones(5, int))
    results_file.write_results(paths['results'], [row, row], [task], {'run_name': 'r', 'versions': {'numpy': '2'}})
    return paths


def values(kind, path):
    """Everything that the product's readers of this kind of file return, as {name: array}."""
    if kind == 'trajectories':
        trajs = load_trajs(path)
        return {'obs': trajs.obs.stacked, 'a': trajs.a.stacked, 'r': trajs.r.stacked, 'lengths': trajs.lengths}
    if kind == 'checkpoint':
        log = TrainingLog(path.removesuffix('.part'), {})
        state = log.restore(log.part_path)
        found = state | {'rows': np.array(log.rows, dtype=log.columns), 'attrs': np.array(json.dumps(log.attrs, sort_keys=True))}
        return found | {f'{name}{k}': v for name, variables in log.snapshots.items() for k, v in variables.items()}
    if kind == 'results':
        read = results_file.read_results(path)
        rows = [(f'{i}.{k}', np.array(v)) for i, row in enumerate([*read.rows, *read.tasks]) for k, v in vars(row).items()]
        return dict(rows) | {k: np.array(read.attrs[k]) for k in ('run_name', 'versions')}
    found = {'log': read_log(path)}
    for name in snapshot_names(path):
        snapshot = read_snapshot(f'{path}/snapshots/{name}')
        assert snapshot.status == 'verified'
        found |= {f'{name}{k}': v for k, v in snapshot.variables.items()} | {'args': np.array(json.dumps(snapshot.args))}
    return found


def outcome(kind, path, expected):
    """'unchanged', 'refused', or what is not allowed: 'changed' or the type of another exception."""
    try:
        found = values(kind, path)
    except UserError as e:
        return 'refused' if str(e).startswith(path) and '\n' not in str(e) else f'refused in a bad sentence: {e}'
    except Exception as e:
        return f'{type(e).__name__}: {e}'
    same = found.keys() == expected.keys() and all(
        v.dtype == expected[k].dtype and v.shape == expected[k].shape and v.tobytes() == expected[k].tobytes() for k, v in found.items()
    )
    return 'unchanged' if same else 'changed'


def main(kind, whole_path, changes):
    """Read copies of a file with each of the changes [(offset, XOR)] or [(length, None)]; prints one outcome a line."""
    expected, suffix = values(kind, whole_path), '.h5.part' if kind == 'checkpoint' else '.h5'
    with open(whole_path, 'rb') as f:
        whole = f.read()
    for i, (at, xor) in enumerate(changes):
        bad = f'{whole_path}.bad{i}{suffix}'
        with open(bad, 'wb') as f:
            f.write(whole[:at] if xor is None else whole[:at] + bytes([whole[at] ^ xor]) + whole[at + 1 :])
        print(outcome(kind, bad, expected), flush=True)
        os.unlink(bad)


def outcomes(kind, path, changes):
    command = [sys.executable, __file__, kind, path, json.dumps(changes)]
    path = os.pathsep.join([str(REPO), str(REPO / 'tests'), os.path.dirname(__file__)])
    done = subprocess.run(command, env=script_env(PYTHONPATH=path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f'the reader ended with {done.returncode}\n{done.stdout}\n{done.stderr}'
    assert not done.stderr, 'the reader spoke of something else than its error'
    found = done.stdout.splitlines()
    assert len(found) == len(changes)
    return found


def random_flips(size, num, seed):
    rng = np.random.RandomState(seed)
    return [[int(at), int(rng.randint(1, 256))] for at in rng.choice(size, num, replace=False)]


KINDS = ['trajectories', 'run', 'checkpoint', 'results', 'policy']


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return small_files(tmp_path_factory.mktemp('files'))


@pytest.mark.parametrize('kind', KINDS)
def test_a_flipped_byte_or_a_cut_is_refused_or_changes_no_value(kind, files):
    """Flips at 30 places anywhere, 10 in the checksum at the end, 10 in the first kilobyte; cuts to 10 lengths and at the seal."""
    size = os.path.getsize(files[kind])
    flips = random_flips(size, 30, seed=1)
    flips += [[size - hdf5.SEAL_SIZE + at, xor] for at, xor in random_flips(hdf5.SEAL_SIZE, 10, seed=2)]
    flips += random_flips(1000, 10, seed=3)
    cuts = [[int(n), None] for n in np.random.RandomState(4).randint(0, size, 10)]
    cuts += [[0, None], [size - hdf5.SEAL_SIZE - 1, None], [size - hdf5.SEAL_SIZE, None], [size - 1, None]]
    found = outcomes(kind, files[kind], flips + cuts)
    assert set(found) <= {'refused', 'unchanged'}, [
        x for x in zip(flips + cuts, found, strict=True) if x[1] not in ('refused', 'unchanged')
    ]
    assert found[:30].count('refused') >= 29 and found[40:50] == ['refused'] * 10  # only a flip in the seal itself can be harmless
    assert found[50:61].count('refused') >= 10


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_thousand_flipped_bytes_are_refused_or_change_no_value(kind, files):
    found = outcomes(kind, files[kind], random_flips(os.path.getsize(files[kind]), 1000, seed=5))
    assert set(found) <= {'refused', 'unchanged'} and found.count('refused') >= 950


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_that_another_program_has_rewritten_is_still_vouched_for(kind, files, tmp_path):
    """Opening it for writing cuts the seal off; the digest of the contents remains, and tells a change from none."""
    copy = str(tmp_path / os.path.basename(files[kind]))
    shutil.copy(files[kind], copy)
    assert hdf5.read_seal(copy)[0] is True
    with tables.open_file(copy, 'a') as h5:
        h5.flush()
    expected = values(kind, files[kind])
    assert hdf5.read_seal(copy)[0] is None and outcome(kind, copy, expected) == 'unchanged'
    with tables.open_file(copy, 'a') as h5:
        node = next(n for n in h5.walk_nodes('/', 'Array') if n.dtype.kind == 'f') if kind != 'results' else h5.root.results
        change(node)
    assert hdf5.read_seal(copy)[0] is None
    with pytest.raises(UserError, match='damaged: its contents do not match'):
        values(kind, copy)


def change(node):
    """The least change of one number."""
    if isinstance(node, tables.Table):
        column = node.cols.alg_traj_returns[:]
        column[1, 2] = np.nextafter(column[1, 2], 9)
        node.cols.alg_traj_returns[:] = column
    else:
        data = node.read()
        data.flat[0] = np.nextafter(data.flat[0], 9)
        node[...] = data


# ---- a full disk


@pytest.mark.slow
def test_a_run_on_a_disk_that_fills_up_stops_with_one_sentence_and_resume_completes_it(folder, small_disk):
    shutil.copy(folder / 'trajs.h5', small_disk)
    ballast, part = small_disk / 'ballast', small_disk / 'run.h5.part'
    with subprocess.Popen(
        [*GA, '--log', 'run.h5'], cwd=small_disk, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        next(line for line in process.stdout if line.split()[0] == '12')  # three times saved
        with open(ballast, 'wb', buffering=0) as f, pytest.raises(OSError, match='No space left'):
            while True:
                f.write(bytes(4096))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(err.splitlines()) == 1 and err.startswith('imitate_mj: error: ') and 'No space left on device' in err and '--resume' in err
    assert sorted(p.name for p in small_disk.iterdir()) == ['ballast', 'run.h5.part', 'trajs.h5']
    assert hdf5.read_seal(part)[0] and len(read_log(part)) % 5 == 1 and len(read_log(part)) >= 11
    assert 'No space left' in train(small_disk, '--log', 'run.h5', '--resume', rc=1).stderr
    ballast.unlink()
    train(small_disk, '--log', 'run.h5', '--resume')
    assert differences(folder / 'undisturbed.h5', small_disk / 'run.h5') == []


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
