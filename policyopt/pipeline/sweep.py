"""Sweeps: `vary: {reward_lr: [.003, .01], reward_steps: [1, 4]}` of an algorithm stands for one algorithm for each combination.

Each is named `ga+reward_lr=0.003+reward_steps=1` (files/names.py parses such names), has its own runs and seeds, and is judged and
selected like any other algorithm. A setting fills the field `{reward_lr}` of the command, or else becomes the option --reward_lr.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policyopt.errors import Unfit
from policyopt.files.names import setting_word, sweep
from policyopt.files.yamlfile import list_of, place, show_value
from policyopt.pipeline.command import FIELDS, Command, check_trainer_option, fields_of, trainer_option

MAX_NAME = 120  # bytes of an algorithm's name with its settings, because a file name holds 255 bytes


def settings(value: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The kind of `vary`: ((setting, its values as they stand in names and commands), …)."""
    if not isinstance(value, dict) or not value:
        raise Unfit(show_value(value), 'a mapping of options to lists, such as {reward_lr: [.003, .01], reward_steps: [1, 4]}')
    found = {}
    for key, values in value.items():
        with place(f'.{key}'):
            if not isinstance(key, str) or not re.fullmatch(r'[A-Za-z]\w*', key, re.ASCII) or key in FIELDS:
                raise Unfit(f'the setting {show_value(key)}', 'the name of an option, such as reward_lr')
            found[key] = list_of(values, item=_word)
            for i, word in enumerate(found[key]):
                if any(_same(word, other) for other in found[key][:i]):
                    raise Unfit(f'{word} a second time', 'each only once', path=f'[{i}]')
    return tuple(found.items())


def _word(value: Any) -> str:
    """A setting as it stands in names and commands."""
    word = setting_word(value)
    known = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    if not known or not re.fullmatch(r'[\w.-]+', word, re.ASCII) or word in ('.', '..', 'inf', 'nan'):
        raise Unfit(show_value(value), 'a number, or a word of letters, digits and _ . - (1 and 0 for yes and no)')
    return word


def _same(a: str, b: str) -> bool:
    """Whether two words are one value: 1 and 1.0 are."""
    try:
        return float(a) == float(b)
    except ValueError:
        return a == b


def variants(name: str, cmd: str, vary: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """[(name, command template)] of an algorithm: itself where nothing varies, else one for each combination of the settings."""
    fields = set(fields_of(cmd))
    with place('.vary'):
        for key, words in vary.items():
            if key not in fields:
                with place(f'.{key}'):
                    _check_option(key, words, Command(cmd))
        found = [(full_name, _with(cmd, settings, fields)) for full_name, settings in sweep(name, vary)]
        longest = max((n for n, _ in found), key=len)
        if vary and len(longest) > MAX_NAME:
            raise Unfit(f"the name '{longest}'", f'at most {MAX_NAME} characters; vary fewer settings at a time')
    return found


def _check_option(name: str, words: Sequence[str], command: Command) -> None:
    """Raise Unfit unless the command has a field for the setting, or our trainer has an option that takes these values."""
    if not command.is_trainer:
        seen = 'a setting that the command does not have'
        raise Unfit(seen, f'{{{name}}} in the command of a program that is not our imitate_mj.py')
    if command.trainer_calls:
        field = trainer_option(name)
        for flag in (f'--{field.name}', *field.metadata['flags']):
            if fields_of(given := command.options.get(flag) or ''):
                raise Unfit(f'a setting that the command takes from {given}', 'an option that no field gives', ' Leave it out of cmd')
        for i, word in enumerate(words):
            with place(f'[{i}]'):
                check_trainer_option(name, word)


def _with(cmd: str, settings: Iterable[tuple[str, str]], fields: set[str]) -> str:
    for key, word in settings:
        if key in fields:
            cmd = re.sub(rf'(?<!\{{)\{{{key}\}}(?!\}})', word, cmd)
        else:
            cmd = Command(cmd).with_added(f'--{key}', word).text  # if an option is given twice, argparse takes the last value
    return cmd
