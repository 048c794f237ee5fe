"""Running commands: what counts as done, what a failure or a kill leaves behind, and two pipelines in one folder."""

import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest
from pipeline_tools import (
    REPO,
    SIGNATURE,
    environment,
    im_pipeline,
    lives,
    ready_spec,
    signature,
    start_pids,
    started_pipeline,
    starts,
    wait_until,
    write_program,
    write_script,
)

from policyopt.errors import RunFailed
from policyopt.pipeline import experiment_dir, launch, locks
from policyopt.pipeline.command import Command
from policyopt.pipeline.plan import How
from policyopt.pipeline.spec import load_spec


def h5_files(folder):
    return sorted(p.name for p in folder.glob('alg=*.h5'))


def test_all_runs_are_done_with_logs_that_begin_with_the_command(tmp_path):
    path, folder = ready_spec(tmp_path)
    out, err = im_pipeline(path, '1_train', '-j', 2)
    assert out == ''
    assert len(h5_files(folder)) == 16
    run_id = 'alg=ga,task=cartpole,num_trajs=4,run=1'
    log = (folder / 'logs' / f'{run_id}.txt').read_text().splitlines()
    assert log == [f'{sys.executable} {tmp_path}/train.py {folder}/{run_id}.h5', 'threads 1']
    lines = err.splitlines()
    assert sum(line.startswith(f'{k}/16 alg=') for k in range(1, 17) for line in lines) == 16
    assert 'elapsed' in lines[3] and 'ETA' in lines[3]
    assert lines[-1] == f'next: python scripts/im_pipeline.py {path} 2_eval'
    assert (folder / 'pipeline.yaml').read_text() == path.read_text()
    assert (folder / 'git_hash.txt').read_text().strip()
    assert (folder / 'seed.txt').read_text() == '0\n'
    assert list((folder / 'locks').glob('*.lock')) == []
    assert not list(folder.glob('*.tmp')) and not list(folder.glob('*.part'))


def test_a_folder_with_runs_is_refused_and_resume_skips_what_is_done(tmp_path):
    path, folder = ready_spec(tmp_path)
    im_pipeline(path, '1_train', '--only', 'alg=bclone')
    _, err = im_pipeline(path, '1_train', code=2)
    assert 'already holds 8 finished and 0 unfinished runs' in err and '--resume' in err and 'options.storagedir' in err
    assert set(starts(folder).values()) == {1}
    _, err = im_pipeline(path, '1_train', '--resume')
    assert '8 of 16 runs are done' in err
    assert len(h5_files(folder)) == 16 and set(starts(folder).values()) == {1}
    _, err = im_pipeline(path, '1_train', '--resume')
    assert '16 of 16 runs are done' in err and set(starts(folder).values()) == {1}


def test_stage_1_needs_the_expert_data_and_the_program(tmp_path):
    path, folder = ready_spec(tmp_path)
    os.remove(tmp_path / 'train.py')
    _, err = im_pipeline(path, '1_train', code=2)
    assert f"training.algorithms[0].cmd: no such file '{tmp_path}/train.py'" in err
    path, folder = ready_spec(tmp_path)
    os.remove(tmp_path / 'store' / 'trajs' / 'trajs_mountaincar.h5')
    _, err = im_pipeline(path, '1_train', code=2)
    assert 'trajs_mountaincar.h5: no such file; expected the expert trajectories' in err
    assert err.endswith(f'Make them with: python scripts/im_pipeline.py {path} 0_sampletrajs --resume\n')
    assert h5_files(folder) == [] and not (folder / 'pipeline.yaml').exists()
    _, err = im_pipeline(path, '1_train', '--only', 'task=cartpole')
    assert err.splitlines()[-1] == f'next: python scripts/im_pipeline.py {path} 2_eval --only task=cartpole'
    _, err = im_pipeline(path, '1', '--summary')
    assert err == f'next: python scripts/im_pipeline.py {path} 0_sampletrajs --resume\n'


def test_a_failed_run_shows_its_log_and_starts_no_others(tmp_path):
    path, folder = ready_spec(tmp_path, fail_on='num_trajs=4,run=0')
    _, err = im_pipeline(path, '1_train', '-j', 1, code=1)
    failed = 'alg=bclone,task=cartpole,num_trajs=4,run=0'
    assert f'run {failed} failed with exit code 1; its log {folder}/logs/{failed}.txt ends with:' in err
    tail = [line for line in err.splitlines() if line.startswith('  | ')]
    assert len(tail) == 10 and tail[-1] == '  | this run cannot work' and tail[0] == '  | line 11'
    assert '1 of 16 runs did not finish' in err and '13 were not started' in err and '--resume' in err.splitlines()[-1]
    assert len(starts(folder)) == 3


def test_keep_going_tries_all_and_resume_repeats_the_failed_ones(tmp_path):
    path, folder = ready_spec(tmp_path, fail_on='num_trajs=4,run=0')
    _, err = im_pipeline(path, '1_train', '-j', 2, '-k', code=1)
    assert '4 of 16 runs did not finish' in err and len(h5_files(folder)) == 12
    out, _ = im_pipeline(path, '1_train', '--summary')
    assert out.splitlines()[-2].split() == ['all', '12', '0', '4', '0', '16']
    write_program(tmp_path)
    im_pipeline(path, '1_train', '-j', 2, '--resume')
    assert sorted(starts(folder).values()) == [1] * 12 + [2] * 4
    log = (folder / 'logs' / 'alg=ga,task=cartpole,num_trajs=4,run=0.txt').read_text()
    assert log.count('train.py') == 2 and 'cannot work' in log


@pytest.mark.parametrize(
    ('script', 'message'),
    [
        ('true', 'exited with code 0 but did not write'),
        ('no_such_program', 'failed with exit code 127'),
        ('kill -9 $$', 'was killed by SIGKILL'),
        pytest.param('kill -35 $$', 'was killed by 35', marks=pytest.mark.skipif(sys.platform != 'linux', reason='no such signal')),
        ('touch "$1"; exit 3', 'failed with exit code 3'),
        ('echo hi > "$1"', 'what it wrote is no run ('),
    ],
)
def test_every_way_to_fail_is_told_and_leaves_no_finished_file(tmp_path, script, message):
    path, folder = ready_spec(tmp_path, cmd=write_script(tmp_path, 'fails.sh', script))
    _, err = im_pipeline(path, '1_train', '-j', 1, code=1)
    assert message in err
    assert h5_files(folder) == []


def test_a_command_may_use_the_shell(tmp_path):
    steps = f'cp {signature(tmp_path)} {{out}}.tmp && printenv X >> {{out}}.tmp && mv {{out}}.tmp {{out}}'
    path, folder = ready_spec(tmp_path, cmd=f"'X={{task}}; export X && {steps}'")
    im_pipeline(path, '1_train', '--only', 'alg=ga', 'run=0')
    assert [p.read_bytes()[len(SIGNATURE) :] for p in sorted(folder.glob('*.h5'))] == [b'cartpole\n'] * 2 + [b'mountaincar\n'] * 2


def test_threads_are_one_unless_told_otherwise(tmp_path):
    path, folder = ready_spec(tmp_path)

    def threads_of(only, *args, **env):
        _, err = im_pipeline(path, '1_train', '--resume', '--only', only, *args, env=environment(**env))
        run_id = only if ',run=' in only else None
        return (folder / 'logs' / f'{run_id}.txt').read_text().split()[-1], err

    base = 'alg=ga,task=cartpole,num_trajs=1,run='
    assert threads_of(base + '0')[0] == '1'
    assert threads_of(base + '1', OMP_NUM_THREADS='2')[0] == '2'
    shown, err = threads_of('alg=ga,task=cartpole,num_trajs=4,run=0', '--threads', 200)
    assert shown == '200' and 'warning: 1 jobs × 200 threads on' in err


def test_quiet_and_verbose(tmp_path):
    path, _ = ready_spec(tmp_path)
    _, err = im_pipeline(path, '1_train', '-q', '--only', 'alg=bclone', 'task=cartpole')
    assert 'elapsed' not in err
    _, err = im_pipeline(path, '1_train', '-v', '--resume', '--only', 'alg=bclone')
    assert 'start alg=bclone' in err and 'train.py' in err


def test_a_dry_run_writes_nothing_and_its_lines_run_as_they_are(tmp_path):
    path, folder = ready_spec(tmp_path)
    before = sorted(tmp_path.rglob('*'))
    out, err = im_pipeline(path, '1_train', '-n', '--only', 'run=0')
    assert sorted(tmp_path.rglob('*')) == before
    assert len(out.splitlines()) == 8 and str(folder) in err
    folder.mkdir(parents=True)
    subprocess.run(['xargs', '-d', '\\n', '-P', '2', '-I', '{}', 'sh', '-c', '{}'], input=out, text=True, check=True)
    assert len(h5_files(folder)) == 8
    out, err = im_pipeline(path, '1_train', '-n', '--resume')
    assert len(out.splitlines()) == 8 and 'run=0' not in out
    out, err = im_pipeline(path, '1_train', '-n')
    assert len(out.splitlines()) == 16 and '8 of these 16 runs are done' in err
    assert 'already holds' in im_pipeline(path, '1_train', code=2)[1]


def test_a_reader_that_closes_the_pipe_is_no_error():
    command = f'{sys.executable} scripts/im_pipeline.py pipelines/classic.yaml 1 -n | head -2'
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, cwd=REPO, env=environment())
    assert len(done.stdout.splitlines()) == 2 and 'Traceback' not in done.stderr and 'Exception' not in done.stderr


def test_our_trainer_is_continued_from_its_checkpoint(tmp_path):
    trainer = tmp_path / 'imitate_mj.py'
    trainer.write_text(f'import sys; open(sys.argv[2], "wb").write({SIGNATURE} + " ".join(sys.argv[3:]).encode())')
    path, folder = ready_spec(tmp_path, cmd=f'python {trainer} --log {{out}}')
    folder.mkdir(parents=True)
    begun = 'alg=ga,task=cartpole,num_trajs=1,run=0'
    (folder / f'{begun}.h5.part').touch()
    assert '0 finished and 1 unfinished' in im_pipeline(path, '1_train', code=2)[1]
    for resume in ([], ['--resume']):
        out, _ = im_pipeline(path, '1_train', *resume, '-n', '--only', 'alg=ga', 'task=cartpole', 'num_trajs=1')
        assert [line.endswith(' --resume') for line in out.splitlines()] == [True, True]
    im_pipeline(path, '1_train', '--resume', '--device', 'cuda')
    assert (folder / f'{begun}.h5').read_bytes().removeprefix(SIGNATURE).split()[2:] == [b'--device', b'cuda', b'--resume']
    fresh = folder / 'alg=ga,task=cartpole,num_trajs=1,run=1.h5'
    assert fresh.read_bytes().removeprefix(SIGNATURE).split()[2:] == [b'--device', b'cuda']
    fresh.write_bytes(b'')  # no run of our trainer
    assert '15 of 16 runs are done' in im_pipeline(path, '1_train', '--resume')[1]
    assert fresh.read_bytes().startswith(SIGNATURE) and fresh.with_name(f'{fresh.name}.incomplete').read_bytes() == b''


def test_resume_refuses_other_commands_for_the_same_runs_but_takes_new_runs(tmp_path):
    path, folder = ready_spec(tmp_path)
    _, err = im_pipeline(path, '1_train', '--set', 'training.runs=1')
    assert err.splitlines()[-1] == f'next: python scripts/im_pipeline.py {path} 2_eval --set training.runs=1'
    assert 'training.runs=1' in (folder / 'pipeline.yaml').read_text()
    text = path.read_text()
    path.write_text(text.replace('{out}', '--new {out}'))
    _, err = im_pipeline(path, '1_train', '--resume', code=2)
    assert "is now '--new'" in err and len(h5_files(folder)) == 8
    path.write_text(text)
    _, err = im_pipeline(path, '1_train', '--resume', '--seed', 1, code=2)
    assert 'belong to the base seed 0' in err
    im_pipeline(path, '1_train', '--resume')
    assert len(h5_files(folder)) == 16 and set(starts(folder).values()) == {1}


def test_a_command_may_change_for_the_runs_of_one_task_and_those_of_others_stay_what_they_are(tmp_path):
    path, folder = ready_spec(tmp_path)
    text = path.read_text()
    im_pipeline(path, '1_train', '--only', 'task=cartpole')
    path.write_text(text.replace('{out}', '{out} --new'))
    _, err = im_pipeline(path, '1_train', '--resume', '--only', 'task=mountaincar')
    assert '8 runs in' in err and 'other commands' in err and len(h5_files(folder)) == 16
    for words in ([], ['--only', 'task=cartpole']):
        _, err = im_pipeline(path, '1_train', '--resume', *words, code=2)
        assert 'task=cartpole' in err and f"is now 'more words'; {folder}/pipeline.before-0001.yaml has the old one" in err
    path.write_text(text)
    im_pipeline(path, '1_train', '--resume', '--only', 'task=cartpole')
    assert 'task=mountaincar' in im_pipeline(path, '1_train', '--resume', code=2)[1]
    assert set(starts(folder).values()) == {1}


def test_a_drawn_seed_is_kept_for_later(tmp_path):
    path, folder = ready_spec(tmp_path, cmd=f"'cp {signature(tmp_path)} {{out}} && echo {{seed}} >> {{out}}'")
    path.write_text(path.read_text().replace('  seed: 0\n', ''))
    _, err = im_pipeline(path, '1_train', '--only', 'alg=ga')
    seed = int((folder / 'seed.txt').read_text())
    assert f'drew {seed} and stored it' in err
    _, err = im_pipeline(path, '1_train', '--resume')
    assert 'drew' not in err and int((folder / 'seed.txt').read_text()) == seed
    out, _ = im_pipeline(path, '1_train', '-n')
    stored = sorted(int(p.read_bytes()[len(SIGNATURE) :]) for p in folder.glob('*.h5'))
    assert sorted(int(line.split()[5]) for line in out.splitlines()) == stored


def test_of_two_processes_that_draw_a_seed_at_once_the_first_decides(tmp_path):
    path, folder = ready_spec(tmp_path)
    path.write_text(path.read_text().replace('  seed: 0\n', ''))
    spec = load_spec(str(path))
    experiment_dir.store_seed(spec, 5)
    with pytest.raises(RunFailed, match='seed.txt: another process has just drawn the base seed 5; it is kept, continue with --resume'):
        experiment_dir.store_seed(spec, 6)
    assert experiment_dir.base_seed(spec) == 5


def test_an_unwritable_place_is_named(tmp_path):
    path, folder = ready_spec(tmp_path)
    folder.mkdir()
    (folder / 'locks').touch()
    for stage in ('0', '1', 'all'):
        assert f'{folder}/locks: a file is in the way' in im_pipeline(path, stage, *(['--resume'] if stage != '1' else []), code=2)[1]
    (tmp_path / 'file').touch()
    _, err = im_pipeline(path, '1_train', '--set', f'options.storagedir={tmp_path}/file', code=2)
    assert 'a file is in the way' in err


@pytest.mark.parametrize(('signum', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_ctrl_c_stops_all_runs_and_resume_finishes(tmp_path, signum, code):
    path, folder = ready_spec(tmp_path, seconds=30)
    with started_pipeline(path, '1_train', '-j', 3) as pipeline:
        wait_until(lambda: len(list(folder.glob('*.part'))) == 3)
        pipeline.send_signal(signum)
        _, err = pipeline.communicate(timeout=20)
    assert pipeline.returncode == code and 'Traceback' not in err and '--resume' in err
    pids = start_pids(folder)
    assert len(pids) == 3 and not any(map(lives, pids))
    assert list((folder / 'locks').glob('*.lock')) == []
    write_program(tmp_path, seconds=0)
    im_pipeline(path, '1_train', '--resume')
    assert len(h5_files(folder)) == 16 and sorted(starts(folder).values()) == [1] * 13 + [2] * 3


def test_a_deaf_run_is_killed_by_a_second_ctrl_c_with_its_children(tmp_path):
    deaf = 'trap \'\' TERM; sleep 100 & echo $! > "$1.pid"; while :; do sleep 0.1; done'
    path, folder = ready_spec(tmp_path, cmd=write_script(tmp_path, 'deaf.sh', deaf))
    pid_file = folder / 'alg=bclone,task=cartpole,num_trajs=1,run=0.h5.pid'
    with started_pipeline(path, '1_train', '-j', 1) as pipeline:
        child = int(wait_until(lambda: pid_file.exists() and pid_file.read_text()))
        pipeline.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert pipeline.poll() is None and lives(child)
        pipeline.send_signal(signal.SIGINT)
        pipeline.communicate(timeout=10)
    assert pipeline.returncode == 130 and not lives(child)


def test_helpers_that_outlive_their_run_are_ended(tmp_path):
    leaves = f'sleep 100 & echo $! > "$1.pid"; cp {signature(tmp_path)} "$1"'
    path, folder = ready_spec(tmp_path, cmd=write_script(tmp_path, 'leaves.sh', leaves))
    im_pipeline(path, '1_train', '--only', 'alg=ga', 'task=cartpole', 'run=0', 'num_trajs=1')
    assert not lives(int((folder / 'alg=ga,task=cartpole,num_trajs=1,run=0.h5.pid').read_text()))


def test_two_pipelines_share_the_runs_and_do_each_once(tmp_path):
    path, folder = ready_spec(tmp_path, seconds=0.05)
    with started_pipeline(path, '1', '--resume', '-j', 2) as first, started_pipeline(path, '1', '--resume', '-j', 2) as second:
        errs = [p.communicate(timeout=60)[1] for p in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errs
    assert len(h5_files(folder)) == 16 and set(starts(folder).values()) == {1}


def test_a_killed_pipeline_leaves_runs_that_the_next_one_waits_for(tmp_path):
    path, folder = ready_spec(tmp_path, seconds=1.5)
    only = ['--only', 'alg=ga', 'task=cartpole']
    with started_pipeline(path, '1_train', '-j', 2, *only) as pipeline:
        wait_until(lambda: len(list(folder.glob('*.part'))) == 2)
        pipeline.kill()
        pipeline.wait()
    assert sum(map(lives, start_pids(folder))) == 2
    out, _ = im_pipeline(path, '1_train', '--summary', *only)
    assert out.splitlines()[-2].split() == ['all', '0', '2', '0', '2', '4']
    im_pipeline(path, '1_train', '--resume', '-j', 4, *only)
    assert len(h5_files(folder)) == 4 and set(starts(folder).values()) == {1}


def test_stale_locks_are_recognised_and_foreign_ones_explained(tmp_path):
    path, folder = ready_spec(tmp_path)
    (folder / 'locks').mkdir(parents=True)
    ids = [f'alg=ga,task=cartpole,num_trajs={n},run={r}' for n in (1, 4) for r in (0, 1)]
    dead = subprocess.Popen(['true'])
    dead.wait()
    mine = {'host': platform.node(), 'pid': os.getpid(), 'start': 'another', 'boot': locks._boot_id(), 'since': '2026-01-01T00:00:00'}
    for run_id, change in zip(ids, ({'pid': dead.pid}, {}, {'boot': 'before the reboot'}, {'host': 'elsewhere'}), strict=True):
        (folder / 'locks' / f'{run_id}.lock').write_text(json.dumps(mine | change))
    _, err = im_pipeline(path, '1_train', '--only', 'alg=ga', 'task=cartpole', code=1)
    lock = folder / 'locks' / f'{ids[3]}.lock'
    assert f'is held by process {os.getpid()} on elsewhere, since 2026-01-01 00:00:00' in err and f'remove {lock}' in err
    assert h5_files(folder) == [f'{i}.h5' for i in ids[:3]]
    lock.unlink()
    im_pipeline(path, '1_train', '--resume', '--only', 'alg=ga', 'task=cartpole')
    assert len(h5_files(folder)) == 4


def test_a_lock_has_one_holder_and_a_recycled_process_number_does_not_count(tmp_path):
    path = str(tmp_path / 'locks' / 'x.lock')
    lock = locks.acquire(path)
    with pytest.raises(locks.Held) as held:
        locks.acquire(path)
    assert held.value.state == 'live' and f'process {os.getpid()} on {platform.node()}' in str(held.value)
    lock.release()
    assert locks.inspect(path) == ('free', None)
    locks.acquire(path)
    content = json.loads(open(path).read())
    open(path, 'w').write(json.dumps(content | {'start': '1'}))
    assert locks.inspect(path)[0] == 'stale'
    assert locks.acquire(path).holder.start == content['start']


def test_an_empty_lock_is_stale_only_when_it_is_old(tmp_path):
    path = tmp_path / 'locks' / 'x.lock'
    path.parent.mkdir()
    path.touch()
    with pytest.raises(locks.Held):
        locks.acquire(str(path))
    os.utime(path, (time.time() - 100,) * 2)
    locks.acquire(str(path)).release()


def test_a_requeued_cluster_job_takes_its_own_lock_back(tmp_path, monkeypatch):
    path = str(tmp_path / 'locks' / 'x.lock')
    monkeypatch.setenv('SLURM_JOB_ID', '17')
    locks.acquire(path)
    content = json.loads(open(path).read())
    assert content['job'] == '17/0'
    open(path, 'w').write(json.dumps(content | {'host': 'node7'}))
    assert locks.inspect(path)[0] == 'foreign'
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert locks.inspect(path)[0] == 'stale'


def test_many_processes_break_a_stale_lock_only_one_wins(tmp_path):
    path = str(tmp_path / 'locks' / 'x.lock')
    locks.acquire(path)
    content = json.loads(open(path).read()) | {'start': '1'}
    code = (
        'import sys, time\nfrom policyopt.pipeline import locks\n'
        'while time.time() < float(sys.argv[2]): pass\n'
        'try:\n    locks.acquire(sys.argv[1]); print("won"); time.sleep(1)\n'
        'except locks.Held: print("held")\n'
    )
    open(path, 'w').write(json.dumps(content))
    command = [sys.executable, '-c', code, path, str(time.time() + 1)]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) for _ in range(6)]
    assert sorted(p.communicate()[0].strip() for p in racers) == ['held'] * 5 + ['won']


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen(['true'])
    dead.wait()
    here = platform.node()
    names = [f'a.h5.part.{here}.{dead.pid}.tmp', f'a.h5.{here}.{os.getpid()}.tmp', f'a.h5.elsewhere.{dead.pid}.tmp', 'a.tmp']
    for name in names:
        (tmp_path / name).touch()
    locks.remove_leftovers(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(names[1:])


@pytest.mark.parametrize(
    ('text', 'simple'),
    [('true --x "b;c"', True), ('true a=b', True), ('true && true', False), ('A=1 true', False), ('true > x', False), ('cd x', False)],
)
def test_a_simple_command_replaces_its_shell(text, simple):
    assert Command(text).is_simple == simple


def test_outcomes_can_be_had_as_a_function(tmp_path):
    commands = ['false', *(f'cp {signature(tmp_path)} {tmp_path}/{i}.h5' for i in (1, 2, 3))]
    places = [[str(tmp_path / name) for name in (f'{i}.h5', f'{i}.txt', f'locks/{i}.lock')] for i in range(4)]
    jobs = [launch.Job(str(i), Command(command), *places[i]) for i, command in enumerate(commands)]
    outcomes = launch.run_local(jobs, How(jobs=2, keep_going=True, verbosity=-1))
    assert sorted((o.job.id, o.state) for o in outcomes) == [('0', 'failed'), ('1', 'ok'), ('2', 'ok'), ('3', 'ok')]


@pytest.mark.slow
def test_fifty_kills_lose_nothing_and_repeat_nothing_that_was_finished(tmp_path):
    import random

    rng = random.Random(0)
    path, folder = ready_spec(tmp_path, seconds=0.3)
    finished = {}
    for _ in range(50):
        with started_pipeline(path, '1_train', '--resume', '-j', 2, '-k') as pipeline:
            time.sleep(rng.uniform(0.2, 0.6))
            living = [pid for pid in start_pids(folder) if lives(pid)]
            for pid in rng.choice([[pipeline.pid], living[-1:], [pipeline.pid, *living]]):
                os.kill(pid, signal.SIGKILL)
        now_finished = {p.name: p.stat().st_mtime_ns for p in folder.glob('alg=*.h5')}
        assert all(now_finished[name] == stamp for name, stamp in finished.items())
        finished = now_finished
    im_pipeline(path, '1_train', '--resume')
    assert len(h5_files(folder)) == 16
    assert not any(map(lives, start_pids(folder)))
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in finished.items())
