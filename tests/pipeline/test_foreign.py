"""Programs and policies of strangers: their exits are failures of their runs, and what they leave is looked at before it counts."""

import os
import signal
import sys

import numpy as np
import pytest
from pipeline_tools import SIGNATURE, im_pipeline, ready_spec, write_spec
from test_stages import TINY

from policyopt.errors import RunFailed, UserError
from policyopt.files.results_file import read_results
from policyopt.pipeline import external_policies, stages
from policyopt.pipeline.spec import load_spec

GOOD = 'class P:\n    def act(self, obs):\n        BODY\n        return 0\ndef load(path):\n    return P()\n'
IMPORT, LOAD, ACT = '{}\n' + GOOD, GOOD.replace('return P()', '{}'), GOOD.replace('BODY', '{}')
EXITS = {
    'sys.exit(0)': 'SystemExit: 0',
    'exit()': 'SystemExit',
    'raise KeyboardInterrupt': 'KeyboardInterrupt',
    'os._exit(0)': 'ended its process with exit code 0 in the middle',
    'os.kill(os.getpid(), 9)': 'was killed by SIGKILL',
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """(spec of an algorithm 'mine' whose runs exist, a function that writes its module); the module stands in the working folder."""
    text = (
        TINY[: TINY.index('  - name: ga')]
        + '  - {name: mine, cmd: "true > {out}", policy: "my_policy:load"}\n'
        + TINY[TINY.index('options:') :]
    )
    path = write_spec(tmp_path, text=text)
    monkeypatch.chdir(tmp_path)

    def write(code):
        (tmp_path / 'my_policy.py').write_text('import os, sys\n' + code.replace('BODY', 'pass'))

    write(GOOD)
    stages.sample_trajs(load_spec(str(path)), stages.How(verbosity=-1, only=['alg=mine']))
    for run in (0, 1):
        (tmp_path / 'store' / 'checkpoints' / f'alg=mine,task=cartpole,num_trajs=2,run={run}.h5').write_text('whatever it likes')
    return path, write


@pytest.mark.parametrize('exits', EXITS)
def test_an_exit_on_import_is_found_apart(mine, exits):
    _, write = mine
    write(IMPORT.format(exits))
    with pytest.raises((UserError, RunFailed), match=f"x.yaml: place: 'my_policy:load'.* {EXITS[exits]}"):
        external_policies.check_loader('my_policy:load', 'x.yaml: place')


@pytest.mark.parametrize(
    ('where', 'exits'),
    [
        (IMPORT, 'os._exit(0)'),
        (LOAD, 'sys.exit(0)'),
        (LOAD, 'os._exit(0)'),
        (ACT, 'raise KeyboardInterrupt'),
        pytest.param(ACT, 'exit()', marks=pytest.mark.slow),
        pytest.param(LOAD, 'os.kill(os.getpid(), 9)', marks=pytest.mark.slow),
    ],
)
def test_an_exit_of_a_policy_is_a_failure_of_its_run(mine, tmp_path, where, exits):
    path, write = mine
    write(where.format(exits))
    _, err = im_pipeline(path, '2', '-q', '-j', 1, '--only', 'alg=mine', 'run=0', cwd=tmp_path, code=1)
    seen = 'act exited with None' if (where, exits) == (ACT, 'exit()') else EXITS[exits]
    assert seen in err and 'my_policy:load' in err and len(err.splitlines()) == 1
    assert not (tmp_path / 'store' / 'checkpoints' / 'results.h5').exists()


def test_good_policies_are_judged_and_a_bad_module_is_found_before_training(mine, tmp_path):
    path, write = mine
    im_pipeline(path, '2', '-q', '-j', 2, '--only', 'alg=mine', cwd=tmp_path)
    rows = read_results(str(tmp_path / 'store' / 'checkpoints' / 'results.h5')).rows
    assert [r.snapshot for r in rows] == ['my_policy:load'] * 2 and all(9 <= r.alg_traj_returns.mean() <= 11 for r in rows)
    write(IMPORT.format('sys.exit(0)'))
    logs = tmp_path / 'store' / 'checkpoints' / 'logs'
    _, err = im_pipeline(path, '1', '--resume', '--set', 'training.runs=3', cwd=tmp_path, code=2)
    assert "'my_policy:load' cannot be imported: SystemExit: 0" in err and not logs.exists()


def _started(path):
    pid = os.fork()  # what a stranger's library may do: a process that keeps the pipe open
    if pid == 0:
        signal.pause()
    with open(path, 'w') as f:
        f.write(str(pid))
    os._exit(3)


def test_what_it_has_started_does_not_keep_us_waiting(tmp_path):
    with pytest.raises(RunFailed, match='x: ended its process with exit code 3'):
        external_policies.apart('x', _started, str(tmp_path / 'pid'))
    os.kill(int((tmp_path / 'pid').read_text()), signal.SIGKILL)


# What a program leaves at {out}, and its end: whether that is a run.
WRITES = f"""
import os, sys
out, how = sys.argv[1:]
whole = {SIGNATURE!r}
with open(out + '.starts', 'a') as f:
    f.write('.\\n')
if os.path.exists(out):
    sys.exit('exists already, as write_run says it')
with open(out, 'wb') as f:
    f.write(whole if 'whole' in how else whole[:1500])
if 'fail' in how:
    sys.exit(3)
if 'killed' in how:
    os.kill(os.getppid() if 'with' in how else os.getpid(), 9), os.kill(os.getpid(), 9)
"""


def program(folder, how):
    (folder / 'writes.py').write_text(WRITES)
    path, runs = ready_spec(folder, cmd=f'{sys.executable} {folder}/writes.py {{out}} {how}')
    return [path, '--only', 'alg=ga', 'task=cartpole', 'num_trajs=1', 'run=0', '-j', 1], runs / 'alg=ga,task=cartpole,num_trajs=1,run=0.h5'


@pytest.mark.parametrize('how', ['whole,fail', 'whole,killed'])
def test_a_run_that_was_written_whole_is_done_however_its_program_ended(tmp_path, how):
    (path, *only), out = program(tmp_path, how)
    im_pipeline(path, '1', *only)
    _, err = im_pipeline(path, '1', '--resume', *only)
    assert '1 of 1 runs are done' in err and out.read_bytes() == SIGNATURE and not list(out.parent.glob('*.incomplete'))


@pytest.mark.parametrize('how', ['half', 'half,fail', 'half,killed', 'half,killed,with'])
def test_half_a_run_never_counts_and_is_out_of_the_way(tmp_path, how):
    (path, *only), out = program(tmp_path, how)
    _, err = im_pipeline(path, '1', *only, code=-9 if 'with' in how else 1)
    assert out.exists() == ('with' in how)  # nobody was left to look at it
    assert ('what it wrote is no run' in err) == (how == 'half')
    assert im_pipeline(path, '1', *only, '--summary')[0].splitlines()[-2].split()[1:4] == ['0', '0', '1']
    (tmp_path / 'writes.py').write_text(WRITES.replace('os.kill', 'print').replace('sys.exit(3)', 'pass').replace("'whole' in how", 'True'))
    im_pipeline(path, '1', '--resume', *only)
    assert out.read_bytes() == SIGNATURE and len((out.parent / f'{out.name}.starts').read_text().splitlines()) == 2
    assert len((out.parent / f'{out.name}.incomplete').read_bytes()) == 1500


def test_an_output_of_unknown_form_that_was_cut_short_is_made_again(tmp_path):
    (path, *only), out = program(tmp_path, 'half,killed,with')
    path.write_text(path.read_text().replace('- name: ga', '- name: ga\n    policy: my:load'))
    (tmp_path / 'my.py').write_text('def load(path): pass')
    im_pipeline(path, '1', *only, code=-9, cwd=tmp_path)
    assert out.exists() and im_pipeline(path, '1', *only, '--summary', cwd=tmp_path)[0].splitlines()[-2].split()[1] == '0'
    (tmp_path / 'writes.py').write_text(WRITES.replace('os.kill', 'print'))
    im_pipeline(path, '1', '--resume', *only, cwd=tmp_path)
    assert len((out.parent / f'{out.name}.starts').read_text().splitlines()) == 2
    assert '1 of 1 runs are done' in im_pipeline(path, '1', '--resume', *only, cwd=tmp_path)[1]


def test_the_answer_of_a_process_apart_is_what_the_function_returns():
    assert external_policies.apart('x', np.prod, [2, 3]) == 6
    with pytest.raises(RunFailed, match='x: failed with ValueError: '):
        external_policies.apart('x', int, 'y')
