"""Read CSV files: a folder with a file for each episode, or a single file."""

from __future__ import annotations

import csv
import re

import numpy as np

from policyopt.errors import UserError
from policyopt.files import ends
from policyopt.files.atomic import check_regular
from policyopt.files.importers.arrays import Arrays, read_arrays
from policyopt.files.importers.source import ReadOptions, Source, in_order, read_files

WORDS = {'obs': 'obs|observations?', 'act': 'acts?|actions?', 'rew': '(?:rews?|rewards?)$'}  # how the names of its columns begin


def read_csvs(source: str, options: ReadOptions) -> Source:
    """The episodes of a CSV file, or of a folder of them in the order of their names (2 before 10).

    The first line names the columns: obs…, act…, rew, next_obs…, and terminated, truncated, episode_id and the like. Columns whose names
    end in numbers are sorted by these numbers (obs2 before obs10). Others (obs_x, obs_y) keep the order of the file, which must be the
    same in all files. A file is one episode unless its columns say where several end.
    """
    return read_files(source, '.csv', lambda path, _: _read_csv(path, options))


def _read_csv(path: str, options: ReadOptions) -> tuple[Source, list[str]]:
    """(what a file holds, the columns that are used)."""
    check_regular(path, 'an episode as CSV')
    try:
        with open(path, newline='', encoding='utf-8-sig') as f:
            header, *rows = list(csv.reader(f)) or [[]]
    except (UnicodeDecodeError, csv.Error) as e:
        raise UserError(f'{path}: not a CSV file of UTF-8 text ({e})') from e
    header = [name.strip().lower() for name in header]
    while rows and not rows[-1]:
        rows.pop()
    kinds = _kinds_of(path, header)
    said = [name for name in (*ends.FLAGS, *ends.IDS) if name in header]
    if not kinds['obs'] or not kinds['act'] or len(kinds['rew']) > 1:
        raise UserError(f"{path}: its columns are '{','.join(header)[:80]}'; expected obs0, obs1, …, act0, … and at most one reward")
    used = [*(name for kind in (*WORDS, 'next_obs') for name in kinds[kind]), *said]
    if twice := sorted({name for name in used if header.count(name) > 1}):
        raise UserError(f"{path}: the column '{twice[0]}' stands twice; expected different names")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise UserError(f'{path}: line {line} has {len(row)} fields, the first line {len(header)}; expected as many')

    def columns(names: list[str]) -> np.ndarray:
        return np.array([[_number(path, line, row[header.index(n)]) for line, row in enumerate(rows, start=2)] for n in names]).T

    named = {kind: names for kind, names in kinds.items() if names} | {name: [name] for name in said}
    found = read_arrays(Arrays(path, list(named), lambda name: columns(named[name]), options, of_several=True, filled=False), '.csv')
    found.used, found.unused = ([column for name in names for column in named[name]] for names in (found.used, found.unused))
    found.unused += [name or '(without a name)' for name in header if name not in used]
    return found, used


def _kinds_of(path: str, header: list[str]) -> dict[str, list[str]]:
    """{kind: its columns in order}. A name is a word of WORDS, perhaps followed by a part that does not begin with a letter.

    A column with next_ before the word, or _next behind it (obs_next0), belongs to the next observations.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {kind: {} for kind in (*WORDS, 'next_obs')}  # {kind: {column: (word, what follows)}}
    for name in header:
        plain = re.sub(r'^next_|_next(?![a-z])', '', name)
        for kind, words in WORDS.items():
            if m := re.match(rf'({words})(?![a-z])[\W_]*(.*)', plain):
                found.setdefault(kind if plain == name else f'next_{kind}', {})[name] = (m[1], m[2])
    for kind in ('obs', 'act'):
        alike: dict[tuple[str, str], list[str]] = {}
        for name, (word, end) in found[kind].items():
            alike.setdefault((word, end and ('number' if re.search(r'[0-9]\W*$', end) else 'word')), []).append(name)
        if len(alike) > 1:
            groups = ' and '.join(', '.join(names[:9]) for names in alike.values())
            raise UserError(
                f'{path}: the columns {groups} may not all be of one {kind}; expected the same name with numbers, {kind}0, {kind}1, …, '
                f'or with words, {kind}_x, {kind}_y, …; rename or drop the others'
            )
        if any(how == 'number' for _, how in alike):
            found[kind] = dict(sorted(found[kind].items(), key=lambda item: in_order(item[1][1])))
    parts, after = [end for _, end in found['obs'].values()], found['next_obs']
    if parts and after:
        if sorted(parts) != sorted(end for _, end in after.values()):
            seen = f'{", ".join(list(after)[:9])} beside {", ".join(list(found["obs"])[:9])}'
            raise UserError(f'{path}: the columns {seen}; expected a next_obs… for each obs…, of the same number or name')
        found['next_obs'] = dict(sorted(after.items(), key=lambda item: parts.index(item[1][1])))
    return {kind: list(columns) for kind, columns in found.items()}


def _number(path: str, line: int, text: str) -> float:
    try:
        if text.strip().lower() in ('true', 'false'):
            return int(text.strip().lower() == 'true')
        if '_' in text or not text.isascii():
            raise ValueError('a number as Python writes it, or of another script')
        return int(text) if re.fullmatch(r'\s*[+-]?\d{1,18}\s*', text) else float(text)
    except ValueError as e:
        raise UserError(f"{path}: line {line}: '{text[:40]}' is not a number; expected only numbers below the first line") from e
