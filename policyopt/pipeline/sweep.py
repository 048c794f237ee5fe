"""Sweeps: `vary: {reward_lr: [.003, .01], reward_steps: [1, 4]}` of an algorithm stands for one algorithm for each combination.

Each is named `ga+reward_lr=0.003+reward_steps=1` (files/names.py takes such names apart), has its own runs and seeds, and is judged and
selected like any other algorithm. A setting goes to `{reward_lr}` in the command, else it becomes the trainer's option --reward_lr.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from policyopt.files.names import MAX_VARIANTS, setting_word, sweep
from policyopt.files.yamlfile import YamlSection, YamlSource, list_of, show_value
from policyopt.pipeline.command import FIELDS, BadTemplate, Command, check_trainer_option, fields_of, trainer_option

MAX_NAME = 120  # of an algorithm with its settings: a file name holds 255 bytes
_EXAMPLE = 'a mapping of options to lists, such as {reward_lr: [.003, .01], reward_steps: [1, 4]}'


def variants(section: YamlSection, name: str, cmd: str) -> list[tuple[str, str]]:
    """[(name, command template)] of an algorithm: itself without `vary`, else one for each combination of the settings."""
    vary = section.get('vary', _settings, {})
    fields = set(fields_of(cmd))
    for key, values in vary.items():
        where = f'{section.at("vary")}.{key}'
        if not isinstance(key, str) or not re.fullmatch(r'[A-Za-z]\w*', key, re.ASCII) or key in FIELDS:
            section.source.fail(where, f'the setting {show_value(key)}', 'the name of an option, such as reward_lr')
        words = list_of(section.source, where, values, item=_word)
        for i, word in enumerate(words):
            if any(_same(word, other) for other in words[:i]):
                section.source.fail(f'{where}[{i}]', f'{word} a second time', 'each only once')
        if key not in fields:
            _check_option(section.source, where, key, words, cmd)
    try:
        found = [(full_name, _with(cmd, settings, fields)) for full_name, settings in sweep(name, vary)]
    except ValueError as e:
        section.source.fail(section.at('vary'), str(e), f'at most {MAX_VARIANTS}')
    longest = max((n for n, _ in found), key=len)
    if vary and len(longest) > MAX_NAME:
        section.source.fail(section.at('vary'), f"the name '{longest}'", f'at most {MAX_NAME} characters; vary fewer settings at a time')
    return found


def _same(a: str, b: str) -> bool:
    """Whether two words are one value: 1 and 1.0 are."""
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def _check_option(source: YamlSource, where: str, key: str, words: Sequence[str], cmd: str) -> None:
    """Refuse a setting that the command has no field for, unless it is an option of our trainer with these values."""
    if not Command(cmd).is_trainer:
        expected = f'{{{key}}} in the command of a program that is not our imitate_mj.py'
        source.fail(where, 'a setting that the command does not have', expected)
    where_now = where
    try:
        if Command(cmd).trainer_calls:
            names = trainer_option(key).metadata['flags'] + (f'--{trainer_option(key).name}',)
            for given in (Command(cmd).options[flag] or '' for flag in names if flag in Command(cmd).options):
                if fields_of(given):
                    raise BadTemplate(
                        f'a setting that the command takes from {given}', 'an option that no field gives', ' Leave it out of cmd'
                    )
            for i, word in enumerate(words):
                where_now = f'{where}[{i}]'
                check_trainer_option(key, word)
    except BadTemplate as e:
        source.fail(where_now, *e.args)


def _settings(source: YamlSource, path: str, value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        source.fail(path, show_value(value), _EXAMPLE)
    return value


def _word(source: YamlSource, path: str, value: Any) -> str:
    """A setting as it stands in names and commands."""
    word = setting_word(value)
    known = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    if not known or not re.fullmatch(r'[\w.-]+', word, re.ASCII) or word in ('.', '..', 'inf', 'nan'):
        source.fail(path, show_value(value), 'a number, or a word of letters, digits and _ . - (1 and 0 for yes and no)')
    return word


def _with(cmd: str, settings: Iterable[tuple[str, str]], fields: set[str]) -> str:
    for key, word in settings:
        if key in fields:
            cmd = re.sub(rf'(?<!\{{)\{{{key}\}}(?!\}})', word, cmd)
        else:
            cmd = Command(cmd).with_added(f'--{key}', word).text  # of an option that stands twice, argparse takes the last
    return cmd
