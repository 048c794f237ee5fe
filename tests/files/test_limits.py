"""Nothing finished is overwritten, and what no computer could do is answered before the work: one sentence, exit code 2."""

import subprocess
import sys

import pytest
import tables
from conftest import REPO, script_env
from exploits import demonstrations, policy
from results_tools import small_results
from test_bad_input import spec, state

LONG = 'x' * 300
ANALYZE = 'analyze_results.py r.h5'
SHOW = 'vis_mj.py p.h5/snapshots/last'
PLAY = f'{SHOW} --count 2'
TRAIN = 'imitate_mj.py --mode ga --data t.h5 --env_name CartPole-v0 --max_iter 1 --min_total_sa 100 --seed 0'
CLONE = 'imitate_mj.py --mode bclone --data t.h5 --env_name CartPole-v0 --max_iter 1 --seed 0'
RL = 'run_rl_mj.py --env_name CartPole-v0 --max_iter 1 --min_total_sa 100 --seed 0'
BRACKETS = '[' * 20000
OUTPUTS = {
    **{f'the results as {kind}': (f'{ANALYZE} --{kind} r.h5', 'r.h5: is an input') for kind in ('csv', 'html', 'latex', 'markdown')},
    'the reference as a table': (f'{ANALYZE} --reference ref.csv --csv ref.csv', 'ref.csv: is an input'),
    'the results by another way': (f'{ANALYZE} --html ../{{here}}/r.h5', 'is an input of this command'),
    'other finished data as a table': (f'{ANALYZE} --markdown t.h5', 't.h5: is an HDF5 file'),
    'one file for two tables': (f'{ANALYZE} --markdown a --latex a', 'a: is named for two outputs'),
    'a table per cell over an input': ('analyze_results.py r_cells.csv --csv r.csv', 'r_cells.csv: is an input'),
    'a table over a file that is none': (f'{ANALYZE} --csv plain.csv', 'plain.csv: is there, and is not a table of an earlier run'),
    'a table of logs over a file that is none': ('export_log.py p.h5 --csv plain.csv', 'is not a table of logs of an earlier run'),
    'a folder as a page': (f'{ANALYZE} --html .', 'not of a folder'),
    'a device as a page': (f'{ANALYZE} --html /dev/null', 'is no regular file'),
    'a link as a table': (f'{ANALYZE} --csv link.csv', 'link.csv: is a link to another file (plain.csv); give the name of the file itself'),
    'a folder that only seems to be there': (f'{ANALYZE} --html x/../out.html', "the folder 'x/..' for a table does not exist"),
    'a name with marks of direction': ([*ANALYZE.split(), '--csv', 'a\u202evsc.h5'], 'has control characters, marks of direction or bytes'),
    'a long name for a table': (f'{ANALYZE} --csv {LONG}.csv', 'too long'),
    'an animation over its policy': (f'{SHOW} --gif p.h5', 'p.h5: is an input'),
    'an animation over finished data': (f'{SHOW} --gif t.h5', 't.h5: is an HDF5 file'),
    'an animation over another kind of file': (f'{SHOW} --gif plain.csv', 'plain.csv: cannot write an animation of this kind'),
    'trajectories over their policy': (f'{PLAY} --out p.h5', 'p.h5: exists already'),
    'trajectories and animation in one': (f'{PLAY} --out n.h5 --gif n.gif', '--gif n.gif has no effect with --out'),
    'an animation beside a score': (f'{SHOW} --eval_only --gif n.gif', '--gif n.gif has no effect with --eval_only'),
    'episodes of an animation': (f'{PLAY} --gif n.gif', '--count 2 has no effect without --eval_only, --out or --reward'),
    'trajectories in a folder': (f'{PLAY} --out folder', 'not of a folder'),
    'no name for trajectories': (
        [*PLAY.split(), '--out', ''],
        'the argument after --out is empty, as a shell variable that is not set leaves it',
    ),
    'no name for a table': ([*ANALYZE.split(), '--csv='], '--csv= is empty'),
    'the scale of the reference as a page': (f'{ANALYZE} --reference ref.csv --html tasks.csv', 'tasks.csv: is an input'),
    'pictures into a file': ('media/video_frames.py p.h5/snapshots/last plain.csv', 'plain.csv: is no empty folder'),
    'a picture that is not wanted': ('showlog.py p.h5 --noplot --plotfile n.png', '--noplot and --plotfile contradict'),
    'a picture over finished data': ('showlog.py p.h5 --plotfile data.png', 'data.png: is an HDF5 file'),
    'a picture over its log': ('showlog.py data.png --plotfile data.png', 'data.png: is an input'),
    'a figure over its results': ('plot_results.py data.png -o data.png', 'data.png: is an input'),
    'a log below a file': (f'{TRAIN} --log p.h5/', 'not of a folder'),
    'a log with a long name': (f'{RL} --log {LONG}.h5', 'too long'),
    'a log in a folder that is not there': (f'{CLONE} --log x/../out.h5', 'does not exist; create it first'),
    'a log over its data': (f'{CLONE} --log t.h5', 't.h5: exists already'),
}
SIZES = {
    'random actions of no size': ('media/random_returns.py Pendulum-v1 --a_max nan', '--a_max nan: give a number above 0'),
    'the size of finite actions': ('media/random_returns.py CartPole-v0 --a_max 2', 'no task has continuous actions'),
    'a margin of nobody': (
        f'{ANALYZE} --reference cells.csv --margin gail=0.1',
        '--margin gail=…: no algorithm of the results is called so',
    ),
    'two margins of one': (f'{ANALYZE} --reference cells.csv --margin ga=0.1 ga=0.2', "--margin ga=0.2: 'ga' has two margins"),
    'a margin of nothing': (f'{ANALYZE} --margin 0.1', '--margin without --reference'),
    'two levels of detail': (f'{ANALYZE} --study -v 0', '--study and -v 0 both choose the columns'),
    'a level of detail without its number': (f'{ANALYZE} -v', 'argument -v/--verbosity: expected one argument'),
    'layers of 10**12 units': ([*TRAIN.split(), '--policy_hidden_spec', '[{"type": "fc", "n": 1000000000000}]'], '"n":1 to 100000'),
    'layers of true units': ([*TRAIN.split(), '--policy_hidden_spec', '[{"type": "fc", "n": true}]'], 'hidden spec, layer 0'),
    'more weights than memory': (
        [*RL.split(), '--policy_hidden_spec', '[{"type": "fc", "n": 90000}, {"type": "fc", "n": 90000}]'],
        'a net of 8100720002 parameters',
    ),
    'twenty thousand brackets': ([*RL.split(), '--policy_hidden_spec', BRACKETS], 'not JSON'),
    'a number of 5000 digits': ([*RL.split(), '--policy_hidden_spec', '9' * 5000], 'not JSON'),
    'processes by the million': (f'{RL} --sim_batch_size 100000000', '--sim_batch_size 100000000; expected a whole number, 1 to 256'),
    'a batch without end': (f'{RL} --min_total_sa 100000000000000000000', '1 or more, up to 1000000000'),
    'a save frequency of 0 when cloning': (f'{CLONE} --save_freq 0', '--save_freq 0; expected a whole number, 1 or more'),
    'a print frequency of 0 when cloning': (f'{CLONE} --print_freq 0', '--print_freq 0; expected a whole number, 1 or more'),
    'brackets in stored options': ('vis_mj.py brackets.h5/snapshots/last --eval_only', 'not JSON'),
    'brackets as stored options': ('vis_mj.py nested.h5/snapshots/last --eval_only', "attribute 'args' of / is not JSON"),
    'a device of no kind': ('im_pipeline.py spec.yaml 1 -n --device gpu\x08', "--device 'gpu\\x08': expected cpu, or cuda"),
    'episodes by the trillion': (f'vis_mj.py p.h5/snapshots/last --eval_only --count {10**20}', 'give 1 or more, up to 1000000'),
    'random episodes by the trillion': (f'media/random_returns.py CartPole-v0 --num_trajs {10**20}', 'give 1 or more, up to 1000000'),
    'an environment without spaces': (f'{RL} --env_name odd_envs:NoSpace-v0', "env 'odd_envs:NoSpace-v0'"),
    'an environment that leaves': (f'{RL} --env_name odd_envs:Leaves-v0', 'SystemExit: 7'),
    'a module that leaves': (f'{RL} --env_name leaves:CartPole-v0', "importing the module 'leaves' failed with SystemExit: 7"),
}
PIPELINE = {
    'twenty digits of episodes': ('eval_num_trajs: 3', f'eval_num_trajs: {"9" * 20}', 'options.eval_num_trajs'),
    'a trillion runs': ('runs: 1', f'runs: {10**12}', 'training.runs'),
    'a million runs of each': ('runs: 1', 'runs: 1000000', 'training.runs: 2000000 runs in all'),
    'more trajectories than memory': ('dataset_num_trajs: [1, 4]', f'dataset_num_trajs: [{10**14}]', 'training.'),
    'and as many in the file': ('full_dataset_num_trajs: 4', f'full_dataset_num_trajs: {10**14}', 'training.full_dataset_num_trajs'),
    'a field as wide as memory': ('--env {env}', '--env {num_trajs:1000000000}', "the width in '{num_trajs:1000000000}'"),
}
ODD_ENVS = """
import gymnasium
class NoSpace(gymnasium.Env):
    pass
class Leaves(gymnasium.Env):
    def __init__(self, **options):
        raise SystemExit(7)
gymnasium.register('NoSpace-v0', NoSpace)
gymnasium.register('Leaves-v0', Leaves)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with good files of each kind, and some odd ones."""
    demonstrations(tmp_path / 't.h5')
    policy(tmp_path / 'p.h5')
    policy(tmp_path / 'brackets.h5', policy_hidden_spec=BRACKETS)
    policy(tmp_path / 'nested.h5')
    with tables.open_file(tmp_path / 'nested.h5', 'a') as h5:
        h5.root._v_attrs['args'] = BRACKETS
    for name in ('r.h5', 'data.png', 'r_cells.csv'):
        small_results(tmp_path / name)
    (tmp_path / 'ref.csv').write_text('task,alg\n')
    (tmp_path / 'cells.csv').write_text('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,1\n')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'plain.csv').write_text('obs0,act\n')
    (tmp_path / 'link.csv').symlink_to('plain.csv')
    (tmp_path / 'odd_envs.py').write_text(ODD_ENVS)
    (tmp_path / 'leaves.py').write_text('raise SystemExit(7)\n')
    spec(tmp_path)
    return tmp_path


@pytest.mark.parametrize('case', OUTPUTS | SIZES)
def test_the_answer_comes_before_the_work(case, place, run_script, monkeypatch):
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    monkeypatch.syspath_prepend(place)
    line, expected = (OUTPUTS | SIZES)[case]
    script, *args = line.format(here=place.name).split() if isinstance(line, str) else line
    before = state(place)
    done = run_script(script, *args, rc=2)
    assert expected in done.stderr and done.stderr.count('\n') == 1 and len(done.stderr) < 1500, done.stderr
    assert state(place) == before


@pytest.mark.parametrize('stage', ['0', '1'])
@pytest.mark.parametrize('case', PIPELINE)
def test_a_campaign_that_cannot_be_is_refused_before_a_folder_is_made(case, stage, place, run_script):
    old, new, expected = PIPELINE[case]
    spec(place, (old, new))
    before = state(place)
    assert expected in run_script('im_pipeline.py', 'spec.yaml', stage, rc=2).stderr
    assert state(place) == before


def command(place, script, *args, **env):
    words = [sys.executable, REPO / 'scripts' / script, *args]
    return subprocess.run(words, cwd=place, env=script_env(**env), capture_output=True, timeout=60)


def test_a_name_that_is_not_utf8_is_refused(place):
    before = state(place)
    done = command(place, 'run_rl_mj.py', *RL.split()[1:], '--log', b'caf\xe9.h5')
    assert done.returncode == 2 and b'bytes that are not UTF-8 text' in done.stderr and done.stderr.count(b'\n') == 1
    assert state(place) == before


def test_a_terminal_gets_what_it_can_show(place):
    (place / 't.h5').rename(place / 'thé.h5')
    done = command(place, 'print_saved_returns.py', 'thé.h5', PYTHONIOENCODING='ascii')
    assert done.returncode == 0 and b'th?.h5: 3 trajectories' in done.stdout and done.stderr == b''
    done = command(place, 'print_saved_returns.py', 'café.h5', PYTHONIOENCODING='ascii')
    assert done.returncode == 2 and b'caf\\xe9.h5: no such file' in done.stderr


def test_the_c_locale_gets_what_it_can_show(place):
    done = command(place, 'media/env_info.py', 'CartPole-v0', LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    assert done.returncode == 0 and b'one of 0 ? 1' in done.stdout and done.stderr == b''


def test_a_full_disk_for_errors_leaves_the_exit_code(place):
    with open('/dev/full', 'w') as full:
        words = [sys.executable, REPO / 'scripts' / 'print_saved_returns.py', 'none.h5']
        assert subprocess.run(words, cwd=place, env=script_env(), stderr=full, timeout=60).returncode == 2


def test_a_deleted_current_folder_is_named(tmp_path):
    gone = tmp_path / 'gone'
    gone.mkdir()
    line = f'cd {gone} && rmdir {gone} && exec {sys.executable} {REPO}/scripts/print_saved_returns.py t.h5'
    done = subprocess.run(['sh', '-c', line], env=script_env(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'error: the current folder does not exist any more' in done.stderr and done.stderr.count('\n') == 1


def test_what_is_no_run_does_not_count_as_one(place, run_script):
    (place / 'store' / 'trajs').mkdir(parents=True)
    demonstrations(place / 'store' / 'trajs' / 'trajs_cartpole.h5')
    text = (place / 'spec.yaml').read_text()
    trainer = next(line for line in text.splitlines() if 'imitate_mj' in line)
    text = text.replace(trainer, "  - {name: bclone, cmd: 'echo hi > {out}'}").replace('4', '3')
    (place / 'spec.yaml').write_text(text)
    done = run_script('im_pipeline.py', 'spec.yaml', '1', '-j', 1, '-k', rc=1)
    assert 'what it wrote is no run (' in done.stderr
    folder = place / 'store' / 'checkpoints'
    assert not list(folder.glob('*.h5')) and len(list(folder.glob('*.h5.incomplete'))) == 2


def test_tables_that_are_no_input_may_be_replaced(place, run_script):
    for _ in range(2):
        run_script('analyze_results.py', 'r.h5', '--csv', 'نامه\u200cها.csv', '--html', 'out.html')  # a joiner is spelling
    assert (place / 'نامه\u200cها_cells.csv').exists() and (place / 'out.html').exists()
