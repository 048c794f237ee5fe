"""YAML files whose every complaint says which file, which key, what was seen and what is expected.

PyYAML reads YAML 1.1, in which `1e-3` is text, `12:30:00` is 45000, `010` is 8 and a repeated key silently wins. Here a
decimal may have an exponent, only plain decimal digits make a number, dates and times stay text, and a key may stand only once.
Every YAML text goes through `parse_yaml`, also one of --set or of a results file, because it may come from a stranger: tags are
refused, and so is a text that nests deeply, or that is long once its aliases are spelled out.

The package `pydantic` would check types after that, but the traps lie before it. Its messages name the path and the value, but not the
file, the --set that brought the value in, or what to write instead. What it would spare us are the five short functions of a kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import yaml

from policyopt.errors import UserError, closest, printable
from policyopt.files.atomic import read_utf8

REQUIRED = object()
MOST = 10**9  # the largest count that is believed
MAX_CHARS, MAX_DEPTH = 250_000, 50  # of a YAML text, aliases spelled out; the largest that we know has 5000 characters
_IN_TEXT = '\n\t\u200c\u200d'  # of odd characters; joiners belong to the spelling of some languages
_TAG = 'tag:yaml.org,2002:'


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str):
        super().__init__(text)
        self.depth, self.chars = 0, 0
        self.sizes: dict[str, int] = {}  # by anchor, of what is complete

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """The next node, if it has no tag and is neither nested too deeply nor too long with its aliases spelled out."""
        event: Any = self.peek_event()
        anchor, start = event.anchor, self.chars
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self.sizes:
                raise yaml.MarkedYAMLError(
                    problem=f"the alias '*{anchor}' inside of what it names; expected one elsewhere", problem_mark=event.start_mark
                )
            self.chars += self.sizes.get(anchor, 0)
        elif event.tag is not None:
            tag = event.tag.replace(_TAG, '!!')
            raise yaml.MarkedYAMLError(problem=f"the tag '{tag[:60]}'; expected values without tags", problem_mark=event.start_mark)
        self.depth += 1
        self.chars += 1 + len(getattr(event, 'value', ''))
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f'nested too deeply; expected at most {MAX_DEPTH} levels', problem_mark=event.start_mark)
        if self.chars > MAX_CHARS:
            problem = f'its aliases spelled out make it too long; expected at most {MAX_CHARS} characters'
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self.sizes[anchor] = self.chars - start
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _TAG + 'merge':
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value[:60]}' stands twice in one mapping", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in (_TAG + 'int', _TAG + 'float', _TAG + 'timestamp')]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + 'int', re.compile(r'[-+]?(0|[1-9][0-9_]*)$'), list('-+0123456789'))
_Loader.add_implicit_resolver(
    _TAG + 'float', re.compile(r'[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|nan)$'), list('-+.0123456789')
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text; UserError names `source`, the line and the column of a mistake."""
    if len(text) > MAX_CHARS:
        raise UserError(f'{source}: more than {MAX_CHARS} characters of YAML; expected at most that many')
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f' line {mark.line + 1}, column {mark.column + 1}:' if mark else ''
        problem = str(e.problem or e.context)
        problem += '' if '; expected ' in problem else '; expected indented "key: value" lines'
        raise UserError(f'{source}:{where} not valid YAML: {problem}') from e
    except (yaml.YAMLError, ValueError) as e:
        raise UserError(f'{source}: not valid YAML: {" ".join(str(e).split())}') from e


def dump_yaml(value: Any, source: str) -> str:
    """A value from `parse_yaml` as a text that it reads again; UserError names `source` where that would be too long."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=140)
    if len(text) > MAX_CHARS:
        raise UserError(f'{source}: {len(text)} characters of YAML once --set is applied; expected at most {MAX_CHARS}')
    return text


def read_text(path: str) -> str:
    """The text of a YAML file, or UserError when it is missing, no regular file, or not UTF-8."""
    try:
        return read_utf8(path, 'a pipeline YAML', MAX_CHARS + 1)  # parse_yaml refuses more
    except FileNotFoundError as e:
        folder = os.path.dirname(path)
        names = sorted(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else []
        near = [os.path.join(folder, n) for n in names if n.endswith(('.yaml', '.yml'))]
        listing = f' There is: {", ".join(near)}.' if near else ''
        raise UserError(f'{path}: no such file; expected a pipeline YAML.{closest(path, near) or listing}') from e
    except PermissionError as e:
        raise UserError(f'{path}: cannot be read (no permission); expected a pipeline YAML') from e


class Source:
    """Where a mapping came from: the file, and which of its keys were replaced by `--set`."""

    def __init__(self, file: str):
        self.file = file
        self.overrides = {}

    def fail(self, path: str, seen: str, expected: str, hint: str = '') -> NoReturn:
        """Raise the four-part message: where, what was seen, what is expected, what to do."""
        by = next((text for key, text in self.overrides.items() if path == key or path.startswith((key + '.', key + '['))), None)
        where = f'--set {by}' if by else f'{self.file}: {path}'
        raise UserError(f'{where}: {seen}; expected {expected}{"." + hint if hint else ""}')


def show(value: Any) -> str:
    """A value as the user would recognise it, with its YAML kind."""
    if value is None:
        return 'nothing (null)'
    if isinstance(value, bool):
        return f'{str(value).lower()} (boolean)'
    if isinstance(value, int):
        return f'{value} (number)'
    if isinstance(value, float):
        return f'{value!r} (decimal number)'
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + '...')
    return f'a {"list" if isinstance(value, list) else "mapping"}'


class Section:
    """One mapping of the file: `get` reads a key with its kind; unknown keys are refused at once."""

    def __init__(self, source: Source, path: str, value: Any, keys: Sequence[str]):
        self.source, self.path, self.value = source, path, value
        if not isinstance(value, dict):
            source.fail(path or 'the file', show(value), f'a mapping with the keys {", ".join(keys)}')
        for key in value:
            if key not in keys:
                source.fail(self.at(key), f"unknown key '{str(key)[:60]}'", f'one of {", ".join(keys)}', closest(key, keys))

    def at(self, key: object) -> str:
        """The path of a key of this mapping, as messages show it."""
        return f'{self.path}.{str(key)[:60]}' if self.path else str(key)[:60]

    def fail(self, key: str, expected: str, hint: str = '') -> NoReturn:
        """Complain about the value of a key."""
        self.source.fail(self.at(key), show(self.value.get(key)), expected, hint)

    def get(self, key: str, kind: Callable, default: Any = REQUIRED, **limits: Any) -> Any:
        """The value of `key` checked by `kind` (text, whole, boolean …); without a default the key must be there."""
        if key not in self.value:
            if default is REQUIRED:
                self.source.fail(self.at(key), f"the key '{key}' is missing", kind(self.source, None, None, **limits))
            return default
        return kind(self.source, self.at(key), self.value[key], **limits)

    def sections(self, key: str, keys: Sequence[str]) -> list[Section]:
        """The mappings of a non-empty list, each as a Section."""
        items = self.get(key, a_list)
        return [Section(self.source, f'{self.at(key)}[{i}]', item, keys) for i, item in enumerate(items)]


# A kind returns the checked value; called with path None it returns what it expects, in words.


def text(source: Source, path: str | None, value: Any, example: str = 'text') -> Any:
    """A non-empty string."""
    if path is None:
        return example
    if isinstance(value, bool):
        source.fail(path, show(value), example, ' YAML reads an unquoted yes, no, on, off, true or false as a boolean: put it in quotes')
    if isinstance(value, (int, float)):
        source.fail(path, show(value), example, ' Put it in quotes to make it text')
    if not isinstance(value, str) or not value.strip():
        source.fail(path, show(value), example)
    odd = [c for c in value if c not in _IN_TEXT and printable(c) != c]
    if odd:  # a dry run prints commands as they are, and such characters could hide a part of one
        source.fail(path, f'text with the control character or mark of direction {odd[0]!r}', example)
    return value


def whole(source: Source, path: str | None, value: Any, low: int = 1, high: int = MOST) -> Any:
    """A whole number from `low` to `high`."""
    expected = f'a whole number of at least {low}'
    if path is None:
        return expected
    if isinstance(value, bool) or not isinstance(value, int):
        hint = ''
        if isinstance(value, str) and re.fullmatch(r'[-+\s]*\d[\d_.,eExXob]*', value):
            hint = ' Write it without quotes, leading zeros, commas or an exponent'
        elif isinstance(value, float):
            hint = f' Write {int(value)}' if value.is_integer() else ''
        source.fail(path, show(value), expected, hint)
    if value < low:
        source.fail(path, show(value), expected)
    if value > high:
        source.fail(path, show(value), f'{expected} and at most {high}')
    return value


def boolean(source: Source, path: str | None, value: Any) -> Any:
    """true or false; 0 and 1 as 2016's `int(…)` took them."""
    expected = 'true or false'
    if path is None:
        return expected
    if not isinstance(value, bool) and value not in (0, 1):
        hint = ' Write it without quotes' if isinstance(value, str) and value.lower() in ('true', 'false', 'yes', 'no', '0', '1') else ''
        source.fail(path, show(value), expected, hint)
    return bool(value)


def a_list(source: Source, path: str | None, value: Any) -> Any:
    """A list with at least one item."""
    expected = 'a list with at least one item'
    if path is None:
        return expected
    if not isinstance(value, list) or not value:
        source.fail(path, 'an empty list' if value == [] else show(value), expected)
    return value


def one_of(source: Source, path: str | None, value: Any, choices: Sequence[str] = ()) -> Any:
    """One of the given words."""
    expected = ' or '.join(choices)
    if path is None:
        return expected
    if value not in choices:
        source.fail(path, show(value), expected, closest(value, choices))
    return value


def override(mapping: Any, assignment: str, source: Source) -> None:
    """Apply one `--set training.runs=1` to the raw mapping; list items go by index or by name (`tasks.cartpole.env=…`)."""
    path, eq, value_text = assignment.partition('=')
    parts = [p for p in re.split(r'[.\[\]]+', path.strip()) if p]
    if not eq or not parts:
        raise UserError(f'--set {assignment}: expected KEY.KEY=VALUE, for example --set training.runs=1')
    value = parse_yaml(value_text, f'--set {assignment}')
    here: Any = mapping
    shown = ''
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(here, list):
            names = [item.get('name') if isinstance(item, dict) else None for item in here]
            index = int(part) if re.fullmatch('[0-9]{1,9}', part) else names.index(part) if part in names else -1
            if not 0 <= index < len(here):
                raise UserError(
                    f"--set {assignment}: '{shown}' has no item '{part}'; expected an index up to {len(here) - 1} or one of "
                    f'{", ".join(str(n) for n in names)}.{closest(part, names)}'
                )
            key, shown = index, f'{shown}[{index}]'
        elif isinstance(here, dict):
            key, shown = part, f'{shown}.{part}' if shown else part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise UserError(f"--set {assignment}: '{shown}' is {show(here)}, so it has no key '{part}'")
        if last:
            here[key] = value  # pyright: ignore[reportArgumentType, reportCallIssue] (a number where it is a list)
        else:
            here = here[key]  # pyright: ignore[reportArgumentType, reportCallIssue] (a number where it is a list)
    source.overrides[shown] = assignment
