"""The documents: every command in them is one that its own parser takes, and what is quick is run.

Run, in a temporary folder and with small settings: the Python and the commands of README.md and of the guides in docs/ that call one of our
scripts on this computer. Parsed only: what installs something, talks to a cluster or to GNU parallel, or measures (--estimate).
"""

import csv
import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, script_env

import policyopt
from policyopt import commands as cli
from policyopt.pipeline.spec import load_spec
from policyopt.torchutil import numerics

DOCS = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *sorted((REPO / 'docs').glob('*.md'))]
PIPELINE = re.search(r'(?s)```yaml\n(.*?)```', (REPO / 'docs' / 'pipelines.md').read_text(encoding='utf-8')).group(1)
# what makes a command small; argparse lets the last of two equal options count
SMALL = {
    'imitate_mj': '--max_iter 2 --min_total_sa 200',
    'imitate_mj --mode dagger': '--max_iter 31 --dagger_rounds 2 --bclone_eval_freq 10',
    'run_rl_mj': '--max_iter 2 --min_total_sa 200 --sim_batch_size 1',
    'vis_mj': '--max_traj_len 20',
}
OTHER_PROGRAMS = {
    'git',
    'cd',
    '.',
    'pip',
    'pre-commit',
    'parallel',
    'head',
    'export',
    'ffmpeg',
    '.ci/run',
    'tensorboard',
    'docker',
    'mkdocs',
}
ROBOT = """
import gymnasium
import numpy as np

class RobotEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        return np.ones(2, dtype=np.float32), 1.0, False, False, {}
"""


# As much of Stable-Baselines3 as the example touches, so that it need not be installed: a policy that always pushes right.
STAND_IN = """
import json

class PPO:
    def __init__(self, policy, env, seed, device):
        self.action = 1
    def learn(self, total_timesteps):
        pass
    def save(self, path):
        with open(path, 'w') as f:
            json.dump(self.action, f)
    @classmethod
    def load(cls, path, device):
        model = cls.__new__(cls)
        with open(path) as f:
            model.action = json.load(f)
        return model
    def predict(self, observation, deterministic=False):
        import numpy
        return numpy.array(self.action), None
"""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a document; `where` is the place of its first line."""

    where: str
    language: str
    text: str

    def commands(self):
        """Command lines, without comments; continued lines are joined."""
        for line in re.sub(r'\\\n\s*', ' ', self.text).splitlines():
            line = re.sub(r'(^|\s)#\s.*', '', line).strip()
            if line:
                yield line


def blocks(path, *languages):
    text = path.read_text(encoding='utf-8')
    return [
        Block(f'{path.name}:{text[: found.start()].count(chr(10)) + 2}', found[1], found[2])
        for found in re.finditer(r'(?ms)^```(\w*)\n(.*?)^```', text)
        if found[1] in languages
    ]


def shell_blocks(path):
    """Blocks without a language are commands."""
    return blocks(path, '', 'sh', 'bash', 'shell')


def single_commands(line):
    """The words of each command of a line that may have pipes, lists, redirections and assignments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=';&|')
    lexer.whitespace_split, lexer.commenters, words = True, '', []
    for token in [*lexer, ';']:
        if not set(token) <= set(';&|'):
            words.append(token)
            continue
        while words and re.match(r'\w+=', words[0]):
            words.pop(0)
        if words:
            yield words
        words = []


def script_of(words):
    """(name, arguments) of a command of ours, else None."""
    if words[0] == 'gail-pipeline' and len(words) > 1 and words[1] not in ('all', 'quickstart'):
        name = {short: name for name, short in cli.SHORT.items()}.get(words[1], words[1])
        return name, words[2:]
    if words[0] == 'gail-pipeline':
        return 'im_pipeline', (['pipelines/quickstart.yaml'] if 'quickstart' in words[1:2] else []) + words[2:] + ['all']
    if words[0] == 'python' and words[1].startswith('scripts/'):
        return Path(words[1]).stem, words[2:]
    return None


def parse(script, args, monkeypatch, capsys):
    """Let the script's own parser read the arguments: `--help` after them exits before anything is done. Returns the help."""
    with monkeypatch.context() as m, pytest.raises(SystemExit) as done:
        m.setattr(sys, 'argv', [])
        cli.run(script, [*args, '--help'])
    out, err = capsys.readouterr()
    assert done.value.code == 0, f'{script} {shlex.join(args)}: {err}'
    return out


@pytest.mark.parametrize('path', DOCS, ids=lambda p: p.name)
def test_every_command_is_taken_by_its_own_parser(path, monkeypatch, capsys):
    for block in shell_blocks(path):
        for words in [words for line in block.commands() for words in single_commands(line)]:
            place = f'{block.where}: {shlex.join(words)}'
            ours = script_of(words)
            if ours:
                script, args = ours
                assert os.path.isfile(cli.script_of(script)), place
                known = set(re.findall(r'(?<![\w-])--?\w[\w-]*', parse(script, args, monkeypatch, capsys)))
                flags = {re.split('=', word)[0] for word in args if re.match('--?[a-z]', word)}
                assert flags <= known, f'{place}: {flags - known} unknown'
                assert all((REPO / word).is_file() for word in args if word.startswith('pipelines/')), place
            elif words[0] == 'bash':
                assert all((REPO / word).is_file() for word in words[1:] if word.endswith(('.sh', '.yaml'))), place
            elif words[:2] == ['python', '-c']:
                compile(words[2], place, 'exec')
            elif words[0] == 'python':
                shown = re.search(rf'(?m)^# {words[1]}$|`{words[1]}`', path.read_text(encoding='utf-8'))  # a file of the reader's
                assert words[1] == '-m' or (REPO / words[1]).is_file() or shown, place
            else:
                assert words[0] in OTHER_PROGRAMS, f'{place}: neither a command of ours nor one of {OTHER_PROGRAMS}'


@pytest.mark.parametrize('path', DOCS, ids=lambda p: p.name)
def test_every_python_block_compiles(path):
    for block in blocks(path, 'python'):
        compile(block.text, block.where, 'exec')


@pytest.mark.parametrize('path', [*DOCS, REPO / 'CHANGELOG.md'], ids=lambda p: p.name)
def test_links_to_files_and_headings_lead_somewhere(path):
    for target, heading in re.findall(r'\]\((?!https?:)([^)#]*)#?([^)]*)\)', path.read_text(encoding='utf-8')):
        file = path.parent / target if target else path
        assert file.exists(), f'{path.name}: {target}'
        titles = re.findall(r'(?m)^#+ (.*)', file.read_text(encoding='utf-8')) if heading else []
        assert not heading or heading in [re.sub(r'[^\w -]', '', t).lower().replace(' ', '-') for t in titles], f'{path.name}: {heading}'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that looks like the checkout, with small pipelines, and with `python` and `gail-pipeline` as commands."""
    for name in ('scripts', 'expert_policies', 'results'):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / 'pipelines').mkdir()
    small = {'full_dataset_num_trajs: 10': 'full_dataset_num_trajs: 1', 'dataset_num_trajs: [1, 4, 7, 10]': 'dataset_num_trajs: [1]'}
    small |= {' runs: 7': ' runs: 2', '--max_iter 301': '--max_iter 2', '--min_total_sa 5000': '--min_total_sa 200'}
    text = PIPELINE
    for old, new in (small | {'eval_num_trajs: 50': 'eval_num_trajs: 2'}).items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / 'pipelines' / 'classic.yaml').write_text(text)
    (tmp_path / 'bin').mkdir()
    for name, start in {'python': '', 'gail-pipeline': '-c "from policyopt.commands import console; console()"'}.items():
        (tmp_path / 'bin' / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {start} "$@"\n')
        (tmp_path / 'bin' / name).chmod(0o755)
    (tmp_path / 'myproject').mkdir()
    (tmp_path / 'myproject' / 'robot.py').write_text(ROBOT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_run(line):
    """Whether a command line calls nothing but our scripts, on this computer, and measures nothing."""
    commands = list(single_commands(line))
    elsewhere = any({'slurm', 'array'} & set(words) and '-n' not in words for words in commands)
    ours = [script_of(words) or words[:2] == ['python', '-c'] or words[0] == 'head' for words in commands]
    return all(ours) and not elsewhere and not {'gail-pipeline', '--estimate'} & set(line.split())


def small(line):
    """A command line with the options that make it quick."""
    (first, pipe, rest), script = line.partition(' | '), script_of(next(single_commands(line)))
    name = script and script[0] + ' --mode dagger' * ('--mode dagger' in line)
    return f'{first} {SMALL.get(name, "")}{pipe}{rest}'


def run_document(path, folder, chosen=is_run):
    """Do what is written, in its order, from top to bottom; returns the command lines that were run, with what they printed.

    A block of Python or YAML becomes a file where its first line, or the sentence before it, names one.
    """
    done, namespace, text = [], {}, path.read_text(encoding='utf-8')
    for block in blocks(path, '', 'sh', 'bash', 'python', 'yaml', 'video'):
        name = re.match(r'# ([\w/]+\.py)\n', block.text) or re.search(
            r'`(\w+\.yaml)`[^`\n]*:\n\n```yaml\n$', text[: text.index(block.text)]
        )
        if name:
            Path(folder, name[1]).write_text(block.text)
        elif block.language == 'python':
            exec(compile(block.text, block.where, 'exec'), namespace)
        if block.language in ('python', 'yaml') or (block.language == 'video' and not importlib.util.find_spec('pygame')):
            continue
        for line in filter(chosen, block.commands()):
            env = script_env(PATH=f'{folder}/bin:/usr/bin:/bin')
            ended = subprocess.run(['bash', '-eo', 'pipefail', '-c', small(line)], env=env, capture_output=True, text=True, timeout=300)
            assert ended.returncode == 0, f'{block.where}: {small(line)}\n{ended.stdout}\n{ended.stderr}'
            done.append((line, ended.stdout))
    return done


def said(done, *words):
    """What the first command printed that has all of these words."""
    return next(out for line, out in done if all(word in line for word in words))


def test_the_readme_does_what_it_says(folder):
    """Its Python is examples/train.py, which tests/commands/test_api.py runs."""
    (block,) = blocks(DOCS[0], 'python')
    assert (REPO / 'examples' / 'train.py').read_text().endswith(f'\n\n{block.text}')
    lines = [line for b in shell_blocks(DOCS[0]) for line in filter(is_run, b.commands())]
    for line in lines:
        env = script_env(PATH=f'{folder}/bin:/usr/bin:/bin')
        ended = subprocess.run(['bash', '-ec', small(line)], env=env, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, f'{line}\n{ended.stdout}\n{ended.stderr}'
    assert len(lines) == 7 and (folder / 'imitation.h5').exists() and re.search(r'(?m)^ *ga +[-+−]?\d', ended.stdout)


def test_the_page_of_the_first_run(folder):
    done = run_document(REPO / 'docs' / 'first_run.md', folder)
    assert len(done) >= 5 and (folder / 'curves.png').exists() and 'trueret' in said(done, 'showlog')


def test_the_page_of_data_and_environments(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    page = REPO / 'docs' / 'data.md'
    done = run_document(page, folder)
    assert 'time limit   500 steps' in said(done, 'env_info')
    assert '3 trajectories, 120 pairs, average return 40.00 (env CartPole-v1)' in said(done, 'import_trajs', '--env_name')
    assert policyopt.load_trajs(str(folder / 'trajs_by_hand.h5')).lengths.tolist() == [30, 50, 40]
    (task,) = blocks(page, 'yaml')
    (folder / 'x.yaml').write_text(task.text + PIPELINE[PIPELINE.index('training:') :])
    assert load_spec(str(folder / 'x.yaml')).task('robot').env == 'mytasks:Robot-v0'
    first = [sys.executable, 'scripts/im_pipeline.py', 'x.yaml', '0']
    ended = subprocess.run(first, env=script_env(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_the_page_of_algorithms(folder):
    done = run_document(REPO / 'docs' / 'algorithms.md', folder)
    assert 'learned return: ' in said(done, '--reward airl.h5') and (folder / 'cartpole_again.h5').exists()
    assert 'nlabels' in said(done, 'nlabels') and (folder / 'gail_from_cloning.h5').exists()


def test_the_page_of_pipelines(folder, capsys):
    done = run_document(REPO / 'docs' / 'pipelines.md', folder)
    assert len(said(done, '-n').splitlines()) == 2
    assert re.search(r'(?m)^task +algorithm +reward_lr +reward_steps +2 trajs +expert$', said(done, 'sweep.yaml all'))
    with open(folder / 'sweep.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(r['reward_lr'], r['reward_steps']) for r in rows] == [('0.003', '1'), ('0.003', '4'), ('0.01', '1'), ('0.01', '4')]
    summary = said(done, '--only', 'reward_lr')
    assert (
        re.search(r'(?m)^ga\+reward_lr=0.003\+reward_steps=4 +cartpole +1 ', summary) and 'reward_lr=0.01+reward_steps=4  c' not in summary
    )
    made = ['runs/classic/checkpoints/results_figure1.png', 'runs/sweep/checkpoints/results_figure1.png', 'classic.html', 'logs.csv']
    assert all((folder / name).exists() for name in made)
    assert capsys.readouterr().out.count('cartpole 1 ') == 2  # the block that prints every row


def test_the_pipeline_that_is_shown_is_that_of_the_paper(tmp_path):
    (tmp_path / 'x.yaml').write_text(PIPELINE)
    spec, ours = load_spec(str(tmp_path / 'x.yaml')), load_spec(str(REPO / 'pipelines' / 'classic.yaml'))
    assert spec.task('cartpole') == ours.task('cartpole') and spec.options == dataclasses.replace(ours.options, pbs=spec.options.pbs)
    mine, theirs = (shlex.split(s.algorithm('ga').cmd) for s in (spec, ours))
    assert {'--reward_type', 'nn'} | set(mine) == {'--reward_type', 'nn'} | set(theirs)


@pytest.mark.parametrize('stand_in', [True, False])
def test_the_page_of_extending(stand_in, folder):
    if stand_in:
        (folder / 'stable_baselines3.py').write_text(STAND_IN)
    elif not importlib.util.find_spec('stable_baselines3'):
        pytest.skip('Stable-Baselines3 is not installed')
    done = run_document(REPO / 'docs' / 'extending.md', folder)
    table = said(done, 'own.yaml all')
    assert re.search(r'(?m)^cartpole +ppo +\d', table) and re.search(r'(?m)^cartpole +bclone ', table) and (folder / 'own.png').exists()
    text = (folder / 'own.yaml').read_text()
    (row,) = re.findall(r'`({name: search, .*})`', (REPO / 'docs' / 'extending.md').read_text(encoding='utf-8'))
    (folder / 'search.yaml').write_text(re.sub(r'(?s)  - name: ppo.*(?=options:)', f'  - {row}\n', text).replace('runs/own', 'runs/search'))
    ended = subprocess.run(
        ['python', 'scripts/im_pipeline.py', 'search.yaml', 'all'],
        env=script_env(PATH=f'{folder}/bin:/usr/bin:/bin'),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and re.search(r'(?m)^cartpole +search +\d', ended.stdout), ended.stderr


def test_the_page_of_python(folder, capsys):
    done = run_document(REPO / 'docs' / 'python.md', folder)
    assert len(done) == 2 and re.search(r'return -?[\d.]+ at first', capsys.readouterr().out)


@pytest.mark.parametrize('name', ['clusters', 'performance'])
def test_what_is_asked_before_training_is_answered(name, folder):
    first = [sys.executable, 'scripts/im_pipeline.py', 'pipelines/classic.yaml', '0']
    subprocess.run(first, env=script_env(), check=True, capture_output=True)
    done = run_document(REPO / 'docs' / f'{name}.md', folder, lambda line: is_run(line) and ('-n' in line or '-c' in line))
    answers = {'clusters': '#SBATCH --array=1-2', 'performance': numerics().partition(',')[0]}  # a process may hold two BLAS
    assert any(answers[name] in out for _, out in done)


def test_choosing_says_what_the_files_give():
    """Seconds a run and scores, mean and lowest run, of every shipped experiment in the second table."""
    import tables

    text = (REPO / 'docs' / 'choosing.md').read_text(encoding='utf-8').replace('−', '-')
    rows = re.findall(r'(?m)^\| `([\w/]+)` \|.*\| (\d+) \| (.*) \|$', text)
    assert len(rows) == 5
    for name, seconds, scores in rows:
        with tables.open_file(REPO / 'results' / f'{name}.h5') as f:
            assert round(float(f.root._v_attrs['training_seconds']) / len(f.root.results)) == int(seconds), name
            scale = {t['task'].decode(): (t['ex_traj_returns'].mean(), t['random_returns'].mean()) for t in f.root.tasks}
            for task, mean, lowest in re.findall(r'(\w+) (-?[\d.]+) \((-?[\d.]+)\)', scores):
                expert, random = scale[task]
                chosen = [
                    r['alg_traj_returns'].mean() for r in f.root.results if r['task'].decode() == task and r['alg'] in (b'gail', b'airl')
                ]
                found = [(mean - random) / (expert - random) for mean in chosen]
                assert (round(sum(found) / len(found), 2), round(min(found), 2)) == (float(mean), float(lowest)), (name, task)


def test_the_site_builds_without_a_warning(tmp_path):
    for package in ('material', 'mkdocs', 'mkdocstrings'):
        pytest.importorskip(package, reason=f'{package} is not installed: pip install -e .[docs]')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path / 'site')]
    done = subprocess.run(command, cwd=REPO, env=script_env(NO_MKDOCS_2_WARNING='1'), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'policyopt.train' in (tmp_path / 'site' / 'api.html').read_text(encoding='utf-8')


def test_every_script_stands_in_the_list_of_commands():
    listed = (REPO / 'docs' / 'commands.md').read_text(encoding='utf-8')
    missing = [name for name in cli.names() if not re.search(rf'\\| `(media/)?{name}\\.py', listed)]
    assert not missing, f'docs/commands.md says nothing of {missing}'


def test_pages_can_be_followed_one_after_the_other():
    """No two make an HDF5 file of the same name in the reader's folder, where the second would be refused."""
    seen = {}
    for path in DOCS:
        text = ''.join(b.text for b in blocks(path, '', 'sh', 'bash', 'python', 'minari', 'tensorboard', 'video'))
        for name in set(re.findall(r'(?<![\w/=-])\w+\.h5\b', text)):
            assert seen.setdefault(name, path.name) == path.name, f'{name} is used by {seen[name]} and {path.name}'
    assert len(seen) > 8


def test_the_folders_of_the_layout_are_there():
    (layout,) = blocks(REPO / 'CONTRIBUTING.md', 'text')
    assert all((REPO / line.split()[0]).exists() for line in layout.text.splitlines())


def test_the_readme_is_short():
    assert len(DOCS[0].read_text(encoding='utf-8').splitlines()) <= 120
