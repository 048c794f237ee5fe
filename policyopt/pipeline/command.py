"""Command lines of the shell, parsed once, and the templates that they are made from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import shlex
import shutil
import string
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from policyopt import algorithms
from policyopt.errors import Unfit, closest
from policyopt.options import ImitationOptions, check_together, type_of, validated
from policyopt.shipped import here_or_shipped, shipped

FIELDS = ('env', 'dataset', 'num_trajs', 'cuts_off_on_success', 'data_subsamp_freq', 'out', 'seed', 'run', 'task', 'policy')
_TRAINER = 'imitate_mj.py'
_NOT_KNOWN_YET = set('{}$`*?[')  # these stand for other text
# Of a command line: quoted texts, escaped characters, operators (with the 2 of 2>&1), and single characters, brackets among them.
_PIECE = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.|(?:(?<=\s)\d+(?=[<>]))?[;<>|&]+|.""", re.DOTALL)
_MARK = '\0'  # stands for a field or an operator, because no command has it
_OPERATOR = re.compile(r'\d*[;<>|&]+|[()]')


@dataclasses.dataclass(frozen=True)
class Command:
    """A line for the shell: usually one program with its arguments, but operators of the shell are allowed.

    It may be a template. The values of words with fields, shell variables or patterns are not known yet.
    """

    text: str

    @functools.cached_property
    def words(self) -> list[str]:
        """The words, without their quotes."""
        return shlex.split(self.text)

    @functools.cached_property
    def options(self) -> dict[str, str | None]:
        """{--option: its value}; of an option given twice the last value, as in argparse."""
        return _options_of(self.words)

    @functools.cached_property
    def is_trainer(self) -> bool:
        """Whether it runs our own trainer, so that its options are known: --seed, --device, --max_traj_len, --resume."""
        return any(os.path.basename(word) == _TRAINER for word in self.words)

    @functools.cached_property
    def _pieces(self) -> list[str]:
        return _PIECE.findall(self.text)

    @property
    def has_operators(self) -> bool:
        """Whether it has pipes, redirections, lists or substitutions of the shell."""
        return any(map(_OPERATOR.fullmatch, self._pieces)) or '`' in self.text or '$(' in self.text

    @property
    def is_simple(self) -> bool:
        """Whether it is one program with its arguments, without operators or a leading assignment."""
        return not self.has_operators and bool(self.words) and shutil.which(self.words[0]) is not None

    @property
    def is_literal(self) -> bool:
        """Whether the shell passes every word on unchanged: no operators and no variables."""
        variables = any('$' in re.sub(r'\\.', '', piece) for piece in self._pieces if piece[0] != "'")
        return not self.has_operators and not variables

    @property
    def plain_words(self) -> list[str] | None:
        """The words of one program with its arguments if the shell would pass them on unchanged, else None."""
        plain = not set(self._pieces) & set('*?[~#{\n') and '\\' not in self.text and self.is_simple and self.is_literal
        return self.words if plain else None

    @property
    def missing_script(self) -> str | None:
        """The script that Python would run, if it does not exist; else None."""
        words = list(itertools.dropwhile(lambda word: re.match(r'\w+=', word), self.words))
        is_script = len(words) > 1 and words[0] == sys.executable and words[1].endswith('.py')
        return words[1] if is_script and not os.path.exists(words[1]) else None

    @property
    def trainer_calls(self) -> list[list[str]]:
        """The arguments of each call of the trainer of this checkout."""
        calls = []
        for part in ''.join(_MARK if _OPERATOR.fullmatch(piece) else piece for piece in self._pieces).split(_MARK):
            words = shlex.split(part)
            ours = [i for i, word in enumerate(words) if os.path.basename(word) == _TRAINER and is_our_trainer(here_or_shipped(word))]
            calls += [words[i + 1 :] for i in ours]
        return calls

    @property
    def trainer_modes(self) -> list[str]:
        """The modes in which it calls the trainer of this checkout, as far as they are known."""
        modes = (_options_of(words).get('--mode') for words in self.trainer_calls)
        return [mode for mode in modes if mode in algorithms.MODES]

    def resolved(self) -> Command:
        """`python` at the head becomes the running interpreter; a script that is only in our own checkout gets its full path.

        So a template of 2016 (`python scripts/imitate_mj.py …`) works from any folder and in any virtual environment.
        """
        match = re.match(r'((?:\w+=[^\s\'"|;&<>$]*\s+)*)python\s+(\S*)', self.text)
        if not match:
            return self
        script, rest = match[2], self.text[match.start(2) :]
        if script.endswith('.py') and here_or_shipped(script) != script:
            rest = shlex.quote(shipped(script)) + rest[len(script) :]
        return Command(f'{match[1]}{shlex.quote(sys.executable)} {rest}')

    def with_option(self, flag: str, value: object | None = None) -> Command:
        """The command with an option added, if it calls our trainer and does not have the option already."""
        return self.with_added(flag, value) if self.is_trainer and flag not in self.options else self

    def with_added(self, flag: str, value: object | None = None) -> Command:
        """The command with an option added at the end, but before a pipe or redirection."""
        ends = (i for i, piece in enumerate(self._pieces) if _OPERATOR.fullmatch(piece) and piece not in '()')
        at = next(ends, len(self._pieces))
        head, tail = ''.join(self._pieces[:at]), ''.join(self._pieces[at:])
        option = flag if value is None else f'{flag} {shlex.quote(str(value))}'
        return Command(' '.join(part for part in (head.rstrip(), option, tail.strip()) if part))


def is_our_trainer(script: str) -> bool:
    """Whether a path is the trainer of this very checkout."""
    return os.path.realpath(script) == os.path.realpath(shipped(f'scripts/{_TRAINER}'))


def _options_of(words: Sequence[str]) -> dict[str, str | None]:
    found = {}
    for word, following in itertools.zip_longest(words, words[1:]):
        if word.startswith('--'):
            flag, eq, value = word.partition('=')
            found[flag] = value if eq else following
    return found


def checked_fields(template: str, known: Sequence[str]) -> list[tuple[str, str]]:
    """[(field, its conversion and format)] of a template; Unfit where braces do not balance, or where a field is not known."""
    shown, hint = ' '.join(f'{{{name}}}' for name in known), ' A literal brace is written {{ or }}'
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as e:
        raise Unfit(f'a brace without its partner ({e})', f'fields like {shown}', hint) from e
    fields = [(name, f'{"!" + conversion if conversion else ""}{form}') for _, name, form, conversion in parts if name is not None]
    for name, _ in fields:
        if name not in known:
            raise Unfit(f"unknown field '{{{name}}}'", f'one of {shown}', closest(name, known) + hint)
    return fields


def check_quotes(line: str) -> None:
    """Raise Unfit unless every quote of a command line has its partner."""
    try:
        shlex.split(line)
    except ValueError as e:
        raise Unfit(f'{e} in the command', 'a shell command line', ' Every quote needs its partner') from e


def check_template(template: str) -> None:
    """Raise Unfit unless the template has {out}, only known fields, balanced braces, and options that our trainer has."""
    fields = checked_fields(template, FIELDS)
    for name, form in fields:
        if re.search(r'\d{4}', form):
            raise Unfit(f"the width in '{{{name}:{form[:40]}}}'", 'at most 999 characters for a field')
    if 'out' not in dict(fields):
        raise Unfit('no {out} in the command', 'a command that writes its result to {out}', ' For our trainer: --log {out}')
    numbers: dict[str, Any] = dict.fromkeys(('num_trajs', 'cuts_off_on_success', 'data_subsamp_freq', 'seed', 'run'), 1)
    try:
        fill(template, {**dict.fromkeys(FIELDS, 'x'), **numbers})
    except (ValueError, KeyError, IndexError) as e:
        raise Unfit(f'a format that its field cannot have ({e})', 'fields alone, such as {seed}, or numbers as {run:03d}') from e
    check_trainer_options(template)


def fields_of(template: str) -> list[str]:
    """The names of the {fields} of a template; none if its braces do not balance, which check_template rejects."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return []


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill in a template by the rules of str.format; texts are quoted for the shell where needed.

    A path with a blank in it stays one argument, whether or not the template has quotes around its field.
    """
    marked, found = '', []
    for literal, name, spec, conversion in string.Formatter().parse(template):
        marked += literal
        if name is not None:
            if conversion:
                raise ValueError(f"'!{conversion}' after a field")
            marked += _MARK
            found.append(format(values[name], spec or ''))
    line = ''
    for piece in _PIECE.findall(marked):
        while _MARK in piece:
            piece = piece.replace(_MARK, _quoted(found.pop(0), piece[0]), 1)
        line += piece
    return line


def _quoted(value: str, quote: str) -> str:
    """A text for the shell, inside of these quotes or outside of any."""
    if shlex.quote(value) == value:
        return value
    if quote == "'":
        return value.replace("'", "'\\''")
    return re.sub(r'([\\"$`])', r'\\\1', value) if quote == '"' else shlex.quote(value)


def check_trainer_options(template: str) -> None:
    """Raise Unfit where a template gives the trainer of this checkout an option that it does not have, a wrong value, or two at odds.

    Options that are missing are left to the trainer.
    """
    for words in Command(template).trainer_calls:
        given, known = {}, True
        while words:
            flag, eq, value = words.pop(0).partition('=')
            follows = not eq and words and not words[0].startswith('--')
            literal = not set(flag) & _NOT_KNOWN_YET
            known = known and literal
            if flag.startswith('--'):
                option = check_trainer_option(flag[2:], value if eq else words.pop(0) if follows else None)
                given, known = given | option, known and (bool(option) or flag[2:] not in ('mode', 'reward_type'))
            elif literal:
                raise Unfit(f"'{flag}' in the command", f'only options of {_TRAINER}, with two dashes, and their values')
        if known and 'mode' in given:
            check_together(ImitationOptions(**given))


def trainer_option(name: str) -> dataclasses.Field:
    """The option of our trainer of that name; Unfit where it has none."""
    fields = {n: f for f in dataclasses.fields(ImitationOptions) for n in (f.name, *(flag.lstrip('-') for flag in f.metadata['flags']))}
    if name not in fields:
        raise Unfit(f"the option '--{name}'", f'one that {_TRAINER} has', closest(name, fields))
    return fields[name]


def check_trainer_option(name: str, word: str | None) -> dict[str, Any]:
    """Raise Unfit unless our trainer has the option --name and takes `word` as its value (None: without one).

    Returns {its name: its value}, or {} where either is not known yet.
    """
    if set(name + (word or '')) & _NOT_KNOWN_YET:
        return {}
    field = trainer_option(name)
    kind = type_of(field)
    if (kind is bool) == (word is not None):
        expected = 'the option alone, which has no values' if kind is bool else 'a value behind the option'
        raise Unfit(f'--{name}{"" if word is None else f" {word!r}"}', expected)
    value: Any = word is None or word
    with contextlib.suppress(ValueError):
        value = kind(value)
    try:
        return {field.name: validated(field, value)}
    except Unfit as e:
        raise Unfit(f'--{name} {word!r}', e.expected) from e
