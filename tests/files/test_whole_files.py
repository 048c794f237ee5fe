"""Files appear whole and never in place of finished ones; long texts, locks of other programs and unknown filters are no damage."""

import fcntl
import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tables
from conftest import REPO, script_env
from exploits import demonstrations, policy
from pipeline_tools import im_pipeline, write_spec
from results_tools import small_results
from training_tools import TINY_NET, command

from policyopt import provenance
from policyopt.errors import RunFailed, UserError
from policyopt.files import hdf5, results_file
from policyopt.files.atomic import write_text, writing
from policyopt.files.training_log import TrainingLog, read_log, read_root, write_log
from policyopt.files.trajectory_file import load_trajs, save_trajs
from policyopt.pipeline import sample_stage
from policyopt.pipeline.spec import load_spec
from policyopt.trajectories import TrajBatch

RUN = ['imitate_mj.py', '--mode', 'ga', '--data', 't.h5', '--env_name', 'CartPole-v0', '--policy_hidden_spec', TINY_NET, '--seed', '3']
RUN += ['--min_total_sa', '150', '--sim_batch_size', '1', '--max_iter', '31', '--save_freq', '5']


# ---- created, never replaced


def test_of_two_writers_the_first_one_keeps_the_name(tmp_path):
    path = str(tmp_path / 'a.txt')
    with pytest.raises(FileExistsError), writing(path) as mine, open(mine, 'w') as f:
        f.write('second')
        with writing(path) as theirs, open(theirs, 'w') as g:
            g.write('first')
            assert theirs != mine
    assert open(path).read() == 'first' and os.listdir(tmp_path) == ['a.txt']
    with writing(path, replace=True) as tmp, open(tmp, 'w') as f:
        f.write('third')
    assert open(path).read() == 'third' and os.listdir(tmp_path) == ['a.txt']


def test_where_there_are_no_hard_links_a_file_is_created_all_the_same(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, 'Operation not permitted')

    monkeypatch.setattr(os, 'link', refuse)
    test_of_two_writers_the_first_one_keeps_the_name(tmp_path)


def test_a_leftover_of_a_process_with_our_number_is_in_nobodys_way(tmp_path):
    left = tmp_path / f'a.txt.{provenance.process_name()}.tmp'
    left.write_text('half')
    write_text(str(tmp_path / 'a.txt'), 'whole')
    assert (tmp_path / 'a.txt').read_text() == 'whole' and left.read_text() == 'half'


def test_processes_of_one_name_in_two_containers_share_no_temporary_file(tmp_path):
    names = set()
    for _ in range(2):
        fresh = runpy.run_module('policyopt.files.atomic')
        with fresh['writing'](str(tmp_path / 'a.txt'), replace=True) as tmp:
            Path(tmp).write_text('whole')
            names.add(tmp)
    assert len(names) == 2


@pytest.mark.parametrize('kind', ['trajectories', 'results', 'run'])
def test_finished_data_that_appears_meanwhile_is_kept(kind, tmp_path):
    path = str(tmp_path / 'a.h5')
    trajs = TrajBatch(np.zeros((3, 4)), np.zeros((3, 0)), np.zeros((3, 1), int), np.ones(3), [3])
    log = TrainingLog(path, {'args': '{}'})
    log.append([('iter', 0, int)])
    write = {
        'trajectories': lambda: save_trajs(path, trajs, {}),
        'results': lambda: results_file.write_results(path, [], [], {}),
        'run': lambda: log.finish({}),
    }[kind]
    (tmp_path / 'a.h5').write_text('theirs')
    with pytest.raises(RunFailed, match=r'a\.h5: exists by now, and finished data is never overwritten'):
        write()
    assert (tmp_path / 'a.h5').read_text() == 'theirs' and os.listdir(tmp_path) == ['a.h5']


def test_trajectories_that_another_stage_0_has_made_since_are_kept(tmp_path):
    path = write_spec(tmp_path)
    spec, wanted = load_spec(str(path)), [('cartpole', 0)]
    plan = sample_stage.check_all(spec, wanted, 0, resume=False)
    im_pipeline(path, '0', '-q')
    before = {p.name: p.read_bytes() for p in (tmp_path / 'store' / 'trajs').iterdir()}
    sample_stage.sample_all(spec, plan, 0)
    assert {p.name: p.read_bytes() for p in (tmp_path / 'store' / 'trajs').iterdir()} == before


def test_two_runs_cannot_have_one_log(tmp_path):
    demonstrations(tmp_path / 't.h5')
    pipe = subprocess.PIPE
    words = [*command(RUN), '--log', 'a.h5']
    both = [subprocess.Popen(words, cwd=tmp_path, env=script_env(), stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    said = [p.communicate(timeout=300) for p in both]
    codes = sorted(p.returncode for p in both)
    assert codes in ([0, 1], [0, 2]), said
    out, err = said[[p.returncode == 0 for p in both].index(False)]
    assert (
        'done' not in out
        and err.count('\n') == 1
        and ('Two runs cannot have one --log' in err or 'exists already' in err or 'unfinished run' in err)
    )
    assert len(read_log(tmp_path / 'a.h5')) == 31 and not list(tmp_path.glob('a.h5.*'))


def test_a_run_whose_lock_was_taken_over_writes_nothing_more(tmp_path):
    demonstrations(tmp_path / 't.h5')
    words = [sys.executable, '-u', *command(RUN)[1:], '--max_iter', '2000', '--log', 'a.h5']
    with subprocess.Popen(words, cwd=tmp_path, env=script_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if line.split()[0] == '6')
        lock = tmp_path / 'a.h5.lock'
        theirs = json.dumps(json.loads(lock.read_text()) | {'host': 'elsewhere', 'pid': 7})
        (tmp_path / 'new').write_text(theirs)
        os.replace(tmp_path / 'new', lock)
        process.stdout.read()
        err = process.stderr.read()
    assert process.returncode == 1 and 'a.h5.lock: was taken over by process 7 on elsewhere' in err and err.count('\n') == 1
    assert lock.read_text() == theirs and len(read_log(tmp_path / 'a.h5.part')) < 2000


def test_a_link_to_nothing_is_no_place_for_an_output(tmp_path, run_script):
    policy(tmp_path / 'p.h5')
    os.symlink(tmp_path / 'nowhere' / 'x.h5', tmp_path / 'x.h5')
    done = run_script('vis_mj.py', 'p.h5/snapshots/last', '--count', 1, '--out', 'x.h5', rc=2)
    assert 'x.h5: is a link to nothing' in done.stderr


# ---- long texts


def test_texts_of_more_than_64_kb_are_kept_beside_the_attributes(tmp_path):
    long, limit = 'ä' * 50000, 'x' * hdf5.LONGEST_ATTR
    small_results(tmp_path / 'small.h5')
    small = results_file.read_results(str(tmp_path / 'small.h5'))
    results_file.write_results(str(tmp_path / 'r.h5'), small.rows, small.tasks, {'spec': long, 'run_name': limit, 'training_host': 'a'})
    assert (
        results_file.read_results(str(tmp_path / 'r.h5')).attrs.items() >= {'spec': long, 'run_name': limit, 'training_host': 'a'}.items()
    )
    table = np.zeros(1, dtype=[('iter', int)])
    write_log(str(tmp_path / 'l.h5'), table, {'args': json.dumps({'policy_hidden_spec': long}), 'command': 'short'})
    root = read_root(str(tmp_path / 'l.h5'))
    assert root['args'] == {'policy_hidden_spec': long} and root['command'] == 'short'
    log = TrainingLog(str(tmp_path / 'a.h5'), {'args': json.dumps({'spec': long})})
    log.save({'/x': np.zeros(1)})
    again = TrainingLog(str(tmp_path / 'a.h5'), {})
    again.restore(again.part_path)
    assert again.attrs == log.attrs
    with tables.open_file(tmp_path / 'r.h5') as h5:  # as the page on formats says
        assert h5.root.long_attributes.spec.read().tobytes().decode() == long


def test_a_name_that_no_table_holds_is_refused_before_anything_runs(tmp_path, run_script):
    demonstrations(tmp_path / 't.h5')
    (tmp_path / 'long_env.py').write_text(f"import gymnasium\ngymnasium.register('{'x' * 70000}-v0', entry_point=lambda: 1 / 0)\n")
    words = ['--mode', 'bclone', '--data', 't.h5', '--log', 'a.h5', '--env_name', f'long_env:{"x" * 70000}-v0']
    done = run_script('imitate_mj.py', *words, rc=2)
    assert 'of 70012 characters; expected an environment' in done.stderr and len(done.stderr) < 500
    assert sorted(os.listdir(tmp_path)) == ['long_env.py', 't.h5']


def test_a_long_text_that_is_none_is_refused(tmp_path):
    with tables.open_file(tmp_path / 'l.h5', 'w') as h5:
        h5.create_table('/', 'log', obj=np.zeros(1, dtype=[('iter', int)]))
        h5.create_array('/long_attributes', 'args', np.zeros((2, 2)), createparents=True)
    with pytest.raises(UserError, match="the attribute 'args' of / is not a text"):
        read_root(str(tmp_path / 'l.h5'))


# ---- what is not damage

NO_FLOCK = """
#include <errno.h>
int flock(int fd, int operation) { errno = ENOLCK; return -1; }
"""


@pytest.mark.skipif(sys.platform != 'linux' or shutil.which('cc') is None, reason='needs a C compiler to imitate a disk without locks')
@pytest.mark.parametrize('sealed', [True, False])
def test_a_file_system_without_locks_is_read_all_the_same(sealed, tmp_path):
    (tmp_path / 'no.c').write_text(NO_FLOCK)
    subprocess.run(['cc', '-shared', '-fPIC', '-o', tmp_path / 'no.so', tmp_path / 'no.c'], check=True)
    demonstrations(tmp_path / 't.h5')
    if not sealed:
        with tables.open_file(tmp_path / 't.h5', 'a'):
            pass
    words = [sys.executable, REPO / 'scripts' / 'print_saved_returns.py', 't.h5']
    env = {k: v for k, v in script_env(LD_PRELOAD=str(tmp_path / 'no.so')).items() if k != 'HDF5_USE_FILE_LOCKING'}
    code = 'import tables; tables.open_file("t.h5")'
    assert (
        'unable to lock file' in subprocess.run([sys.executable, '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True).stderr
    )
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == '', done.stderr


@pytest.mark.parametrize('sealed', [True, False])
def test_a_file_that_a_viewer_has_open_is_in_use(sealed, tmp_path, run_script):
    small_results(tmp_path / 'r.h5')
    if not sealed:
        os.truncate(tmp_path / 'r.h5', os.path.getsize(tmp_path / 'r.h5') - 3000)
    with open(tmp_path / 'r.h5', 'rb') as viewer:
        fcntl.flock(viewer, fcntl.LOCK_EX)
        done = run_script('analyze_results.py', 'r.h5', rc=2)
    assert 'r.h5: is in use: another program (a viewer?) has it open for writing' in done.stderr
    assert 'damaged' not in done.stderr


def test_a_file_with_a_filter_that_is_not_here_needs_the_filter(tmp_path):
    with tables.open_file(tmp_path / 't.h5', 'w') as h5:
        for name, shape in (('obs_B_T_Do', (2, 5, 4)), ('a_B_T_Da', (2, 5, 1)), ('r_B_T', (2, 5))):
            h5.create_carray('/', name, obj=np.ones(shape), filters=tables.Filters(1, 'bzip2'))
        h5.create_array('/', 'len_B', np.full(2, 5))
    data = (tmp_path / 't.h5').read_bytes()
    assert data.count(b'bzip2\0') == 3
    for at in (i for i in range(len(data)) if data.startswith(b'bzip2\0', i)):
        data = data[: at - 8] + data[at - 8 : at].replace(b'\x33\x01', b'\x00\x7d') + b'lzf\0\0\0' + data[at + 6 :]
    (tmp_path / 't.h5').write_bytes(data)
    with pytest.raises(UserError, match=r"'/a_B_T_Da' needs the filter 'lzf' \(number 32000\), .* h5repack") as e:
        load_trajs(str(tmp_path / 't.h5'))
    assert 'damaged' not in str(e.value)


@pytest.mark.skipif(os.getuid() != 0, reason='becomes another user')
@pytest.mark.parametrize('read', ['open_h5(path, "x").__enter__()', 'read_source(path)'])
def test_a_file_that_may_not_be_read_is_not_called_damaged(read):
    code = 'import os, tempfile; from policyopt.errors import UserError; from policyopt.files.hdf5 import open_h5\n'
    code += 'from policyopt.files.importers import read_source; _, path = tempfile.mkstemp(".h5", dir="/tmp"); os.setuid(65534)\n'
    code += f'try: {read}\nexcept UserError as e: print(e)\n'
    done = subprocess.run([sys.executable, '-c', code], env=script_env(), capture_output=True, text=True)
    assert 'cannot be read (Permission denied)' in done.stdout, done.stderr
    os.unlink(done.stdout.partition(':')[0])


def test_the_name_of_a_process_in_a_container_says_which(monkeypatch):
    monkeypatch.setattr(provenance, 'pid_namespace', lambda: 'pid:[4026539999]')
    assert provenance.process_name() == f'{platform.node()}.4026539999.{os.getpid()}'
