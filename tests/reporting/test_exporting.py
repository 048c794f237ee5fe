"""Logs for other programs: a CSV table and TensorBoard's files say what the logs say, also of a training that still runs."""

import csv
import importlib.util
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tables
from conftest import REPO, script_env
from results_tools import small_results

from policyopt.files.training_log import TrainingLog, read_log, read_root
from policyopt.files.training_log import write_log as write_bare


def write_log(path, num=7, running=False):
    """A log with a column of NaN, by the product itself; `running`: as the .part file of a training."""
    log = TrainingLog(str(path), {'args': '{}', 'start_time': '2026-01-01T00:00:00+00:00'})
    for i in range(num):
        log.append(
            [('iter', i, int), ('trueret', i + 0.5, float), ('valacc', None if i % 3 else 0.25, float), ('ttotal', 2.0 * (i + 1), float)]
        )
    log.add_snapshot(num - 1, {'/x': np.ones(1000)})
    if running:
        log.save({'/x': np.ones(1)})
        return log
    log.finish({})
    return log


def table(path):
    with open(path, newline='') as f:
        return list(csv.DictReader(f))


def test_a_table_has_a_line_for_every_iteration_and_skips_what_is_no_log(tmp_path, run_script):
    run = 'alg=ga,task=cartpole,num_trajs=4,run=1'
    write_log(tmp_path / f'{run}.h5')
    write_log(tmp_path / 'b.h5', 3, running=True)
    small_results(str(tmp_path / 'results.h5'))
    done = run_script('export_log.py', f'{run}.h5', 'b.h5.part', 'results.h5', 'c*.h5.part', '--csv', 'logs.csv')
    assert done.stdout == '10 rows of 2 logs: logs.csv\n'
    assert done.stderr == 'note: results.h5: is no training log: skipped\nnote: c*.h5.part: matches no file: skipped\n'
    rows = table(tmp_path / 'logs.csv')
    assert list(rows[0]) == ['log', 'alg', 'task', 'num_trajs', 'run', 'iter', 'trueret', 'valacc', 'ttotal']
    assert [r['log'] for r in rows] == [run] * 7 + ['b'] * 3 and [r['run'] for r in rows[:2]] == ['1', '1'] and rows[-1]['alg'] == ''
    assert [float(r['trueret']) for r in rows[:7]] == [i + 0.5 for i in range(7)]
    assert [r['valacc'] for r in rows[:4]] == ['0.25', '', '', '0.25']


def started(folder, *words):
    command = [sys.executable, '-u', str(REPO / 'scripts' / words[0]), *words[1:]]
    return subprocess.Popen(command, cwd=folder, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, 'it did not happen in time'
        time.sleep(0.05)


def test_a_running_log_is_followed_until_it_is_complete(tmp_path):
    log = write_log(tmp_path / 'a.h5', 3, running=True)
    out = tmp_path / 'logs.csv'
    with started(tmp_path, 'export_log.py', 'a.h5.part', '--csv', 'logs.csv', '--follow', '--interval', '0.05') as process:
        wait_for(lambda: out.exists() and len(table(out)) == 3)
        log.append([('iter', 3, int), ('trueret', 9, float), ('valacc', None, float), ('ttotal', 2.0, float)])
        log.save({'/x': np.ones(1)})
        wait_for(lambda: len(table(out)) == 4)
        log.append([('iter', 4, int), ('trueret', 8, float), ('valacc', None, float), ('ttotal', 2.0, float)])
        log.finish({})
        said, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert said == '5 rows of 1 logs: logs.csv\n' and [r['trueret'] for r in table(out)][-2:] == ['9.0', '8.0']


def test_showlog_draws_a_running_log_anew_until_it_is_complete(tmp_path):
    log = write_log(tmp_path / 'a.h5', 3, running=True)
    words = ('a.h5.part', '--fields', 'trueret', '--plotfile', 'a.png', '--follow', '--interval', '0.05')
    with started(tmp_path, 'showlog.py', *words) as process:
        first = [process.stdout.readline() for _ in range(3)]
        log.append([('iter', 3, int), ('trueret', 9, float), ('valacc', None, float), ('ttotal', 2.0, float)])
        log.finish({})
        rest, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert first[1].split() == ['a', '(running)', '2', '2.5'] and first[2] == 'wrote a.png\n'
    assert rest.splitlines()[-2].split() == ['a', '3', '9']


def test_showlog_skips_what_is_no_log(tmp_path, run_script):
    write_log(tmp_path / 'a.h5')
    small_results(str(tmp_path / 'results.h5'))
    done = run_script('showlog.py', 'a.h5', 'results.h5', '*.h5.part', '--noplot')
    assert 'note: results.h5: is no training log: skipped' in done.stderr and 'note: *.h5.part: matches no file' in done.stderr
    assert 'results.h5: is no training log; expected' in run_script('showlog.py', 'results.h5', '--noplot', rc=2).stderr.splitlines()[-1]


BAD = {
    'nothing to write': (['a.h5'], 'nothing to write; name a table with --csv FILE'),
    'the log itself': (['a.h5', '--csv', 'a.h5'], 'is an input of this command and would be lost'),
    'a log twice': (['a.h5', 'a.h5', '--csv', 'x.csv'], 'are the same; name every log once'),
    'no such log': (['b.h5', '--csv', 'x.csv'], 'b.h5: no such file'),
    'no folder': (['a.h5', '--csv', 'no/x.csv'], 'does not exist; create it first'),
    'no interval': (['a.h5', '--csv', 'x.csv', '--follow', '--interval', '0'], '--interval 0.0: expected'),
}


@pytest.mark.parametrize('case', BAD)
def test_it_is_refused_in_one_sentence_and_nothing_is_written(case, tmp_path, run_script):
    write_log(tmp_path / 'a.h5')
    before = (tmp_path / 'a.h5').read_bytes()
    args, expected = BAD[case]
    done = run_script('export_log.py', *args, rc=2)
    assert expected in done.stderr and done.stderr.count('\n') == 1
    assert os.listdir(tmp_path) == ['a.h5'] and (tmp_path / 'a.h5').read_bytes() == before


def test_tensorboard_shows_every_number_of_a_log(tmp_path, run_script):
    pytest.importorskip('tensorboard', reason="TensorBoard is not installed (pip install -e '.[tensorboard]')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_log(tmp_path / 'a.h5', 7)
    write_log(tmp_path / 'b.h5', 3, running=True)
    done = run_script('export_log.py', 'a.h5', 'b.h5.part', '--tensorboard', 'tb')
    assert 'next: tensorboard --logdir tb' in done.stderr
    for name in 'ab':
        events = EventAccumulator(str(tmp_path / 'tb' / name)).Reload()
        rows = read_log(tmp_path / ('a.h5' if name == 'a' else 'b.h5.part'))
        assert sorted(events.Tags()['scalars']) == ['trueret', 'ttotal', 'valacc']
        found = events.Scalars('trueret')
        assert [(e.step, e.value) for e in found] == [(r['iter'], r['trueret']) for r in rows]
        assert found[1].wall_time - found[0].wall_time == 2 and found[0].wall_time == 1767225602
        assert [e.step for e in events.Scalars('valacc')] == [i for i in range(len(rows)) if i % 3 == 0]
    assert 'holds an export already' in run_script('export_log.py', 'a.h5', '--tensorboard', 'tb', rc=2).stderr


def test_logs_of_other_programs_are_exported_and_drawn_as_far_as_they_hold_numbers(tmp_path, run_script):
    kinds = [('iter', int), ('trueret', float), ('stage', 'S4'), ('grad', float, (2,))]
    log = np.array([(i, 2.0 * i, b'warm', (1, 2)) for i in range(3)], dtype=kinds)
    write_bare(str(tmp_path / 'x.h5'), log, {'args': '{}', 'start_time': 'last Monday'})
    run_script('export_log.py', 'x.h5', '--csv', 'x.csv', '--logs', 'bare')
    assert [(r['trueret'], r['stage']) for r in table(tmp_path / 'x.csv')] == [(str(2.0 * i), "b'warm'") for i in range(3)]
    assert (read_log(tmp_path / 'bare' / 'x.h5') == log).all()
    assert 'trueret' in run_script('showlog.py', 'x.h5', '--noplot').stdout
    write_bare(str(tmp_path / 'text.h5'), np.array([(b'a', 1.0)], dtype=[('iter', 'S4'), ('trueret', float)]), {'args': '{}'})
    assert "has no column 'iter' of numbers" in run_script('showlog.py', 'text.h5', '--noplot', rc=2).stderr
    if importlib.util.find_spec('tensorboard'):
        with tables.open_file(str(tmp_path / 'damaged.h5'), 'w') as h5:  # without args
            h5.create_table('/', 'log', obj=log)
        assert 'args' in run_script('export_log.py', 'x.h5', 'damaged.h5', '--tensorboard', 'tb', rc=2).stderr
        assert not (tmp_path / 'tb').exists()
        run_script('export_log.py', 'x.h5', '--tensorboard', 'tb')


def test_logs_without_snapshots_hold_every_row_and_attribute_and_are_drawn(tmp_path, run_script):
    names = 'alg=ga,task=cartpole,num_trajs=4,run=1.h5', 'b.h5'
    for name in names:
        write_log(tmp_path / name)
    write_log(tmp_path / 'c.h5', 3, running=True)
    done = run_script('export_log.py', *names, 'c.h5.part', '--logs', 'curves')
    assert done.stdout == '17 rows of 3 logs: curves\n' and sorted(os.listdir(tmp_path / 'curves')) == sorted([*names, 'c.h5'])
    for name in names:
        log, bare = (read_log(str(tmp_path / folder / name)) for folder in ('.', 'curves'))
        assert log.dtype == bare.dtype and log.tobytes() == bare.tobytes()
        before, after = (read_root(str(tmp_path / folder / name)) for folder in ('.', 'curves'))
        assert {k for k in before if before[k] != after[k]} <= {'content_sha256'}
        assert after['start_time'] == '2026-01-01T00:00:00+00:00'
        with tables.open_file(tmp_path / 'curves' / name) as h5:
            assert [n._v_name for n in h5.root] == ['log']
    run_script('showlog.py', *(f'curves/{n}' for n in names), '--fields', 'trueret', '--plotfile', 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000
    done = run_script('export_log.py', *names, '--logs', 'curves', rc=2)
    assert f'curves/{names[0]}: ' in done.stderr and 'never overwritten' in done.stderr


def test_logs_of_one_name_stay_within_the_folder(tmp_path, run_script):
    for folder in ('x/a', 'x/b', 'w'):
        (tmp_path / folder).mkdir(parents=True)
    for folder in 'ab':
        write_log(tmp_path / 'x' / folder / 'l.h5')
    run_script('export_log.py', 'w/../x/a/l.h5', tmp_path / 'x/b/l.h5', '--logs', 'out')
    assert sorted(str(p.relative_to(tmp_path / 'out')) for p in (tmp_path / 'out').rglob('*.h5')) == ['a/l.h5', 'b/l.h5']
    assert 'are the same' in run_script('export_log.py', 'x/a/l.h5', 'x/./a/l.h5', '--logs', 'o2', rc=2).stderr
    (tmp_path / 'file').write_text('')
    assert 'file: cannot be a folder for logs' in run_script('export_log.py', 'x/a/l.h5', '--logs', 'file', rc=2).stderr
    assert 'named for two outputs' in run_script('export_log.py', 'x/a/l.h5', '--csv', 'o3', '--logs', 'o3', rc=2).stderr


def test_without_tensorboard_its_extra_is_named(tmp_path, run_script, monkeypatch):
    write_log(tmp_path / 'a.h5')
    monkeypatch.setitem(
        sys.modules, 'tensorboard.summary.writer.event_file_writer', None
    )  # as Python has it for a package that is not there
    done = run_script('export_log.py', 'a.h5', '--tensorboard', 'tb', rc=2)
    assert "pip install -e '.[tensorboard]'" in done.stderr and not (tmp_path / 'tb').exists()


def test_check_progress_names_the_last_snapshot_and_bad_files():
    command = [sys.executable, str(REPO / 'scripts' / 'check_progress.py'), 'expert_policies/classic', 'README.md']
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPO, env=script_env())
    assert done.returncode == 2 and 'README.md: not a readable HDF5 file' in done.stderr and 'Traceback' not in done.stderr
    assert 'expert_policies/classic/CartPole-v0.h5: iter0000100, 101 of 101 iterations' in done.stdout


def test_check_progress_reads_logs_without_snapshots(tmp_path, run_script):
    write_log(tmp_path / 'a.h5')
    run_script('export_log.py', 'a.h5', '--logs', 'bare')
    assert run_script('check_progress.py', 'bare').stdout == 'bare/a.h5: no snapshot, 7 of ? iterations\n'
