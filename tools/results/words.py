"""How pages write numbers, differences, verdicts and the names of algorithms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

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


def signed(x: float) -> str:
    """A difference in scores: sign and three decimals, no sign on zero."""
    return f'{round(x, 3):+.3f}' if round(x, 3) else '0.000'


def interval(lo: float, hi: float) -> str:
    """[lo, hi] of differences in scores."""
    return f'[{signed(lo)}, {signed(hi)}]'


def difference(row: Row, level: float = 0.9) -> str:
    """The mean difference of a row in scores, with its interval where there is one."""
    lo, hi = row.interval(level)
    return signed(row.diff) + (f' {interval(lo, hi)}' if np.isfinite(lo) else '')


def verdict(row: Row) -> str:
    """What a difference to the paper shows, in three words.

    same within m: the 90% interval lies within ± margin. better, worse: the 95% interval leaves out zero. no worse by m: the 90%
    interval lies above −m. Otherwise, and where the variance between expert sets was not measured: too few data.
    """
    (lo, hi), (lo95, hi95), m = row.interval(0.9), row.interval(0.95), row.margin
    if row.num_ceiling == row.num_cells or (row.sets == 'measured' and -m < lo and hi < m):
        return f'same within {m:.2f}'
    if row.sets in ('measured', 'tasks') and (lo95 > 0 or hi95 < 0):
        return 'better' if lo95 > 0 else 'worse'
    return f'no worse by {m:.2f}' if row.sets == 'measured' and lo > -m else 'too few data'
