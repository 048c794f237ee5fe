"""Locks: whoever cannot be seen is not taken for dead, an expired lease is taken over by one, and several machines share the runs."""

import dataclasses
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from pipeline_tools import IM_PIPELINE, REPO, SIGNATURE, environment, im_pipeline, ready_spec, started_pipeline, starts, wait_until

from policyopt.errors import RunFailed
from policyopt.pipeline import locks

NAMESPACES = pytest.mark.skipif(
    sys.platform != 'linux' or os.getuid() != 0 or shutil.which('unshare') is None, reason='makes namespaces, which needs Linux and root'
)
HOLD = 'import sys, time; from policyopt.pipeline import locks; locks.acquire(sys.argv[1]); print("held", flush=True); time.sleep(60)'
TRY = """
import sys
from policyopt.pipeline import locks
try:
    locks.acquire(sys.argv[1])
    print('taken')
except locks.Held as e:
    print(e.state)
"""


def me(**change):
    """What a lock of this process says, with some words changed."""
    mine = locks.Holder(
        platform.node(), os.getpid(), locks.process_start(os.getpid()), locks._boot_id(), '2026-01-01T00:00:00', '', 0,
        locks.pid_namespace(), locks._machine_id(),
    )  # fmt: skip
    return json.dumps(dataclasses.asdict(mine) | change)


def dead():
    process = subprocess.Popen(['true'])
    process.wait()
    return process.pid


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'locks').mkdir()
    return tmp_path / 'locks' / 'x.lock'


ODD = {
    **{f'{key} is {value!r:.20}': me(**{key: value}) for key, value in {
        'host': 5, 'since': 1767225600.5, 'start': 17, 'boot': None, 'job': ['1'], 'namespace': 0, 'machine': {}, 'lease': 'long',
    }.items()},
    **{f'pid is {value!r:.20}': me(pid=value) for value in ('12', -1, 0, 2**70, True, 1.5, None)},
    **{f'child is {value!r:.20}': me(child=value) for value in ('word', -1, 2**70, [1])},
    **{f'lease is {value}': me(lease=value) for value in (-1, float('nan'), float('inf'))},
    'no key': '{}', 'a list': '[]', 'a number of many digits': '9' * 5000, 'a deep nest': '[' * 100000, 'half of it': me()[:50],
    'one word': 'locked', 'much': me(host='x' * 100000),
}  # fmt: skip


def test_a_link_to_nothing_is_someone_elses_lock(path):
    path.symlink_to('nowhere')
    with pytest.raises(locks.Held, match='is held by someone whose name in the lock cannot be read'):
        locks.acquire_leased(str(path))


@pytest.mark.parametrize('case', ODD)
def test_a_lock_with_odd_contents_is_someone_elses(case, path, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '17')
    path.write_text(ODD[case])
    os.utime(path, (1, 1))
    assert locks.inspect(str(path)) == ('foreign', None)
    with pytest.raises(locks.Held, match=f'is held by someone whose name in the lock cannot be read; .* if it does not, remove {path}'):
        locks.acquire(str(path))
    assert path.read_text() == ODD[case]


@pytest.mark.parametrize('job', ['17/x', '17', '17/', '/', 'a' * 50])
def test_a_cluster_job_with_an_odd_name_is_no_earlier_start(job, path, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '17')
    path.write_text(me(job=job, host='elsewhere'))
    assert locks.inspect(str(path))[0] == 'foreign'


def test_what_is_no_readable_text_file_is_someone_elses(path):
    path.write_bytes(b'\xff\xfe')
    assert locks.inspect(str(path))[0] == 'foreign'
    path.unlink()
    path.mkdir()
    assert locks.inspect(str(path))[0] == 'foreign'
    path.rmdir()
    os.mkfifo(path)
    assert locks.inspect(str(path))[0] in ('foreign', 'live')
    with pytest.raises(locks.Held):
        locks.acquire(str(path))


def test_keys_of_a_later_version_are_left_out(path):
    path.write_text(json.dumps(json.loads(me()) | {'colour': 'red'}))
    assert locks.inspect(str(path))[0] == 'live'


def test_control_characters_in_a_name_are_not_shown(path):
    path.write_text(me(host='node\x1b[2J\n7'))
    with pytest.raises(locks.Held) as held:
        locks.acquire(str(path))
    assert r'on node\x1b[2J\n7, since' in str(held.value)


@pytest.mark.parametrize(
    ('change', 'state'),
    [
        ({'namespace': 'pid:[1]'}, 'foreign'),
        ({'namespace': 'pid:[1]', 'boot': 'before'}, 'foreign'),
        ({'machine': 'another'}, 'foreign'),
        ({'boot': 'before'}, 'stale'),
        ({'boot': 'before', 'machine': ''}, 'foreign'),
        ({'boot': 'before', 'machine': '', 'namespace': ''}, 'stale'),  # of an earlier version, which does not say more
        ({'pid': dead()}, 'stale'),
        ({'start': None}, 'live'),
    ],
)
@pytest.mark.skipif(locks.pid_namespace() != 'pid:[4026531836]' or not locks._machine_id(), reason='this is a container')
def test_only_a_holder_whose_place_can_be_seen_is_called_dead(change, state, path):
    path.write_text(me(**change))
    assert locks.inspect(str(path))[0] == state


def start(code, path, *prefix):
    words = [*prefix, sys.executable, '-c', code, str(path)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True)


@NAMESPACES
@pytest.mark.parametrize('prefix', [['--mount-proc'], []], ids=['proc of its own', 'proc of the machine'])
def test_two_containers_with_one_host_name_do_not_break_each_others_locks(prefix, path):
    container = ['unshare', '--pid', '--fork', '--kill-child', *prefix]
    for outside, inside in (([], container), (container, []), (container, container)):
        with start(HOLD, path, *outside) as holder:
            assert holder.stdout.readline() == 'held\n'
            assert start(TRY, path, *inside).communicate()[0] == 'foreign\n'
            os.killpg(holder.pid, signal.SIGKILL)
        path.unlink()


@NAMESPACES
def test_a_container_that_sees_the_processes_of_the_machine_still_judges_its_own(path):
    """Two processes in one PID namespace whose /proc counts otherwise."""
    code = f'import subprocess, sys\nfirst = subprocess.Popen([sys.executable, "-c", {HOLD!r}, sys.argv[1]], stdout=-1)\n'
    code += f'first.stdout.readline()\nsubprocess.run([sys.executable, "-c", {TRY!r}, sys.argv[1]])\nfirst.kill(); first.wait()\n'
    code += f'subprocess.run([sys.executable, "-c", {TRY!r}, sys.argv[1]])\n'
    assert start(code, path, 'unshare', '--pid', '--fork').communicate()[0] == 'live\ntaken\n'


@NAMESPACES
def test_a_process_that_the_system_hides_is_not_called_dead(path):
    code = 'import os, sys; from policyopt.pipeline import locks; seen = locks._look(sys.argv[1])\n'
    code += 'os.setgroups([]); os.setgid(65534); os.setuid(65534); print(locks._judge(seen, 0.0)[0])'
    hidden = ['unshare', '--mount', 'sh', '-c', 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', '-']
    with start(HOLD, path) as holder:
        assert holder.stdout.readline() == 'held\n'
        assert start(code, path, *hidden).communicate()[0] == 'foreign\n'
        holder.kill()
    assert start(code, path, *hidden).communicate()[0] == 'stale\n'


# ---- leases


def foreign(path, lease=0.3, **change):
    path.write_text(me(host='elsewhere', lease=lease, **change))


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_holder_stops(path):
    lost = locks.acquire(str(path), lease=0.3)
    lost.holder = dataclasses.replace(lost.holder, host='elsewhere')
    locks._write(str(path), lost.holder, replace=True)
    for _ in range(4):
        time.sleep(0.1)
        lost.renew()
        with pytest.raises(locks.Held):
            locks.acquire(str(path), 0.3)
    time.sleep(0.35)
    lock = locks.acquire(str(path), 0.3)
    assert locks._read(str(path)) == lock.holder and os.listdir(path.parent) == ['x.lock']
    lock.check()
    with pytest.raises(RunFailed, match='was taken over by process .*was it suspended.* writes nothing more'):
        lost.check()
    lost.renew()
    lost.release()
    assert locks._read(str(path)) == lock.holder
    lock.release()
    assert os.listdir(path.parent) == []


def test_a_lock_without_a_lease_is_never_taken_over(path):
    foreign(path, lease=0)
    for _ in range(2):
        with pytest.raises(locks.Held):
            locks.acquire(str(path), 0.1)
        time.sleep(0.2)


def test_a_change_of_the_file_beside_it_counts_as_renewal(path):
    foreign(path, lease=0.5)
    states, beside = [], path.with_name('x.lock.run')
    for change in (lambda: None, beside.touch, lambda: None, lambda: None):
        change()
        states.append(locks.inspect(str(path), also=str(beside))[0])
        time.sleep(0.25)
    assert states == ['foreign', 'foreign', 'foreign', 'stale']


def test_a_lock_whose_file_was_cleared_away_comes_back(path):
    lock = locks.acquire(str(path), lease=6)
    path.unlink()
    lock.renew()
    assert locks._read(str(path)) == lock.holder
    shutil.rmtree(path.parent)
    lock.record_child(os.getpid())
    assert lock.holder == locks._read(str(path)) and lock.holder.child == os.getpid()


def test_a_lock_is_renewed_in_the_background_until_it_is_given_back(path, monkeypatch):
    monkeypatch.setattr(locks, 'LEASE_S', 0.6)
    others = set(threading.enumerate())
    lock = locks.acquire_leased(str(path))
    first = os.stat(path).st_mtime_ns
    wait_until(lambda: os.stat(path).st_mtime_ns > first, 5)
    lock.release()
    assert not path.exists() and set(threading.enumerate()) <= others


def test_of_many_that_see_a_lease_expire_one_takes_it(path):
    code = (
        'import sys, time\nfrom policyopt.pipeline import locks\nlocks.LEASE_S = 60\n'
        'try:\n    locks.acquire_leased(sys.argv[1]); print("won"); time.sleep(2)\n'
        'except locks.Held: print("held")\n'
    )
    foreign(path, lease=2)
    racers = [start(code, path) for _ in range(6)]
    said = sorted(p.communicate()[0].strip().splitlines()[-1] for p in racers)
    assert said == ['held'] * 5 + ['won']
    assert os.listdir(path.parent) == []


# ---- several machines on one disk

TRAINER = """
import os, sys, threading, time
from policyopt.pipeline import locks
out = sys.argv[1]
if os.path.exists(out + '.part') and '--resume' not in sys.argv:
    sys.exit('an unfinished run; continue it with --resume')
with open(out + '.starts', 'a') as f:
    f.write(f'{os.getpid()}\\n')
open(out + '.part', 'w').close()
lock = locks.acquire_leased(out + '.lock')
time.sleep(SECONDS)
with open(out, 'xb') as f:
    f.write(SIGNATURE)
os.unlink(out + '.part')
lock.release()
"""
PIPELINE = """
import runpy, sys
from policyopt.pipeline import locks
locks.LEASE_S = 2.0
sys.argv.pop(0)
sys.path.insert(0, 'scripts')
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def machine(name, *args):
    """im_pipeline.py on a machine of that name, with a PID namespace of its own and short leases."""
    words = ['unshare', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', f'hostname {name}; exec "$@"', '-']
    words += [sys.executable, '-c', PIPELINE, IM_PIPELINE, *map(str, args)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=REPO, env=environment(), start_new_session=True)


def trainer_spec(folder, seconds):
    """An experiment whose program counts as our trainer, and renews its lock as that does."""
    script = folder / 'imitate_mj.py'
    text = TRAINER.replace('locks\nout', 'locks\nlocks.LEASE_S = 2.0\nout').replace('SECONDS', str(seconds))
    script.write_text(text.replace('SIGNATURE', repr(SIGNATURE)))
    return ready_spec(folder, cmd=f'python {script} {{out}}')


@NAMESPACES
def test_machines_share_the_runs_and_with_wait_all_end_well(tmp_path):
    path, folder = trainer_spec(tmp_path, 0.1)
    both = [machine(name, path, '1', '--resume', '-j', 2, '--wait', '--only', 'task=cartpole') for name in ('one', 'two')]
    errs = [p.communicate(timeout=60)[1] for p in both]
    assert [p.returncode for p in both] == [0, 0], errs
    assert len(starts(folder)) == 8 and set(starts(folder).values()) == {1}
    assert os.listdir(folder / 'locks') == [] and not list(folder.glob('*.lock'))


@NAMESPACES
def test_without_wait_a_run_of_another_machine_is_named_and_with_it_a_dead_machines_run_is_taken_over(tmp_path):
    path, folder = trainer_spec(tmp_path, 100)
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=4', 'run=0']
    first = machine('one', path, '1', *only)
    lock = folder / 'alg=ga,task=cartpole,num_trajs=4,run=0.h5.lock'
    wait_until(lock.exists)
    with machine('two', path, '1', '--resume', *only) as second:
        err = second.communicate(timeout=30)[1]
    assert second.returncode == 1 and 'on one, since' in err and 'is free when that has not renewed it for 2 s; --wait stays until' in err
    trainer_spec(tmp_path, 0)
    with machine('two', path, '1', '--resume', '--wait', *only) as third:
        time.sleep(3)
        assert third.poll() is None  # the lease is renewed
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
        err = third.communicate(timeout=30)[1]
    assert third.returncode == 0, err
    assert list(starts(folder).values()) == [2] and not lock.exists()


def test_a_program_that_renews_nothing_is_waited_for_but_never_taken_over(tmp_path):
    path, folder = ready_spec(tmp_path)
    (folder / 'locks').mkdir(parents=True)
    run_id = 'alg=ga,task=cartpole,num_trajs=4,run=0'
    foreign(folder / 'locks' / f'{run_id}.lock', lease=0)
    _, err = im_pipeline(path, '1', '--only', run_id, code=1)
    assert 'is held by' in err and 'if it does not, remove' in err
    timer = threading.Timer(2, lambda: (folder / f'{run_id}.h5').write_bytes(SIGNATURE))
    timer.start()
    _, err = im_pipeline(path, '1', '--only', run_id, '--wait', '--resume')
    assert f'waiting for {run_id}: it is held by' in err
    assert starts(folder) == {}


def test_the_stage_of_a_container_that_has_died_is_taken_over_after_its_lease(tmp_path):
    path, folder = ready_spec(tmp_path)
    (folder / 'locks').mkdir(parents=True)
    foreign(folder / 'locks' / 'folder.lock', lease=1)
    im_pipeline(path, '1', '--only', 'alg=ga', 'task=cartpole', 'run=0')
    assert os.listdir(folder / 'locks') == []


def test_a_run_that_was_started_by_hand_counts_as_running(tmp_path):
    path, folder = ready_spec(tmp_path)
    folder.mkdir(parents=True)
    locks.acquire(str(folder / 'alg=ga,task=cartpole,num_trajs=1,run=0.h5.lock'))
    out, _ = im_pipeline(path, '1', '--summary', '--only', 'alg=ga', 'task=cartpole')
    assert out.splitlines()[-2].split() == ['all', '0', '1', '0', '3', '4']


def test_a_run_that_another_machine_began_after_our_plan_is_continued(tmp_path):
    path, folder = trainer_spec(tmp_path, 0)
    (folder / 'locks').mkdir(parents=True)
    run_id = 'alg=ga,task=cartpole,num_trajs=4,run=0'
    foreign(folder / 'locks' / f'{run_id}.lock', lease=3)
    with started_pipeline(path, '1', '--wait', '--only', run_id) as pipeline:
        assert f'waiting for {run_id}' in pipeline.stderr.readline()
        (folder / f'{run_id}.h5.part').touch()
        _, err = pipeline.communicate(timeout=30)
    assert pipeline.returncode == 0, err
    assert (folder / 'logs' / f'{run_id}.txt').read_text().splitlines()[0].endswith('--resume')
