"""How long training will take: measured by real commands, extrapolated, and nothing of it stays behind."""

import re
import signal

import numpy as np
import pytest
import tables
from pipeline_tools import im_pipeline, lives, ready_spec, started_pipeline, starts, wait_until, write_program, write_script

from policyopt.pipeline import estimate
from policyopt.pipeline.command import Command

OURS = 'python scripts/imitate_mj.py --env {env} --data {dataset} --limit_trajs {num_trajs} --log {out}'
NO_NETS = '--policy_hidden_spec x'  # a mistake that only the run itself notices
# Somebody's own imitate_mj.py: it sleeps and logs that. Its options and its file are those that the estimate knows.
SLEEPER = """
import argparse, os, time, numpy, tables
p = argparse.ArgumentParser()
p.add_argument('--max_iter', type=int)
args, rest = p.parse_known_args()
out = rest[rest.index('--log') + 1]
print('process', os.getpid(), flush=True)
begin, ttotal = time.perf_counter(), []
for _ in range(args.max_iter):
    time.sleep(SECONDS)
    ttotal.append(time.perf_counter() - begin)
with tables.open_file(out, 'w') as h5:
    h5.create_table('/', 'log', obj=numpy.array([(t,) for t in ttotal], dtype=[('ttotal', 'f4')]))
"""
GA_RUNS = ('--only', 'task=cartpole', 'num_trajs=4', 'alg=ga')  # 2 runs
CARTPOLE = ('--only', 'task=cartpole', 'num_trajs=4')  # these and 2 of bclone


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory, monkeypatch):
    """An own folder for temporary files, so that what is left behind can be seen."""
    folder = tmp_path_factory.mktemp('scratch')
    monkeypatch.setenv('TMPDIR', str(folder))
    return folder


def sleeper(folder, seconds=0.1, num=200):
    """A template for a program that takes `seconds` (a number, or Python with the path `out`) for each of `num` iterations."""
    (folder / 'imitate_mj.py').write_text(SLEEPER.replace('SECONDS', str(seconds)))
    return f'python {folder}/imitate_mj.py --mode ga --max_iter {num} --log {{out}}'


def spec_with(folder, bclone, ga):
    """A spec that is ready for training, with these commands; returns (spec path, checkpoint folder)."""
    path, checkpoints = ready_spec(folder)
    head, middle, tail = re.split(r'(?<=    cmd: ).*\n', path.read_text())
    path.write_text(f'{head}{bclone}\n{middle}{ga}\n{tail}')
    return path, checkpoints


def unfinished(folder, run, num):
    """The checkpoint of a ga run after `num` iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    with tables.open_file(str(folder / f'alg=ga,task=cartpole,num_trajs=4,run={run}.h5.part'), 'w') as h5:
        h5.create_table('/', 'log', obj=np.zeros(num, dtype=[('ttotal', 'f4')]))
    return folder / f'alg=ga,task=cartpole,num_trajs=4,run={run}.h5.part'


def contents(folder):
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob('*') if '__pycache__' not in p.parts}


def seconds_in(sentence):
    """The duration in an estimate; below 90 seconds, where it is not rounded to minutes."""
    return int(re.search(r'about (\d+) seconds? ', sentence)[1])


def test_real_runs_are_measured_and_nothing_is_written(tmp_path, scratch):
    small = '--min_total_sa 200 --sim_batch_size 1'
    path, folder = spec_with(tmp_path, f'{OURS} --mode bclone --max_iter 5001', f'{OURS} --mode ga --max_iter 3 {small}')
    before = contents(tmp_path)
    out, err = im_pipeline(path, '1_train', '--estimate', '-j', 2, *CARTPOLE)
    assert re.fullmatch(r'4 of 4 runs to do: about \d+ seconds with 2 at a time \(measured by a few .* of each of 2 kinds\)\n', out)
    assert err.splitlines() == [
        'estimate: running a few iterations of 2 kinds of runs',
        f'next: python scripts/im_pipeline.py {path} 1_train --resume {" ".join(CARTPOLE)}',
    ]
    assert contents(tmp_path) == before and not folder.exists() and not list(scratch.iterdir())


# Upper bounds leave room for a loaded machine, and still tell a wrong sum.
@pytest.mark.parametrize(('jobs', 'expected', 'measured'), [(1, 40, 'one'), (2, 20, '2'), (8, 20, '2')])
def test_iterations_and_runs_are_added_up_and_shared_out(tmp_path, jobs, expected, measured):
    path, _ = spec_with(tmp_path, 'true {out}', sleeper(tmp_path))
    out, _ = im_pipeline(path, '1', '--estimate', '-q', '-j', jobs, *GA_RUNS)
    assert expected <= seconds_in(out) < 2 * expected
    assert f'with {min(2, jobs)} at a time (measured by a few iterations of {measured} of them)' in out


def test_as_many_are_measured_at_once_as_will_run_at_once_and_their_mean_counts(tmp_path):
    path, _ = spec_with(tmp_path, 'true {out}', sleeper(tmp_path, "(0.1 if 'run=0' in out else 0.3)"))
    out, _ = im_pipeline(path, '1', '--estimate', '-q', '-j', 2, *GA_RUNS)
    assert 40 <= seconds_in(out) < 60  # either of them alone: 20 or 60


@pytest.mark.parametrize(('num_kinds', 'num_jobs', 'chosen'), [(2, 1, 'bB'), (2, 3, 'bBc'), (2, 5, 'bBcAa'), (2, 9, 'bBcAa'), (1, 2, 'bc')])
def test_kinds_take_turns_beginning_in_their_middle(num_kinds, num_jobs, chosen):
    assert ''.join(estimate._chosen([list('abc'), list('AB')][:num_kinds], num_jobs)) == chosen


@pytest.mark.parametrize(('done', 'expected'), [(180, 22), (500, 20)])  # the second has more than --max_iter asks for
def test_of_a_begun_run_only_the_rest_is_counted(tmp_path, done, expected):
    path, folder = spec_with(tmp_path, 'true {out}', sleeper(tmp_path))
    unfinished(folder, 0, done)
    before = contents(tmp_path)
    out, _ = im_pipeline(path, '1', '--estimate', '-j', 1, *GA_RUNS)
    assert expected <= seconds_in(out) < 38 and '; of 1 begun run only what is left is counted' in out
    assert contents(tmp_path) == before


def test_what_is_done_is_not_to_do(tmp_path, scratch):
    path, folder = spec_with(tmp_path, 'true {out}', sleeper(tmp_path, 0.001, num=5))
    im_pipeline(path, '1', '-q', '-j', 2, *GA_RUNS, 'run=0')
    assert im_pipeline(path, '1', '--estimate', '-q', *GA_RUNS)[0].startswith('1 of 2 runs to do: ')
    im_pipeline(path, '1', '-q', '-j', 2, '--resume', *GA_RUNS)
    before = contents(tmp_path)
    out, err = im_pipeline(path, '1', '--estimate', *GA_RUNS)
    following = f'im_pipeline.py {path} 2_eval {" ".join(GA_RUNS)}'
    assert out == '2 of 2 runs are done: nothing to do\n' and err == f'next: python scripts/{following}\n'
    assert contents(tmp_path) == before and not list(scratch.iterdir())


def test_other_programs_and_pipes_are_not_run(tmp_path):
    path, folder = spec_with(tmp_path, f'{sleeper(tmp_path)} > {tmp_path}/seen.txt', f'python {write_program(tmp_path)} {{out}}')
    out, _ = im_pipeline(path, '1', '--estimate', *CARTPOLE)
    assert out == '4 of 4 runs to do; how long that takes is not known: only plain commands of imitate_mj.py can be measured\n'
    assert not (tmp_path / 'seen.txt').exists() and starts(folder) == {}
    path, _ = spec_with(tmp_path, f'{sleeper(tmp_path)} --max_iter $N', sleeper(tmp_path))
    out, _ = im_pipeline(path, '1', '--estimate', '-j', 1, *CARTPOLE)
    assert 40 <= seconds_in(out) < 80
    assert out.endswith('; 2 runs of commands that cannot be measured (not plain imitate_mj.py) come on top\n')


@pytest.mark.parametrize(
    ('tail', 'literal'),
    [('--max_iter $N', False), ('"$N"', False), ('$(y)', False), ('`y`', False), ('| y', False), ("'$N'", True), (r'\$N', True)],
)
def test_words_that_the_shell_would_change_are_seen(tail, literal):
    assert Command(f"python imitate_mj.py --data 'a b' {tail}").is_literal == literal


@pytest.mark.parametrize('stage', ['1_train', 'all'])
def test_a_command_that_fails_is_said_in_one_sentence_and_nothing_is_trained(tmp_path, scratch, stage):
    path, folder = spec_with(tmp_path, 'true {out}', f'{OURS} --mode ga {NO_NETS}')
    _, err = im_pipeline(path, stage, '--estimate', '--resume', '-q', *GA_RUNS, code=1)
    last = err.splitlines()[-1]
    assert last.startswith(
        'im_pipeline: error: alg=ga,task=cartpole,num_trajs=4,run=1 failed with exit code 2 when its first iterations were measured: '
        "imitate_mj: error: hidden spec 'x': not JSON"
    )
    assert last.endswith('; nothing was trained (-k trains all the same)') == (stage == 'all')
    assert not list(folder.glob('alg=*')) and not list(folder.glob('logs/*')) and not list(scratch.iterdir())
    if stage == '1_train':
        assert not folder.exists() and len(err.splitlines()) == 1


def test_keep_going_trains_the_others_all_the_same(tmp_path):
    path, folder = spec_with(tmp_path, f'python {write_program(tmp_path)} {{out}}', f'{OURS} --mode ga {NO_NETS}')
    _, err = im_pipeline(path, 'all', '--estimate', '--resume', '-k', *CARTPOLE, code=1)
    assert re.search(r"(?m)^no estimate: alg=ga,.*hidden spec 'x': not JSON .*; training goes on$", err)
    assert '2 of 4 runs did not finish' in err
    assert len(starts(folder)) == 2


def test_a_damaged_checkpoint_keeps_no_other_run_from_training(tmp_path):
    small = '--max_iter 2 --min_total_sa 200 --sim_batch_size 1'
    path, folder = spec_with(tmp_path, 'true {out}', f'{OURS} --mode ga {small}')
    folder.mkdir()
    part = folder / 'alg=ga,task=cartpole,num_trajs=4,run=0.h5.part'
    part.write_text('no HDF5')
    said = f'{part}: not a readable HDF5 file (truncated, damaged, or of another kind); expected a training log'
    assert im_pipeline(path, '1', '--estimate', *GA_RUNS, code=2)[1] == f'im_pipeline: error: {said}\n'
    _, err = im_pipeline(path, 'all', '--resume', '--estimate', '-k', *GA_RUNS, code=1)
    assert f'\nno estimate: {said}; training goes on\n' in err and '1 of 2 runs did not finish' in err
    assert [p.name for p in folder.glob('*.h5')] == ['alg=ga,task=cartpole,num_trajs=4,run=1.h5'] and part.read_text() == 'no HDF5'


def test_a_log_without_times_does_not_stop_training(tmp_path):
    template = sleeper(tmp_path, 0.001, num=5)
    program = tmp_path / 'imitate_mj.py'
    program.write_text(program.read_text().replace("'ttotal'", "'hours'"))
    path, folder = spec_with(tmp_path, 'true {out}', template)
    _, err = im_pipeline(path, 'all', '--resume', '--estimate', '-j', 1, *GA_RUNS, 'run=0', code=2)  # 2_eval wants more than times
    assert 'no estimate: the log of alg=ga,task=cartpole,num_trajs=4,run=0 has no times (column ttotal of its table /log); training' in err
    assert len(list(folder.glob('alg=*.h5'))) == 1


@pytest.mark.parametrize(('signum', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_ends_it_and_leaves_nothing_behind(tmp_path, scratch, signum, code):
    path, folder = spec_with(tmp_path, 'true {out}', sleeper(tmp_path, seconds=100))
    with started_pipeline(path, '1', '--estimate', *GA_RUNS) as pipeline:
        log = wait_until(lambda: next((p for p in scratch.rglob('*.txt') if 'process' in p.read_text()), None))
        pid = int(log.read_text().split()[-1])
        pipeline.send_signal(signum)
        _, err = pipeline.communicate(timeout=30)
    assert pipeline.returncode == code
    assert err.splitlines()[1:] == [f'im_pipeline: stopped by {signum.name}; the estimate leaves nothing behind']
    assert not lives(pid) and not list(scratch.iterdir()) and not folder.exists()


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['0_sampletrajs'], "--estimate with stage '0_sampletrajs'; expected 1_train or all"),
        (['2'], "--estimate with stage '2'; expected 1_train or all"),
        (['1', '--dry-run'], '--estimate with --dry-run, which runs nothing; expected'),
        (['1', '--summary'], '--estimate with --summary: one measures'),
        (['1', '-e', 'slurm'], '--estimate with -e slurm; expected 1_train or all on this computer'),
        (['1', '--set', 'training.algorithms.ga.cmd=python imitate_mj.py --max_iter 1e3 {out}'], "has --max_iter '1e3'; expected a whole"),
    ],
)
def test_what_cannot_be_estimated_is_refused(tmp_path, args, message):
    path, folder = spec_with(tmp_path, 'true {out}', sleeper(tmp_path))
    (tmp_path / 'imitate_mj.py').write_text('')
    _, err = im_pipeline(path, *args, '--estimate', '--only', 'alg=ga', 'task=cartpole', code=2, cwd=tmp_path)
    assert message in err and len(err.splitlines()) == 1 and not folder.exists()


def test_without_expert_data_it_says_how_to_make_them(tmp_path):
    path, folder = spec_with(tmp_path, 'true {out}', write_script(tmp_path, 'x.sh', ''))
    (tmp_path / 'store' / 'trajs' / 'trajs_cartpole.h5').unlink()
    _, err = im_pipeline(path, '1', '--estimate', code=2)
    assert 'trajs_cartpole.h5: no such file; expected the expert trajectories' in err and '0_sampletrajs' in err


@pytest.mark.parametrize(
    ('seconds', 'words'),
    [
        (0, 'less than a second'),
        (0.6, 'about 1 second'),
        (7.4, 'about 7 seconds'),
        (89, 'about 89 seconds'),
        (90, 'about 2 minutes'),
        (4800, 'about 80 minutes'),
        (7300, 'about 2.0 hours'),
        (36000, 'about 10 hours'),
        (300000, 'about 3.5 days'),
        (9e7, 'about 1042 days'),
    ],
)
def test_durations_read_well(seconds, words):
    assert estimate.in_words(seconds) == words
