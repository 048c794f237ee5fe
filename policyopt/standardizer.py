"""The running standardiser of observations, actions and values.

Letters: B rows, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

CANCELS, CONSTANT = 1e-12, 1e-22  # variances, as shares of the mean square


class Standardizer:
    """Running mean and mean square of rows, pooled exactly over all updates, in float64 whatever the type of the net.

    standardize(x) = (x − mean)/(stdev + ε), stdev = √max(0, meansq − mean²). With count 0 the first update replaces mean 0 / meansq 1.
    Where a feature's variance is below CANCELS of its mean square, that difference is mostly rounding, and var_1_D holds the variance
    itself (0 for all other features; None if there is no such feature). Below CONSTANT the feature counts as constant.
    """

    def __init__(self, dim: int, dtype: torch.dtype = torch.float64, device: torch.device | str = 'cpu', eps: float = 1e-6):
        """dtype: of what `standardize` and `unstandardize` return."""
        self.eps, self.dtype = eps, dtype
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean_1_D = torch.zeros((1, dim), dtype=torch.float64, device=device)
        self.meansq_1_D = torch.ones((1, dim), dtype=torch.float64, device=device)
        self.var_1_D: torch.Tensor | None = None

    def update(self, x_B_D: torch.Tensor, weight_B: torch.Tensor | None = None) -> None:
        """Pool rows; weight_B counts each row that many times."""
        x_B_D = x_B_D.to(torch.float64)
        weight_B = x_B_D.new_ones(len(x_B_D)) if weight_B is None else weight_B.to(torch.float64)
        n = float(weight_B.sum())
        share, w_1_B = n / (float(self.count) + n), (weight_B / n)[None]
        old_mean_1_D, old_var_1_D, mean_1_D = self.mean_1_D.clone(), self.variance_1_D, w_1_B @ x_B_D
        self.mean_1_D.mul_(1 - share).add_(mean_1_D, alpha=share)
        self.meansq_1_D.mul_(1 - share).add_(w_1_B @ (x_B_D * x_B_D), alpha=share)
        self.count += n
        self.var_1_D = None
        if bool((self.meansq_1_D - self.mean_1_D**2 < CANCELS * self.meansq_1_D).any()):
            # from the deviations of the rows (Chan, Golub & LeVeque 1983), so that nothing large is subtracted
            centred_B_D = x_B_D - mean_1_D
            var_1_D = w_1_B @ centred_B_D**2 - (w_1_B @ centred_B_D) ** 2
            var_1_D = (1 - share) * old_var_1_D + share * var_1_D + share * (1 - share) * (mean_1_D - old_mean_1_D) ** 2
            small_1_D = (var_1_D < CANCELS * self.meansq_1_D) & (var_1_D > CONSTANT * self.meansq_1_D)
            self.var_1_D = torch.where(small_1_D, var_1_D, 0.0) if bool(small_1_D.any()) else None

    @property
    def variance_1_D(self) -> torch.Tensor:
        """float64, as are mean and stdev."""
        var_1_D = (self.meansq_1_D - self.mean_1_D**2).clamp_(min=0)
        return var_1_D if self.var_1_D is None else torch.where(self.var_1_D > 0, self.var_1_D, var_1_D)

    @property
    def stdev_1_D(self) -> torch.Tensor:
        return self.variance_1_D.sqrt_()

    def standardize(self, x_B_D: torch.Tensor) -> torch.Tensor:
        """Rows of any type as rows of the net's; what float32 could not tell apart is subtracted before it is rounded."""
        return ((x_B_D - self.mean_1_D) / (self.stdev_1_D + self.eps)).to(self.dtype)

    def unstandardize(self, x_B_D: torch.Tensor) -> torch.Tensor:
        return (x_B_D * (self.stdev_1_D + self.eps) + self.mean_1_D).to(self.dtype)

    def variables(self, scope: str) -> dict[str, torch.Tensor]:
        names = ('count', 'mean_1_D', 'meansq_1_D', *(() if self.var_1_D is None else ('var_1_D',)))
        return {f'{scope}/Standardizer/{n}': getattr(self, n) for n in names}

    def expect(self, arrays: Mapping[str, np.ndarray], scope: str) -> None:
        """Have the variables that `arrays`, which are loaded next, hold for it: var_1_D or none."""
        held = f'{scope}/Standardizer/var_1_D' in arrays
        self.var_1_D = torch.zeros_like(self.mean_1_D) if held else None
