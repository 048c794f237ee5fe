"""The documents: every command in README.md, CONTRIBUTING.md and docs/ is one that its own parser takes, and what is quick is run.

Run, in a temporary folder and with small settings: the Python and the commands of README.md, docs/formats.md, docs/cluster.md and
docs/performance.md that call one of our scripts on this computer. Parsed only: what installs something (`bash scripts/….sh`, pip, git),
talks to a cluster or to GNU parallel, or measures (--estimate), and everything in the other documents, whose Python is compiled.
"""

import dataclasses
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
PIPELINE = re.search(r'(?s)```yaml\n(.*?)```', DOCS[0].read_text(encoding='utf-8')).group(1)
# what makes a command small; argparse lets the last of two equal options count
SMALL = {
    'imitate_mj': '--max_iter 2 --min_total_sa 200',
    'run_rl_mj': '--max_iter 2 --min_total_sa 200 --sim_batch_size 1',
    'vis_mj': '--count 2',
    'showlog': '--noplot',
}
OTHER_PROGRAMS = {'git', 'cd', '.', 'pip', 'pre-commit', 'parallel', 'head', 'export', 'ffmpeg', '.ci/run', 'tensorboard'}
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
    """Blocks without a language are commands, except the list of folders in the README."""
    return [b for b in blocks(path, '', 'sh', 'bash', 'shell') if 'policyopt/sampling/' not in b.text]


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
    small = {'full_dataset_num_trajs: 10 ': 'full_dataset_num_trajs: 1 ', 'dataset_num_trajs: [1, 4, 7, 10] ': 'dataset_num_trajs: [1] '}
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
    elsewhere = any('slurm' in words and '-n' not in words for words in commands)
    ours = [script_of(words) or words[:2] == ['python', '-c'] or words[0] == 'head' for words in commands]
    return all(ours) and not elsewhere and not {'gail-pipeline', '--estimate'} & set(line.split())


def run_document(path, folder):
    """Do what is written, in its order, from top to bottom; returns the command lines that were run."""
    done, namespace = [], {}
    for block in blocks(path, '', 'sh', 'bash', 'python'):
        if block.language == 'python':
            name = re.match(r'# ([\w/]+\.py)\n', block.text)
            if name:
                Path(folder, name[1]).write_text(block.text)
            else:
                exec(compile(block.text, block.where, 'exec'), namespace)
            continue
        for line in filter(is_run, block.commands() if block in shell_blocks(path) else ()):
            (first, pipe, rest), script = line.partition(' | '), script_of(next(single_commands(line)))
            command = f'{first} {SMALL.get(script[0], "") if script else ""}{pipe}{rest}'
            env = script_env(PATH=f'{folder}/bin:/usr/bin:/bin')
            ended = subprocess.run(['bash', '-eo', 'pipefail', '-c', command], env=env, capture_output=True, text=True, timeout=120)
            assert ended.returncode == 0, f'{block.where}: {command}\n{ended.stdout}\n{ended.stderr}'
            done.append((line, ended.stdout))
    return done


def test_the_readme_does_what_it_says(folder):
    done = run_document(DOCS[0], folder)
    assert 'time limit   500 steps' in next(out for line, out in done if 'env_info' in line)
    assert len(next(out for line, out in done if '-n' in line).splitlines()) == 2
    made = ['trajs_mine.h5', 'mine.h5', 'robot_expert.h5', 'runs/classic/checkpoints/results_figure1.png']
    assert all((folder / name).exists() for name in made) and len(done) == 12


def test_the_readme_s_pipeline_is_right(tmp_path):
    (tmp_path / 'x.yaml').write_text(PIPELINE)
    spec, ours = load_spec(str(tmp_path / 'x.yaml')), load_spec(str(REPO / 'pipelines' / 'classic.yaml'))
    assert spec.task('cartpole') == ours.task('cartpole') and spec.options == dataclasses.replace(ours.options, pbs=spec.options.pbs)
    mine, theirs = (shlex.split(s.algorithm('ga').cmd) for s in (spec, ours))
    assert {'--reward_type', 'nn'} | set(mine) == {'--reward_type', 'nn'} | set(theirs)


def test_the_formats_are_what_is_written(folder, capsys):
    results = folder / 'runs' / 'quickstart' / 'checkpoints' / 'results.h5'
    results.parent.mkdir(parents=True)
    results.symlink_to(REPO / 'results' / 'classic' / 'results.h5')
    done = run_document(REPO / 'docs' / 'formats.md', folder)
    assert capsys.readouterr().out.count('\n') == 336  # the block that prints every row
    assert policyopt.load_trajs(str(folder / 'trajs_by_hand.h5')).lengths.tolist() == [30, 50, 40] and len(done) == 1


@pytest.mark.parametrize('name', ['cluster', 'performance'])
def test_what_is_asked_before_training_is_answered(name, folder):
    first = [sys.executable, 'scripts/im_pipeline.py', 'pipelines/classic.yaml', '0']
    subprocess.run(first, env=script_env(), check=True, capture_output=True)
    done = run_document(REPO / 'docs' / f'{name}.md', folder)
    answers = {'cluster': '#SBATCH --array=1-2', 'performance': numerics().partition(',')[0]}  # a process may hold two BLAS
    assert any(answers[name] in out for _, out in done)


def test_a_reward_is_taken_out_as_the_page_says(folder):
    done = run_document(REPO / 'docs' / 'airl.md', folder)
    assert [line.split()[1] for line, _ in done] == [f'scripts/{s}.py' for s in ('vis_mj', 'imitate_mj', 'vis_mj', 'run_rl_mj')]
    assert 'learned return: ' in done[2][1] and (folder / 'cartpole_again.h5').exists()


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


def test_the_readme_is_short():
    assert len(DOCS[0].read_text(encoding='utf-8').splitlines()) <= 220


def test_wrapped_environments_are_learned_on_as_the_page_says(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    run_document(REPO / 'docs' / 'wrappers.md', folder)
    task = re.search(r'(?s)```yaml\n(.*?)```', (REPO / 'docs' / 'wrappers.md').read_text(encoding='utf-8')).group(1)
    (folder / 'x.yaml').write_text(task + PIPELINE[PIPELINE.index('training:') :])
    assert load_spec(str(folder / 'x.yaml')).task('robot').env == 'mytasks:Robot-v0'
    first = [sys.executable, 'scripts/im_pipeline.py', 'x.yaml', '0']
    done = subprocess.run(first, env=script_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
