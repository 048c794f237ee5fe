"""Runs that are forks of the pipeline's process: the files of a fresh interpreter, and the same answers to faults and signals."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ONE_THREAD, REPO, script_env
from pipeline_tools import im_pipeline, lives, spec_text, started_pipeline, wait_until
from training_tools import differences

from policyopt.pipeline import launch, locks
from policyopt.pipeline.command import Command

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='runs are forked on Linux only')

GA = (
    'python scripts/imitate_mj.py --mode ga --tiny_policy --min_total_sa 150 --sim_batch_size {workers} --max_iter {iters} --save_freq 10 '
    '--env {{env}} --data {{dataset}} --limit_trajs {{num_trajs}} --seed {{seed}} --log {{out}} {options}'
)


def sampled(tmp_path, iters, workers=1, options=''):
    """A spec of two runs with its expert data; returns (spec path, checkpoint folder)."""
    path = tmp_path / 'spec.yaml'
    training = {'full_dataset_num_trajs': 2, 'dataset_num_trajs': [1, 2], 'deterministic_expert': False}
    cmd = GA.format(iters=iters, workers=workers, options=options)
    path.write_text(spec_text({'ga': cmd}, options={'storagedir': str(tmp_path / 'store')}, **training))
    im_pipeline(path, '0', '-q')
    return path, tmp_path / 'store' / 'checkpoints'


def run_group(folder, size):
    """The process of the run with that many trajectories once it has written a checkpoint, from its lock; None before."""
    run = f'alg=ga,task=cartpole,num_trajs={size},run=0'
    holder = locks.inspect(str(folder / 'locks' / f'{run}.lock'))[1]
    return holder.child if holder and (folder / f'{run}.h5.part').exists() else None


@pytest.mark.parametrize('workers', [1, 2])
def test_a_forked_run_writes_the_file_and_the_log_of_a_fresh_interpreter(tmp_path, workers):
    path, folder = sampled(tmp_path, 21, workers)
    im_pipeline(path, '1', '-q', '-j', 2)
    logs = sorted((folder / 'logs').glob('*.txt'))
    assert len(logs) == 2
    for log in logs:
        command, *shown = [line for line in log.read_text().splitlines() if ', ETA ' not in line]  # stderr is there too
        out, alone = str(folder / f'{log.stem}.h5'), str(tmp_path / f'{log.stem}.h5')
        done = subprocess.run(command.replace(out, alone), shell=True, cwd=REPO, env=script_env(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert differences(out, alone) == []
        expected = done.stdout.replace(alone, out).splitlines()
        assert len(shown) == len(expected) and shown[:2] == expected[:2] and shown[-2:] == expected[-2:]


def test_a_run_is_a_fork_in_a_session_of_its_own_with_its_own_input_and_output(tmp_path):
    path, folder = sampled(tmp_path, 100000)
    with started_pipeline(path, '1', '-j', 2, stdin=subprocess.PIPE) as pipeline:
        run = wait_until(lambda: run_group(folder, 1))
        with open(f'/proc/{run}/cmdline') as f:
            assert 'im_pipeline.py' in f.read()
        assert os.getsid(run) == os.getpgid(run) == run != os.getsid(pipeline.pid)
        log = str(folder / 'logs' / 'alg=ga,task=cartpole,num_trajs=1,run=0.txt')
        assert [os.readlink(f'/proc/{run}/fd/{fd}') for fd in (0, 1, 2)] == ['/dev/null', log, log]


def test_a_mistake_that_only_the_run_can_see_is_told_by_it(tmp_path):
    path, folder = sampled(tmp_path, 21, options='--device gpu')
    _, err = im_pipeline(path, '1', '-j', 1, code=1)
    assert 'failed with exit code 2' in err and '| imitate_mj: error: --device gpu: ' in err
    assert not list(folder.glob('alg=*'))


def test_sigterm_stops_the_runs_after_a_checkpoint_and_resume_gives_the_undisturbed_file(tmp_path):
    path, folder = sampled(tmp_path, 61)
    im_pipeline(path, '1', '-q')
    whole = {p.name: p.rename(tmp_path / p.name) for p in folder.glob('alg=*.h5')}
    with started_pipeline(path, '1', '--resume', '-j', 2) as pipeline:
        wait_until(lambda: run_group(folder, 1) and run_group(folder, 2))
        pipeline.send_signal(signal.SIGTERM)
        assert pipeline.wait(60) == 75
        assert 'stopped by SIGTERM' in pipeline.stderr.read()
    assert 'stopped by SIGTERM after iteration' in ''.join(p.read_text() for p in (folder / 'logs').iterdir())
    im_pipeline(path, '1', '--resume', '-q')
    assert len(whole) == 2 and all(differences(folder / name, p) == [] for name, p in whole.items())


def test_a_killed_run_is_named_and_the_other_ends(tmp_path):
    path, folder = sampled(tmp_path, 201)
    with started_pipeline(path, '1', '-j', 2, '-k') as pipeline:
        os.kill(wait_until(lambda: run_group(folder, 1)), signal.SIGKILL)
        assert pipeline.wait(120) == 1
        assert 'num_trajs=1,run=0 was killed by SIGKILL' in pipeline.stderr.read()
    assert [p.name for p in folder.glob('alg=*.h5')] == ['alg=ga,task=cartpole,num_trajs=2,run=0.h5']


def test_runs_outlive_a_killed_pipeline_and_the_next_one_waits_for_them(tmp_path):
    path, folder = sampled(tmp_path, 401)
    with started_pipeline(path, '1', '-j', 2) as pipeline:
        runs = [wait_until(lambda size=size: run_group(folder, size)) for size in (1, 2)]
        pipeline.kill()
        pipeline.wait()
        assert all(map(lives, runs))
        _, err = im_pipeline(path, '1', '--resume', '-j', 2)
    assert 'waiting for alg=ga' in err and len(list(folder.glob('alg=*.h5'))) == 2
    assert all(len(log.read_text().split('imitate_mj.py')) == 2 for log in (folder / 'logs').iterdir())  # no command a second time


@pytest.mark.parametrize('text', [f'{sys.executable} {REPO}/scripts/imitate_mj.py begun', 'echo $WORD | cat'])
def test_a_run_writes_its_group_into_its_lock_or_does_not_begin_where_another_pipeline_has_that(tmp_path, monkeypatch, text):
    log, path = tmp_path / 'log.txt', tmp_path / 'x.lock'
    monkeypatch.setattr(launch, '_imitate', lambda argv: print(*argv))
    job = launch.Job('x', Command(text), str(tmp_path / 'x.h5'), str(log), str(path))
    lock = locks.acquire(job.lock)
    mine = path.read_text()
    for content, code in ((mine.replace(f'{os.getpid()}', '1'), 1), (mine, 0)):
        path.write_text(content)
        run = launch.RunProcess(job, lock, dict(os.environ) | {'WORD': 'begun'})
        run.join()
        assert run.exitcode == code and locks.inspect(job.lock)[1].child == (0 if code else run.pid)
    lock.release()
    assert log.read_text().splitlines() == [text, '', text, 'begun'] and not path.exists()


def test_edited_code_is_not_forked(monkeypatch):
    assert launch.load_trainer()
    monkeypatch.setattr(launch, '_SOURCES_AT_START', launch._SOURCES_AT_START | {'policyopt/new.py': (1, 1)})
    assert not launch.load_trainer()


@pytest.mark.parametrize(
    ('command', 'forks'),
    [
        ('{python} {trainer} --seed 1 --x "a b"', True),
        ('{python} {trainer} --data trajs/*.h5', False),
        ('{python} {trainer} --data ~/trajs.h5', False),
        ('{python} {trainer} --data $HOME/trajs.h5', False),
        ('{python} {trainer} > log', False),
        ('{python} {trainer} # note', False),
        ('{python} {trainer} --data {{a,b}}.h5', False),
        ('{python} {trainer} --data "\\$x/trajs.h5"', False),
        ('{python} {trainer}\n--seed 1', False),
        ('{python} -O {trainer}', False),
        ('X=1 {python} {trainer}', False),
        ('nice {python} {trainer}', False),
        ('/usr/bin/env {python} {trainer}', False),
        ('{python} /elsewhere/scripts/imitate_mj.py', False),
        ('{python} {scripts}/run_rl_mj.py', False),
    ],
)
def test_only_plain_commands_of_our_own_trainer_are_forked(command, forks):
    trainer = REPO / 'scripts' / 'imitate_mj.py'
    text = command.format(python=sys.executable, trainer=trainer, scripts=REPO / 'scripts')
    words = launch.script_and_options(Command(text), ONE_THREAD)
    assert words == ([str(trainer), '--seed', '1', '--x', 'a b'] if forks else None)


def test_runs_with_more_threads_than_the_pipeline_get_a_process_of_their_own(monkeypatch):
    command = Command(f'{sys.executable} {REPO}/scripts/imitate_mj.py')
    assert launch.script_and_options(command, ONE_THREAD) and command.plain_words
    assert launch.script_and_options(command, ONE_THREAD | {'OMP_NUM_THREADS': '2'}) is None
    monkeypatch.setenv('OPENBLAS_NUM_THREADS', '2')
    assert launch.script_and_options(command, ONE_THREAD) is None
