"""YAML files whose every complaint says which file, which key, what was seen and what is expected.

PyYAML reads YAML 1.1, in which `1e-3` is text, `12:30:00` is 45000, `010` is 8, and the last of several equal keys wins silently. Here
a decimal may have an exponent, only plain decimal digits make a number, dates and times stay text, and equal keys are refused.
Any YAML text may come from a stranger, so all of them go through `parse_yaml`, including those of --set and of results files. Tags are
refused, and so is a text that is nested deeply, or that is long once its aliases are expanded.

The package `pydantic` checks only what the YAML reader returns, which is too late for these cases. Its messages name the path and the
value, but not the file, the --set that gave the value, or what to write instead. It would replace only the few short kinds at the end.

A section is described by a frozen dataclass. Each field says which values it accepts, and its default where the file has none:

    class Task:
        name: str = key(file_word)
        max_traj_len: int | None = key(whole, None)
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from policyopt.errors import Unfit, UserError, closest, printable
from policyopt.files.atomic import read_utf8
from policyopt.options import MOST
from policyopt.shipped import shipped

Described = TypeVar('Described')
MAX_CHARS, MAX_DEPTH = 250_000, 50  # of a YAML text, aliases expanded; the largest known file has 5000 characters
_JOINERS = '\u200c\u200d'  # the spelling of some languages needs them
_IN_TEXT = f'\n\t{_JOINERS}'  # what a text of several lines may hold
_TAG = 'tag:yaml.org,2002:'


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str):
        super().__init__(text)
        self.depth, self.chars = 0, 0
        self.sizes: dict[str, int] = {}  # {anchor: size of its value}, once the value is complete

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        """The next node. Raises an error if it has a tag, is nested too deeply, or is too long with its aliases expanded."""
        event: Any = self.peek_event()
        anchor, start, is_alias = event.anchor, self.chars, isinstance(event, yaml.AliasEvent)
        self.depth += 1
        self.chars += 1 + len(getattr(event, 'value', '')) + (self.sizes.get(anchor, 0) if is_alias else 0)
        if is_alias and anchor in self.anchors and anchor not in self.sizes:
            raise _fault(f"the alias '*{anchor}' inside of what it names; expected one elsewhere", event)
        if not is_alias and event.tag is not None:
            raise _fault(f"the tag '{event.tag.replace(_TAG, '!!')[:60]}'; expected values without tags", event)
        if self.depth > MAX_DEPTH:
            raise _fault(f'nested too deeply; expected at most {MAX_DEPTH} levels', event)
        if self.chars > MAX_CHARS:
            raise _fault(f'its aliases spelled out make it too long; expected at most {MAX_CHARS} characters', event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if anchor is not None and not is_alias:
            self.sizes[anchor] = self.chars - start
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _TAG + 'merge':
                if key.value in seen:
                    raise _fault(f"the key '{key.value[:60]}' stands twice in one mapping", key)
                seen.add(key.value)
        return node


def _fault(problem: str, at: Any) -> yaml.MarkedYAMLError:
    """An error at an event or a node."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in (_TAG + 'int', _TAG + 'float', _TAG + 'timestamp')]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_TAG + 'int', re.compile(r'[-+]?(0|[1-9][0-9_]*)$'), list('-+0123456789'))
_Loader.add_implicit_resolver(
    _TAG + 'float', re.compile(r'[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.(inf|nan)$'), list('-+.0123456789')
)


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML text. Raises UserError, which names `source` and the line and column of a mistake."""
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
    """A value from `parse_yaml` as a text that it can read again. Raises UserError, which names `source`, if the text is too long."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=140)
    if len(text) > MAX_CHARS:
        raise UserError(f'{source}: {len(text)} characters of YAML once --set is applied; expected at most {MAX_CHARS}')
    return text


def _experiments(folder: str) -> list[str]:
    """The YAML files of a folder with a line `tasks:`, which every experiment has."""
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), '*.y*ml'))):
        if os.path.isfile(path):
            with contextlib.suppress(OSError), open(path, encoding='utf-8', errors='replace') as f:
                if re.search('(?m)^tasks:', f.read(MAX_CHARS)):
                    found.append(path)
    return found


def read_text(path: str) -> str:
    """The text of a YAML file. Raises UserError when it is missing, not a regular file, or not UTF-8."""
    try:
        return read_utf8(path, 'a pipeline YAML', MAX_CHARS + 1)  # parse_yaml refuses a longer text
    except FileNotFoundError as e:
        near = _experiments(os.path.dirname(path))
        listing = f' There is: {", ".join(near)}' if near else ' To begin with: pipelines/quickstart.yaml'
        known = [os.path.join('pipelines', os.path.basename(name)) for name in _experiments(shipped('pipelines'))]
        raise UserError(f'{path}: no such file; expected a pipeline YAML.{closest(path, [*near, *known]) or listing}') from e
    except OSError as e:  # no permission, a name that is too long, links in a circle …
        raise UserError(f'{path}: cannot be read ({e.strerror}); expected a pipeline YAML') from e


def show_value(value: Any) -> str:
    """A value, shortened if it is long, with its YAML kind."""
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


@contextlib.contextmanager
def place(name: str) -> Iterator[None]:
    """Put a place, '.key' of a mapping or '[3]' of a list, at the front of the path of each Unfit that the block raises."""
    try:
        yield
    except Unfit as e:
        e.path = name + e.path
        raise


def located(e: Unfit, file: str, overrides: Mapping[str, str]) -> UserError:
    """The four-part message: where, what was seen, what is expected, what to do. overrides: {path: the --set that gave its value}."""
    path = e.path.lstrip('.')
    by = next((text for key, text in overrides.items() if path == key or path.startswith((key + '.', key + '['))), None)
    return UserError(f'--set {by}: {e}' if by else f'{file}: {path or "the file"}: {e}')


def key(kind: Callable, default: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """A field of a dataclass that describes a section. Without a default, the file must have the key."""
    return dataclasses.field(default=default, metadata={'kind': functools.partial(kind, **limits)})


# A kind is a function that returns the checked value, or raises Unfit.


def section(value: Any, described: type[Described], **others: Any) -> Described:
    """A mapping as an object of the dataclass that describes it. others: values of the fields that are no keys."""
    fields: Any = dataclasses.fields(described)  # pyright: ignore[reportArgumentType] (it is a dataclass)
    keys = {f.name: f for f in fields if f.metadata}
    if not isinstance(value, dict):
        raise Unfit(show_value(value), f'a mapping with the keys {", ".join(keys)}')
    for name in value:
        if name not in keys:
            shown = str(name)[:60]
            raise Unfit(f"unknown key '{shown}'", f'one of {", ".join(keys)}', closest(name, keys), f'.{shown}')
    for name, field in keys.items():
        if name in value or field.default is dataclasses.MISSING:
            with place(f'.{name}'):
                try:
                    others[name] = field.metadata['kind'](value.get(name))
                except Unfit as e:
                    if name in value:
                        raise
                    raise Unfit(f"the key '{name}' is missing", e.expected) from e
    return described(**others)


def list_of(value: Any, item: Callable, least: int = 1, **limits: Any) -> tuple:
    """A list of at least `least` items of one kind, as a tuple."""
    if not isinstance(value, list) or len(value) < least:
        raise Unfit('an empty list' if value == [] else show_value(value), f'a list{" with at least one item" if least else ""}')
    found = []
    for i, one in enumerate(value):
        with place(f'[{i}]'):
            found.append(item(one, **limits))
    return tuple(found)


def text(value: Any, example: str = 'text', lines: bool = False) -> str:
    """A non-empty string; it may have several lines only if `lines`."""
    if not isinstance(value, str) or not value.strip():
        hint = ' Put it in quotes to make it text' if isinstance(value, int | float) else ''
        if isinstance(value, bool):
            hint = ' YAML reads an unquoted yes, no, on, off, true or false as a boolean: put it in quotes'
        raise Unfit(show_value(value), example, hint)
    odd = [c for c in value if c not in (_IN_TEXT if lines else _JOINERS) and printable(c) != c]
    if odd:  # they could hide a part of a command that a dry run prints
        raise Unfit(f'text with the control character or mark of direction {odd[0]!r}', example)
    return value


def matching(value: Any, pattern: str, expected: str) -> str:
    """A text that matches a pattern; a whole number is taken as its digits."""
    value = text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value, expected)
    if not re.fullmatch(pattern, value, re.ASCII):
        raise Unfit(show_value(value), expected)
    return value


def whole(value: Any, low: int = 1, high: int = MOST) -> int:
    """A whole number from `low` to `high`."""
    expected = f'a whole number of at least {low}'
    if isinstance(value, bool) or not isinstance(value, int):
        hint = ''
        if isinstance(value, str) and re.fullmatch(r'[-+\s]*\d[\d_.,eExXob]*', value):
            hint = ' Write it without quotes, leading zeros, commas or an exponent'
        elif isinstance(value, float):
            hint = f' Write {int(value)}' if value.is_integer() else ''
        raise Unfit(show_value(value), expected, hint)
    if not low <= value <= high:
        raise Unfit(show_value(value), expected + (f' and at most {high}' if value > high else ''))
    return value


def boolean(value: Any) -> bool:
    """true or false, or as in 2016, 1 or 0."""
    if not isinstance(value, bool) and value not in (0, 1):
        hint = ' Write it without quotes' if isinstance(value, str) and value.lower() in ('true', 'false', 'yes', 'no', '0', '1') else ''
        raise Unfit(show_value(value), 'true or false', hint)
    return bool(value)


def one_of(value: Any, choices: Sequence[str]) -> str:
    """One of the given words."""
    if value not in choices:
        raise Unfit(show_value(value), ' or '.join(choices), closest(value, choices))
    return value


def override(mapping: Any, assignment: str, overrides: dict[str, str]) -> None:
    """Apply one `--set training.runs=1` to the raw mapping. A list item is named by its index or name (`tasks.cartpole.env=…`).

    overrides: {path: assignment} of the earlier --set; this one is added.
    """
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
                    f"--set {assignment}: '{shown}' has no item '{part}'; expected an index up to {len(here) - 1}"
                    f'{" or one of " if any(names) else ""}{", ".join(str(n) for n in names if n)}.{closest(part, names)}'
                )
            key, shown = index, f'{shown}[{index}]'
        elif isinstance(here, dict):
            key, shown = part, f'{shown}.{part}' if shown else part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise UserError(f"--set {assignment}: '{shown}' is {show_value(here)}, so it has no key '{part}'")
        if last:
            here[key] = value  # pyright: ignore[reportArgumentType, reportCallIssue] (a number where it is a list)
        else:
            here = here[key]  # pyright: ignore[reportArgumentType, reportCallIssue] (a number where it is a list)
    for other, by in overrides.items():
        if (other == shown or other.startswith((f'{shown}.', f'{shown}['))) and by != assignment:  # the earlier value would be lost
            raise UserError(f'--set {assignment}: {other} is set already, by {by}; give one of them')
    overrides[shown] = assignment
