"""A results table as a study of a reproduction: whole algorithms next to published results, with negative controls."""

from __future__ import annotations

import functools
from typing import Any

from policyopt.reporting.analysis import Analysis
from policyopt.reproduction.aggregate import Aggregate
from policyopt.reproduction.negative_controls import Control, controls


class Study(Analysis):
    """An analysis with what all its cells together say."""

    @functools.cached_property
    def aggregate(self) -> Any:
        """The Aggregate over all cells, or None without a reference that can be normalised."""
        cells = {k: (c.y_N, c.set_N) for k, c in self.cells.items()}
        found = Aggregate(cells, self.reference, self.scales, self.sources, self.margins)
        return found if found.pairs else None

    @functools.cached_property
    def controls(self) -> list[Control]:
        """Negative controls of the aggregate's verdict."""
        return controls(self.aggregate) if self.aggregate else []
