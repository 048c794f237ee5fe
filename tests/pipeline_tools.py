"""What the pipeline's tests share: spec files, a small training program that is not ours, and the real command line."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tables
import yaml
from command_tools import REPO, run_command

IM_PIPELINE = str(REPO / 'scripts' / 'im_pipeline.py')

CARTPOLE = {
    'name': 'cartpole', 'env': 'CartPole-v0', 'policy': 'expert_policies/classic/CartPole-v0.h5/snapshots/last',
    'cuts_off_on_success': False, 'data_subsamp_freq': 10,
}  # fmt: skip


def spec_text(algorithms, tasks=(CARTPOLE,), options=None, **training):
    """An experiment as YAML: {name: command or a mapping with `cmd`}, tasks, what differs in its options, and in its training."""
    algs = [{'name': name} | (cmd if isinstance(cmd, dict) else {'cmd': cmd}) for name, cmd in algorithms.items()]
    training = {'full_dataset_num_trajs': 1, 'dataset_num_trajs': [1], 'runs': 1, 'seed': 0} | training | {'algorithms': algs}
    options = {'storagedir': 'store', 'eval_num_trajs': 3} | (options or {})
    spec = {'tasks': [*tasks], 'training': training, 'options': options}
    return yaml.safe_dump(spec, sort_keys=False, default_flow_style=None, width=999)


SPEC = """
tasks:
- name: cartpole
  env: CartPole-v0
  policy: expert_policies/classic/CartPole-v0.h5/snapshots/iter0000100
  cuts_off_on_success: false
  data_subsamp_freq: 10
- name: mountaincar
  env: MountainCar-v0
  policy: expert_policies/classic/MountainCar-v0.h5/snapshots/iter0000100
  cuts_off_on_success: true
  data_subsamp_freq: 5
training:
  full_dataset_num_trajs: 4
  dataset_num_trajs: [1, 4]
  deterministic_expert: false
  runs: 2
  seed: 0
  algorithms:
  - name: bclone
    cmd: {cmd}
  - name: ga
    cmd: {cmd}
options:
  storagedir: {storage}
  eval_num_trajs: 3
"""


def _whole_run():
    """The bytes of a run file of one empty snapshot, without a seal, so that more may be appended."""
    with tables.open_file('run.h5', 'w', driver='H5FD_CORE', driver_core_backing_store=0) as h5:
        h5.create_group('/', 'snapshots')
        h5.create_group('/snapshots', 'iter0000000')
        h5.root._v_attrs['args'] = '{}'
        return h5.get_file_image()


SIGNATURE = _whole_run()  # stage 1 takes no other file for a run
# Writes {out}.part while it works, renames it when it is done, and notes each start in {out}.starts.
PROGRAM = """
import os, signal, sys, time
out, seconds = sys.argv[1], SECONDS
with open(out + '.starts', 'a') as f:
    f.write(f'{os.getpid()} {time.time()}\\n')
print('threads', os.environ['OMP_NUM_THREADS'], flush=True)
if FAIL_ON and FAIL_ON in out:
    print('\\n'.join(f'line {i}' for i in range(20)))
    sys.exit('this run cannot work')
def stop(*_):
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
with open(out + '.part', 'wb') as f:
    f.write(SIGNATURE + out.encode())
time.sleep(seconds)
os.replace(out + '.part', out)
"""


def write_program(folder, seconds=0.0, fail_on=''):
    """The stand-in training program, which works for some seconds or fails for some runs; returns its path."""
    path = Path(folder) / 'train.py'
    path.write_text(PROGRAM.replace('SECONDS', str(seconds)).replace('FAIL_ON', repr(fail_on)).replace('SIGNATURE', repr(SIGNATURE)))
    return path


def write_spec(folder, cmd=None, text=SPEC, seconds=0.0, fail_on=''):
    """spec.yaml in the folder, storage below it; the default command is the stand-in program."""
    folder = Path(folder)
    cmd = cmd or f'python {write_program(folder, seconds, fail_on)} {{out}}'
    path = folder / 'spec.yaml'
    path.write_text(text.replace('{cmd}', cmd).replace('{storage}', str(folder / 'store')))
    return path


def signature(folder):
    """A file that holds what an HDF5 file begins with, for shell commands that stand in for a training."""
    path = Path(folder) / 'signature'
    path.write_bytes(SIGNATURE)
    return path


def write_script(folder, name, text):
    """A shell script of the test; returns the command that runs it on {out}, for a template."""
    path = Path(folder) / name
    path.write_text(text)
    return f'sh {path} {{out}}'


def write_trajs(path, num=4, length=5, dims=4, **attrs):
    """A whole trajectory file of random numbers."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    rng = np.random.default_rng(0)
    with tables.open_file(str(path), 'w') as h5:
        h5.create_array('/', 'obs_B_T_Do', rng.normal(size=(num, length, dims)))
        h5.create_array('/', 'a_B_T_Da', rng.integers(0, 2, size=(num, length, 1)))
        h5.create_array('/', 'r_B_T', np.ones((num, length)))
        h5.create_array('/', 'len_B', np.full(num, length, dtype=np.int32))
        for key, value in attrs.items():
            h5.root._v_attrs[key] = value


def ready_spec(folder, **kwargs):
    """A spec whose expert data exist already, so that stage 1 can start; returns (spec path, checkpoint folder)."""
    path = write_spec(folder, **kwargs)
    for task in ('cartpole', 'mountaincar'):
        write_trajs(Path(folder) / 'store' / 'trajs' / f'trajs_{task}.h5')
    return path, Path(folder) / 'store' / 'checkpoints'


def environment(**extra):
    """The environment of a child process: this test's own, without thread settings."""
    env = {k: v for k, v in os.environ.items() if not k.endswith('_NUM_THREADS') and (k == 'SLURM_CONF' or not k.startswith('SLURM'))}
    return env | {'PYTHONPATH': str(REPO)} | extra


def im_pipeline(*args, code=0, cwd=REPO, env=None, **options):
    """`run_command` of im_pipeline.py; returns (stdout, stderr)."""
    done = run_command('im_pipeline.py', *args, rc=code, cwd=cwd, env=env or environment(), **options)
    assert 'Traceback' not in done.stderr
    return done.stdout, done.stderr


@contextlib.contextmanager
def started_pipeline(*args, cwd=REPO, stdin=None):
    """The same in the background; it and its runs are ended with the block, whatever happens in it."""
    command = [sys.executable, IM_PIPELINE, *map(str, args)]
    env, pipe = environment(), subprocess.PIPE
    pipeline = subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=env)
    try:
        yield pipeline
    finally:
        while pipeline.poll() is None:
            pipeline.terminate()
            time.sleep(0.2)
        pipeline.stdout.close()
        pipeline.stderr.close()


def wait_until(condition, seconds=20):
    """Wait for something to become true; returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            assert value, 'it did not happen in time'
            return value
        time.sleep(0.02)


def starts(folder):
    """{run id: how often its program was started}."""
    return {p.name.removesuffix('.h5.starts'): len(p.read_text().splitlines()) for p in Path(folder).glob('*.starts')}


def start_pids(folder):
    """Process ids of all programs that were started."""
    return [int(line.split()[0]) for p in Path(folder).glob('*.starts') for line in p.read_text().splitlines()]


def lives(pid):
    """Whether a process runs (zombies do not)."""
    return _processes().get(pid, (0, 'Z'))[1][0] not in 'ZX'


def children(pid):
    """The processes whose parent is the given one."""
    return [child for child, (parent, _) in _processes().items() if parent == pid]


def _processes():
    """{process id: (its parent, its state)} of this system, which need not have a /proc."""
    listing = subprocess.run(['ps', '-A', '-o', 'pid=,ppid=,stat='], capture_output=True, text=True, check=True).stdout
    return {int(pid): (int(parent), state) for pid, parent, state in map(str.split, listing.splitlines())}
