"""Learning curves with the level of the paper: pictures that no command of the product draws."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from policyopt.reporting import curves
from policyopt.reporting.figures import save_figure
from policyopt.reporting.reference import CellKey, read_reference


def draw_curves(folders: Sequence[str], reference: str, path: str) -> None:
    """Draw the true return of all training logs of some folders, with the paper's mean of each group as a dotted line.

    The paper's is that of finished runs over evaluation episodes, with their most likely actions.
    """
    published = read_reference(reference)
    logs = curves.read_logs([p for folder in folders for p in sorted(glob.glob(os.path.join(glob.escape(folder), '*.h5')))])

    def levels(log):
        found = published.get(CellKey(log.parts['task'], log.parts['alg'], int(log.parts['num_trajs'])))
        return {'paper, when finished': found.mean} if found else {}

    save_figure(curves.curves_figure(logs, ['trueret'], group=True, levels=levels), path)
