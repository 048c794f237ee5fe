"""An environment that ends its process is a failure of the run that plays it, in every command and from Python."""

import sys

import pytest
from command_tools import run_command
from exploits import demonstrations, policy
from pipeline_tools import spec_text

import policyopt as po

MODULE = """
import gymnasium, os, sys
import numpy as np

def leave(where):
    if where == {where!r}:
        {exits}

class Line(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {{'render_modes': ['rgb_array']}}

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0
        leave('make')

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if self.steps or self.render_mode:
            leave('reset')
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), {{}}

    def step(self, action):
        self.steps += 1
        if self.steps > 3:
            leave('step')
        return self.np_random.uniform(-1, 1, 4).astype(np.float32), 1.0, self.steps % 5 == 0, False, {{}}

    def render(self):
        leave('render')
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        leave('close')

leave('import')
gymnasium.register('Line-v0', Line, max_episode_steps=10)
"""
EXITS = {'os._exit(0)': 'SystemExit: os._exit(0)', 'sys.exit(0)': 'SystemExit: 0', 'exit()': 'SystemExit'}
PLACES = {
    'import': "importing the module 'mine_WHERE' failed with",
    'make': "env 'mine_WHERE:Line-v0' could not be made:",
    'reset': "env 'mine_WHERE:Line-v0' failed in reset() with",
    'step': "env 'mine_WHERE:Line-v0' failed in step() with",
}
# more episodes than environments stepped at once (256), so that some environment is reset again
COMMANDS = {
    'imitate_mj': '--mode ga --data t.h5 --env_name ENV --max_iter 1 --min_total_sa 60 --sim_batch_size 1 --seed 0 --log out.h5',
    'run_rl_mj': '--env_name ENV --max_iter 1 --min_total_sa 60 --sim_batch_size 1 --seed 0 --log out.h5',
    'vis_mj': 'p.h5/snapshots/last --env_name ENV --eval_only --count 600 --seed 0 --out out.h5',
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    demonstrations(tmp_path / 't.h5')
    policy(tmp_path / 'p.h5')
    return tmp_path


def write(place, where, exits):
    """An environment that ends its process there; returns its name."""
    (place / f'mine_{where}.py').write_text(MODULE.format(where=where, exits=exits))
    return f'mine_{where}:Line-v0'


def command(place, script, *args):
    return run_command(f'{script}.py', *args, cwd=place, rc=None, timeout=100)


FAST = ('imitate_mj', 'step'), ('run_rl_mj', 'import'), ('vis_mj', 'reset')


@pytest.mark.parametrize(
    ('script', 'where'),
    [pytest.param(s, w, marks=() if (s, w) in FAST else pytest.mark.slow) for s in COMMANDS for w in PLACES],
)
def test_a_command_fails_with_one_message(script, where, place):
    name = write(place, where, 'os._exit(0)')
    done = command(place, script, *COMMANDS[script].replace('ENV', name).split())
    *_, last = done.stderr.splitlines()
    assert done.returncode == (1 if where in ('reset', 'step') else 2), done.stderr
    assert last.startswith(f'{script}: error: ') and PLACES[where].replace('WHERE', where) in last and EXITS['os._exit(0)'] in last
    assert 'Traceback' not in done.stderr and not (place / 'out.h5').exists()


@pytest.mark.parametrize(('where', 'said'), [('step', 'KeyboardInterrupt was raised'), ('close', 'failed in close() with ValueError: no')])
def test_an_exception_of_the_environment_is_a_failed_run(where, said, place):
    name = write(place, where, 'raise KeyboardInterrupt' if where == 'step' else 'raise ValueError("no")')
    done = command(place, 'run_rl_mj', *COMMANDS['run_rl_mj'].replace('ENV', name).split())
    assert done.returncode == 1 and said in done.stderr and 'Traceback' not in done.stderr, done.stderr


@pytest.mark.parametrize('where', ['make', 'step'])
def test_a_log_stays_where_it_is_when_an_environment_changes_the_folder(where, place):
    (place / 'sub').mkdir()
    name = write(place, where, f'os.chdir({str(place / "sub")!r})')
    done = command(place, 'run_rl_mj', *COMMANDS['run_rl_mj'].replace('ENV', name).split())
    assert done.returncode == 0 and 'done: out.h5' in done.stdout, done.stderr
    assert [p.name for p in place.glob('**/out.h5*')] == ['out.h5'] and (place / 'out.h5').exists()


@pytest.mark.parametrize('where', ['render', 'close'])
def test_an_animation_fails_with_one_message(where, place):
    name = write(place, where, 'os._exit(0)')
    done = command(place, 'vis_mj', 'p.h5/snapshots/last', '--env_name', name, '--gif', 'out.gif', '--frames', '3', '--seed', '0')
    assert done.returncode in (1, 2) and f"env '{name}' failed in {where}() with SystemExit: os._exit(0)" in done.stderr
    assert 'Traceback' not in done.stderr and not (place / 'out.gif').exists()


@pytest.mark.parametrize('exits', EXITS)
@pytest.mark.parametrize('where', PLACES)
def test_from_python_it_is_an_exception_of_ours(where, exits, place):
    name = write(place, where, exits)
    sys.modules.pop(f'mine_{where}', None)
    with pytest.raises((po.UserError, po.RunFailed)) as e:
        po.train('trpo', env=name, iterations=1, seed=0, min_total_sa=60, progress=False)
    assert EXITS[exits] in str(e.value) and f'mine_{where}' in str(e.value)


def test_a_function_that_exits_is_an_exception_of_ours():
    with pytest.raises(po.UserError, match=r'calling <lambda>\(\) failed with SystemExit: 3'):
        po.train('trpo', env=lambda: sys.exit(3), iterations=1, seed=0)


TRAIN = (
    'python scripts/imitate_mj.py --mode ga --env_name {env} --data {dataset} --limit_trajs {num_trajs} '
    '--data_subsamp_freq {data_subsamp_freq} --max_iter 1 --min_total_sa 60 --seed {seed} --log {out}'
)
LINE = {'name': 'line', 'env': 'mine:Line-v0', 'policy': 'p.h5/snapshots/last', 'cuts_off_on_success': False, 'data_subsamp_freq': 1}


@pytest.mark.parametrize('where', [pytest.param('import', marks=pytest.mark.slow), 'step'])
def test_every_stage_fails_with_one_message(where, place):
    good, bad = MODULE.format(where='', exits='pass'), MODULE.format(where=where, exits='os._exit(0)')
    module = place / 'mine.py'
    spec = place / 'spec.yaml'
    spec.write_text(spec_text({'ga': TRAIN}, [LINE], full_dataset_num_trajs=3))

    def stage(num, text, code):
        module.write_text(text)
        done = command(place, 'im_pipeline', str(spec), num, '-j', '1', '--resume')
        assert done.returncode == code and 'Traceback' not in done.stderr, done.stderr
        return done.stderr

    for num in '012':
        said = stage(num, bad, 2 if where == 'import' and num != '1' else 1)
        assert 'SystemExit: os._exit(0)' in said
        stage(num, good, 0)
