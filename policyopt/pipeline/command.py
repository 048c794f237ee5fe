"""Command templates: check one, fill it in, and add arguments to a finished command line."""

import dataclasses
import itertools
import os
import re
import shlex
import shutil
import string
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from policyopt import algorithms
from policyopt.errors import UserError, closest
from policyopt.options import ImitationOptions, check_together, kind_of, validated
from policyopt.shipped import here_or_shipped, shipped

FIELDS = ('env', 'dataset', 'num_trajs', 'cuts_off_on_success', 'data_subsamp_freq', 'out', 'seed', 'run', 'task', 'policy')
_TRAINER = 'imitate_mj.py'
_NOT_KNOWN_YET = set('{}$`*?[')  # what stands for other text


class BadTemplate(ValueError):
    """A template that cannot become a command line; args are (seen, expected, hint)."""


def one_line(template: str) -> str:
    """A template as a single line; as in 2016 a line break is a blank (a backslash before it is dropped)."""
    return re.sub(r'\s*\\?\n\s*', ' ', template.strip())


def check_template(template: str) -> None:
    """Raise BadTemplate unless the template has {out}, only known fields, and balanced braces and quotes."""
    known = ' '.join(f'{{{name}}}' for name in FIELDS)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as e:
        raise BadTemplate(f'a brace without its partner ({e})', f'fields like {known}', ' Write a literal brace as {{ or }}') from e
    for _, name, spec, _ in parts:
        if spec and re.search(r'\d{4}', spec):
            raise BadTemplate(f"the width in '{{{name}:{spec[:40]}}}'", 'at most 999 characters for a field')
    names = [name for _, name, _, _ in parts if name is not None]
    for name in names:
        if name not in FIELDS:
            hint = closest(name, FIELDS) + ' A literal brace is written {{ or }}'
            raise BadTemplate(f"unknown field '{{{name}}}'", f'one of {known}', hint)
    if 'out' not in names:
        raise BadTemplate('no {out} in the command', 'a command that writes its result to {out}', ' For our trainer: --log {out}')
    numbers: dict[str, Any] = dict.fromkeys(('num_trajs', 'cuts_off_on_success', 'data_subsamp_freq', 'seed', 'run'), 1)
    try:
        command = fill(template, {**dict.fromkeys(FIELDS, 'x'), **numbers})
    except (ValueError, KeyError, IndexError) as e:
        raise BadTemplate(f'a format that its field cannot have ({e})', 'fields alone, such as {seed}, or numbers as {run:03d}') from e
    try:
        shlex.split(command)
    except ValueError as e:
        raise BadTemplate(f'{e} in the command', 'a shell command line', ' Every quote needs its partner') from e
    check_trainer_options(template)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The command line of a template: str.format's rules, with texts quoted for the shell where they need it.

    A path with a blank in it stays one argument, whether or not the template has quotes around its field.
    """
    out, state = [], ''
    for literal, name, spec, conversion in string.Formatter().parse(template):
        out.append(literal)
        state = ([state] + [after for _, after in _scan(literal, state)])[-1]
        if name is not None:
            if conversion:
                raise ValueError(f"'!{conversion}' after a field")
            value = format(values[name], spec or '')
            quoted = shlex.quote(value)
            if quoted != value and state == "'":
                value = value.replace("'", "'\\''")
            elif quoted != value and state == '"':
                value = re.sub(r'([\\"$`])', r'\\\1', value)
            else:
                value = quoted
            out.append(value)
    return ''.join(out)


def _scan(text: str, state: str = '') -> Iterator[tuple[str, str]]:
    r"""Yield (character, state after it) of a shell text; state is '', "'", '"', or one of them with a backslash pending."""
    for ch in text:
        if state.endswith('\\'):
            state = state[:-1]
        elif ch == '\\' and state != "'":
            state += '\\'
        elif ch in '\'"' and state in ('', ch):
            state = '' if state else ch
        yield ch, state


def resolve_program(command: str) -> str:
    """`python` at the head becomes the running interpreter; a script that is only in our own checkout gets its full path.

    So a template of 2016 (`python scripts/imitate_mj.py …`) works from any folder and in any virtual environment.
    """
    match = re.match(r'(?:\w+=[^\s\'"|;&<>$]*\s+)*python(\s+)(?:([^\s\'"|;&<>$*-][^\s\'"|;&<>$*]*\.py)(?=\s|$))?', command + ' ')
    if not match:
        return command
    rest = command[match.end(1) :]
    script = match[2]
    if script and here_or_shipped(script) != script:
        rest = shlex.quote(shipped(script)) + rest[len(script) :]
    return f'{command[: match.start(1) - len("python")]}{shlex.quote(sys.executable)} {rest}'


def missing_script(command: str) -> str | None:
    """The script that a command would run with Python but that does not exist, else None."""
    tokens = shlex.split(command)
    while tokens and re.match(r'\w+=', tokens[0]):
        tokens.pop(0)
    if len(tokens) > 1 and tokens[0] == sys.executable and tokens[1].endswith('.py') and not os.path.exists(tokens[1]):
        return tokens[1]
    return None


def is_trainer(command: str) -> bool:
    """Whether a command runs our own trainer, so that its options are known: --seed, --device, --max_traj_len, --resume."""
    return any(os.path.basename(token) == _TRAINER for token in shlex.split(command))


def is_our_trainer(script: str) -> bool:
    """Whether a path is the trainer of this very checkout."""
    return os.path.realpath(script) == os.path.realpath(shipped(f'scripts/{_TRAINER}'))


def check_trainer_options(template: str) -> None:
    """Raise BadTemplate where a template gives the trainer of this checkout an option that it does not have, a wrong value, or two at odds.

    Words with fields, shell variables or patterns are not known yet; options that are missing are left to the trainer.
    """
    for words in our_trainer_calls(template):
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
                raise BadTemplate(f"'{flag}' in the command", f'only options of {_TRAINER}, with two dashes, and their values', '')
        try:
            if known and 'mode' in given:
                check_together(ImitationOptions(**given))
        except UserError as e:
            raise BadTemplate(str(e).rpartition(';')[0], 'one of the two left out', '') from e


def our_trainer_calls(template: str) -> list[list[str]]:
    """What follows the trainer of this checkout, each time that the template calls it."""
    tokens, calls = _shell_tokens(template), []
    for i, token in enumerate(tokens):
        if os.path.basename(token) == _TRAINER and is_our_trainer(here_or_shipped(token)):
            words = list(itertools.takewhile(lambda t: not _is_operator(t), tokens[i + 1 :]))
            redirection = tokens[i + 1 + len(words) :][:1] in (['>'], ['>&'], ['>>'])
            calls.append(words[:-1] if redirection and words and words[-1].isdecimal() else words)  # the 2 of 2>&1
    return calls


def trainer_modes(template: str) -> list[str]:
    """The modes in which a template calls the trainer of this checkout, as far as they are known before the fields are filled in."""
    modes = (option(shlex.join(words), '--mode') for words in our_trainer_calls(template))
    return [mode for mode in modes if mode in algorithms.MODES]


def trainer_option(name: str) -> dataclasses.Field:
    """The option of our trainer of that name; BadTemplate where it has none."""
    fields = {n: f for f in dataclasses.fields(ImitationOptions) for n in (f.name, *(flag.lstrip('-') for flag in f.metadata['flags']))}
    if name not in fields:
        raise BadTemplate(f"the option '--{name}'", f'one that {_TRAINER} has', closest(name, fields))
    return fields[name]


def check_trainer_option(name: str, word: str | None) -> dict[str, Any]:
    """Raise BadTemplate unless our trainer has the option --name and takes `word` as its value (None: without one).

    Returns {its name: its value}, or {} where either is not known yet.
    """
    if set(name + (word or '')) & _NOT_KNOWN_YET:
        return {}
    field, kind = trainer_option(name), kind_of(trainer_option(name))
    if (kind is bool) == (word is not None):
        expected = 'the option alone, which has no values' if kind is bool else 'a value behind the option'
        raise BadTemplate(f'--{name}{"" if word is None else f" {word!r}"}', expected, '')
    try:
        return {field.name: validated(field, kind is bool or kind(word))}
    except ValueError as e:
        raise BadTemplate(f'--{name} {word!r}', 'a whole number' if kind is int else 'a number', '') from e
    except UserError as e:
        raise BadTemplate(f'--{name} {word!r}', str(e).partition(': give ')[2], '') from e


def fields_of(template: str) -> list[str]:
    """The names of the {fields} of a template; none of one whose braces do not balance, which check_template refuses."""
    try:
        return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError:
        return []


def with_option(command: str, flag: str, value: object | None = None) -> str:
    """A trainer's command with an option added, unless it has it already; programs other than ours are left alone.

    The option goes to the end, but before a pipe or redirection.
    """
    if not is_trainer(command) or any(t == flag or t.startswith(flag + '=') for t in shlex.split(command)):
        return command
    return add_option(command, flag, value)


def add_option(command: str, flag: str, value: object | None = None) -> str:
    """A command with an option more, at the end but before a pipe or redirection."""
    end, before = len(command), ''
    for i, (ch, state) in enumerate(_scan(command)):
        if not state and not before and ch in '|;&<>':
            end = i
            break
        before = state
    head, tail = command[:end], command[end:]
    head = re.sub(r'\s\d$', '', head) if tail[:1] in ('<', '>') else head
    tail = command[len(head) :].strip()
    option = flag if value is None else f'{flag} {shlex.quote(str(value))}'
    return ' '.join(p for p in (head.rstrip(), option, tail) if p)


def option(command: str, flag: str) -> str | None:
    """The value that a command gives an option, the last one as argparse has it; None where the option is not there."""
    value = None
    words = shlex.split(command)
    for token, following in itertools.zip_longest(words, words[1:]):
        if token == flag:
            value = following
        elif token.startswith(flag + '='):
            value = token.removeprefix(flag + '=')
    return value


def has_operators(command: str) -> bool:
    """Whether a command line has pipes, redirections, lists or substitutions of the shell."""
    return any(map(_is_operator, _shell_tokens(command))) or '`' in command or '$(' in command


def is_literal(command: str) -> bool:
    """Whether the shell takes every word of a command as it stands: no operators, and no variables whose values it puts in."""
    return not has_operators(command) and not any(ch == '$' and state in ('', '"') for ch, state in _with_state_before(command))


def plain_words(command: str) -> list[str] | None:
    """The words of a command that is one program with its arguments, just as the shell would pass them on; else None."""
    unquoted = {ch for ch, state in _with_state_before(command) if not state}
    plain = not unquoted & set('*?[~#{\n') and '\\' not in command and is_simple(command) and is_literal(command)
    return shlex.split(command) if plain else None


def _with_state_before(command: str) -> Iterator[tuple[str, str]]:
    states = ['', *(state for _, state in _scan(command))]
    return zip(command, states, strict=False)


def is_simple(command: str) -> bool:
    """Whether a command is one program with its arguments, without shell operators or a leading assignment."""
    program = next(iter(_shell_tokens(command)), '')
    return shutil.which(program) is not None and not has_operators(command)


def _is_operator(token: str) -> bool:
    return token != '' and set(token) <= set('();<>|&')


def _shell_tokens(command: str) -> list[str]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ''
    return list(lexer)
