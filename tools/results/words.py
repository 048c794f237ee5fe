"""How pages write numbers, differences, verdicts and the names of algorithms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policyopt.reporting.tables import estimate, signed

if TYPE_CHECKING:
    from policyopt.reproduction.aggregate import Row

NAMES = {
    'bclone': 'cloning',
    'dagger': 'DAgger',
    'ga': 'GAIL',
    'ga_entreg0': 'GAIL, no entropy bonus',
    'ga_entreg-3': 'GAIL, entropy weight 0.001',
    'fem': 'FEM',
    'simplex': 'game-theoretic',
    'airl': 'AIRL',
}


def name_of_algorithm(alg: str) -> str:
    """An algorithm of a YAML file in words, or its name there as code."""
    return NAMES.get(alg, f'`{alg}`')


def minus(text: str) -> str:
    """The text with typographic minus signs before digits."""
    return re.sub(r'(?<![\w-])-(?=[\d.])', '−', text)


def table(heads: list[str], lines: list[list], words: int = 1) -> str:
    """A Markdown table; the first `words` columns are aligned to the left."""
    rule = ['---'] * words + ['---:'] * (len(heads) - words)
    return minus('\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in [heads, rule, *lines]))


def difference(row: Row, level: float = 0.9) -> str:
    """The mean difference of a row in scores, with its interval where there is one."""
    return estimate((row.diff, *row.interval(level)), 3, signed)


def verdict(row: Row) -> str:
    """What a difference to the paper shows, in three words."""
    return row.verdict
