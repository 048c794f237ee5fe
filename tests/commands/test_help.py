"""What a reader of a terminal sees: the --help of the trainers, and a dry run."""

import dataclasses
import re
import sys

import pytest
from pipeline_tools import spec_text

from policyopt import commands, options
from policyopt.pipeline.plan import How
from policyopt.pipeline.stages import run_stage

TRAINERS = {'imitate_mj.py': options.ImitationOptions, 'run_rl_mj.py': options.RLOptions}


def test_every_option_stands_in_one_group():
    listed = [name for _, _, names in options.GROUPS for name in names.split()]
    declared = {field.name for cls in TRAINERS.values() for field in dataclasses.fields(cls)}
    assert len(listed) == len(set(listed)) and {*listed, *options.NO_EFFECT} == declared


@pytest.mark.parametrize('script', TRAINERS)
def test_the_help_of_a_trainer_begins_with_what_is_required(script, run_script):
    """Lines fit 100 columns on any terminal; options without effect are taken and not shown."""
    text = run_script(script, '--help', env={'COLUMNS': '300'}).stdout
    assert max(map(len, text.splitlines())) <= 100
    shown = re.findall(r'(?m)^  --(\w+)', text)
    names = {field.name for field in dataclasses.fields(TRAINERS[script])}
    assert set(shown) == names - set(options.NO_EFFECT) and len(shown) == len(set(shown))
    required = [field.name for field in dataclasses.fields(TRAINERS[script]) if field.metadata['required']]
    assert set(shown[: len(required)]) == set(required) and '\nrequired:\n' in text


@pytest.mark.parametrize('name', sorted({*commands.names()} - {script.removesuffix('.py') for script in TRAINERS}))
def test_every_help_fits_100_columns(name, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', '300')
    with pytest.raises(SystemExit):
        commands.run(name, ['--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_the_list_of_commands_fits_100_columns(capsys):
    commands.main(['--help'])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


@pytest.mark.parametrize('terminal', [True, False])
def test_a_dry_run_is_short_on_a_terminal_and_complete_in_a_pipe(terminal, tmp_path, monkeypatch, capsys):
    cmd = 'python scripts/imitate_mj.py --mode bclone --data {dataset} --log {out}'
    (tmp_path / 'x.yaml').write_text(spec_text({'bclone': cmd}, runs=5))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdout, 'isatty', lambda: terminal)
    run_stage('1_train', 'x.yaml', [], False, How(dry_run=True))
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if 'imitate_mj.py' in line]
    assert len(commands) == (3 if terminal else 5) and (terminal or commands == lines)
    if terminal:
        assert lines[-1] == '… and 2 more commands; -n | cat prints all' and lines[1].split() == ['bclone', 'cartpole', *'00055']
