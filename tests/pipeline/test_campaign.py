"""A small campaign of 24 real runs, disturbed in every way, gives the results of one that was left alone.

Slow: run with `python -m pytest -m slow tests/pipeline/test_campaign.py`.
"""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tables
from pipeline_tools import CARTPOLE, im_pipeline, spec_text, started_pipeline, wait_until

from policyopt.files.results_file import read_results

pytestmark = pytest.mark.slow

OPTIONS = '--env {env} --data {dataset} --limit_trajs {num_trajs} --data_subsamp_freq {data_subsamp_freq} --seed {seed} --log {out}'
MOUNTAINCAR = {
    'name': 'mountaincar', 'env': 'MountainCar-v0', 'policy': 'expert_policies/classic/MountainCar-v0.h5/snapshots/last',
    'cuts_off_on_success': True, 'data_subsamp_freq': 5,
}  # fmt: skip
ALGORITHMS = {
    'bclone': f'python scripts/imitate_mj.py --mode bclone --max_iter 2001 --bclone_eval_freq 100 {OPTIONS}',
    'ga': f'python scripts/imitate_mj.py --mode ga --max_iter 31 --min_total_sa 1500 --sim_batch_size 1 --save_freq 5 {OPTIONS}',
}
SLURM = {'partition': 'main', 'time': '0-00:20:00', 'mem': '500M', 'cpus': 1}
TIMES = ('tsamp', 'tadv', 'tstep', 'ttotal')


def make_spec(folder):
    """spec.yaml with its storage below the folder, expert data sampled; returns (spec path, checkpoint folder)."""
    path = Path(folder) / 'spec.yaml'
    options = {'storagedir': str(Path(folder) / 'store'), 'eval_num_trajs': 5, 'slurm': SLURM}
    training = {'full_dataset_num_trajs': 4, 'dataset_num_trajs': [2, 4], 'deterministic_expert': False, 'runs': 3, 'seed': 7}
    path.write_text(spec_text(ALGORITHMS, [CARTPOLE, MOUNTAINCAR], options, **training))
    im_pipeline(path, '0')
    return path, Path(folder) / 'store' / 'checkpoints'


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """The checkpoint folder of a campaign that was left alone."""
    path, folder = make_spec(tmp_path_factory.mktemp('undisturbed'))
    im_pipeline(path, '1', '-q')
    im_pipeline(path, '2', '-q')
    return folder


def check_equal(folder, undisturbed):
    """Assert that results and runs are those of the undisturbed campaign, time columns aside."""
    ours, theirs = (read_results(str(f / 'results.h5')).rows for f in (folder, undisturbed))
    assert len(ours) == len(theirs) == 24
    for a, b in zip(ours, theirs, strict=True):
        assert (a.alg, a.task, a.num_trajs, a.run, a.seed, a.snapshot) == (b.alg, b.task, b.num_trajs, b.run, b.seed, b.snapshot)
        np.testing.assert_array_equal(a.alg_traj_returns, b.alg_traj_returns)
        np.testing.assert_array_equal(a.alg_traj_lengths, b.alg_traj_lengths)
    names = sorted(p.name for p in undisturbed.glob('alg=*.h5'))
    assert sorted(p.name for p in folder.glob('alg=*.h5')) == names and len(names) == 24
    for name in names:
        with tables.open_file(folder / name) as a, tables.open_file(undisturbed / name) as b:
            for column in set(b.root.log.colnames) - set(TIMES):
                np.testing.assert_array_equal(a.root.log.col(column), b.root.log.col(column))
            for node in b.walk_nodes('/snapshots', 'Array'):
                np.testing.assert_array_equal(a.get_node(node._v_pathname).read(), node.read())


def finished(folder):
    """{finished run: (modification time, start time stored in it)}."""
    found = {}
    for path in folder.glob('alg=*.h5'):
        with tables.open_file(path) as h5:
            found[path.name] = path.stat().st_mtime_ns, str(h5.root._v_attrs['start_time'])
    return found


def children(pid):
    """Process ids below a process."""
    listed = subprocess.run(['ps', '-e', '-o', 'pid=,ppid='], capture_output=True, text=True, check=True).stdout.split()
    parent = {int(p): int(pp) for p, pp in zip(listed[::2], listed[1::2], strict=True)}
    return [p for p in parent if p != pid and pid in ancestors(p, parent)]


def ancestors(pid, parent):
    while pid in parent:
        pid = parent[pid]
        yield pid


def test_fifty_random_kills_change_nothing(tmp_path, undisturbed):
    path, folder = make_spec(tmp_path)
    rng, done = random.Random(0), {}
    for kill in range(50):
        stage = 'all' if kill else '1'
        with started_pipeline(path, stage, '--resume', '-k', '-q', '-j', 2) as pipeline:
            time.sleep(rng.uniform(0.5, 4.0))
            below = children(pipeline.pid)
            victims = rng.choice([[pipeline.pid], below[-1:], [*below, pipeline.pid]])
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it has just ended by itself
        now = finished(folder)
        assert all(now[name] == stamp for name, stamp in done.items()), 'a finished run was done again'
        done = now
    im_pipeline(path, 'all', '--resume', '-q')
    assert all(finished(folder)[name] == stamp for name, stamp in done.items())
    check_equal(folder, undisturbed)


def test_two_pipelines_at_once_do_every_run_once(tmp_path, undisturbed):
    path, folder = make_spec(tmp_path)
    with started_pipeline(path, '1', '--resume', '-q', '-j', 1), started_pipeline(path, '1', '--resume', '-q', '-j', 1):
        wait_until(lambda: len(finished(folder)) == 24, 900)
        stamps = finished(folder)
        time.sleep(2)
    assert finished(folder) == stamps
    im_pipeline(path, '2', '-q')
    check_equal(folder, undisturbed)


@pytest.mark.slurm
def test_slurm_with_a_cancelled_and_resubmitted_task_gives_the_same(tmp_path, undisturbed, slurm):
    path, folder = make_spec(tmp_path)
    im_pipeline(path, '1', '-e', 'slurm', '-y', env=slurm)

    def a_task_runs():
        listed = subprocess.run(['squeue', '-h', '-t', 'running', '-o', '%i'], env=slurm, capture_output=True, text=True).stdout.split()
        return listed if list(folder.glob('alg=*.part')) else None

    task = wait_until(a_task_runs, 120)[0]
    subprocess.run(['scancel', task], env=slurm, check=True)
    wait_until(lambda: not subprocess.run(['squeue', '-h'], env=slurm, capture_output=True, text=True).stdout.strip(), 900)
    assert len(finished(folder)) == 23
    im_pipeline(path, '1', '-e', 'slurm', '-y', '--wait', '--resume', env=slurm)
    im_pipeline(path, '2', '-q')
    check_equal(folder, undisturbed)
