"""Conjugate gradient, backtracking line search, the natural-gradient step, and the Adam of 2016.

Everything minimises. Letters: P flat parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from policyopt.errors import RunFailed, UserError
from policyopt.interfaces import Fields


class NotFinite(RunFailed):
    """What is named has become NaN in the middle of a step."""


def conjugate_gradient(
    product: Callable[[torch.Tensor], torch.Tensor], b_P: torch.Tensor, max_iter: int = 10, rtol: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Solve A x = b for a positive definite A given by `product`, from 0, without preconditioner.

    Stops before an iteration when the residual norm is below rtol·‖b‖. Returns (x_P, residual b − A x, number of products used).
    """
    x_P, r_P, p_P = torch.zeros_like(b_P), b_P.clone(), b_P.clone()
    rr = float(r_P @ r_P)
    stop = rtol * math.sqrt(rr)
    for i in range(max_iter):
        if math.sqrt(rr) < stop or rr == 0.0:
            return x_P, r_P, i
        z_P = product(p_P)
        curvature = float(p_P @ z_P)
        if math.isnan(curvature):
            raise NotFinite('the curvature along a search direction')
        if not curvature > 0:
            raise RunFailed(f'the curvature along a search direction is {curvature:.3g}, not positive; raise the cg_damping options')
        alpha = rr / curvature
        x_P.add_(p_P, alpha=alpha)
        r_P.sub_(z_P, alpha=alpha)
        rr, rr_old = float(r_P @ r_P), rr
        p_P.mul_(rr / rr_old).add_(r_P)
    return x_P, r_P, max_iter


def backtracking_line_search(
    f: Callable[[torch.Tensor], float],
    x0_P: torch.Tensor,
    f0: float,
    derivative: float,
    dx_P: torch.Tensor,
    accept_ratio: float = 0.1,
    shrink: float = 0.5,
    max_steps: int = 10,
) -> tuple[torch.Tensor, int]:
    """The first factor t = 1, shrink, shrink², … with f(x0 + t·dx) − f0 ≤ accept_ratio·t·derivative, derivative = gradient·dx < 0.

    Returns (x_P, rejected). After max_steps rejections the next factor is taken untested (as in 2016), never the old point.
    """
    t = 1.0
    for rejected in range(max_steps):
        x_P = x0_P + t * dx_P
        if f(x_P) - f0 <= accept_ratio * t * derivative:
            return x_P, rejected
        t *= shrink
    return x0_P + t * dx_P, max_steps


@dataclass
class NaturalStep:
    """Outcome of a natural-gradient step: f before, max|gradient| there, f and KL after, rejected line-search points, the CG solution."""

    f0: float
    gnorm: float | None
    f: float
    kl: float = 0.0
    num_backtracks: int = 0
    cg_solution_P: torch.Tensor | None = None
    num_products: int = 0

    def fields(self, prefix: str = '') -> Fields:
        """What is logged of it: improvement, KL, gradient, rejected points."""
        numbers = {'dl': self.f0 - self.f, 'kl': self.kl, 'gnorm': self.gnorm}
        return [*((prefix + name, value, float) for name, value in numbers.items()), (f'{prefix}bt', self.num_backtracks, int)]


def natural_gradient_step(
    theta_P: torch.Tensor,
    f0: float,
    grad_P: torch.Tensor,
    f_and_kl: Callable[[], tuple[float, float]],
    make_hvp: Callable[[], Callable[[torch.Tensor], torch.Tensor]],
    max_kl: float,
    damping: float,
    max_cg_iter: int = 10,
    grad_stop_tol: float = 1e-6,
    enable_backtracking: bool = True,
) -> NaturalStep:
    """Take one trust-region step in theta_P that minimises f within KL ≤ max_kl (Schulman et al. 2015, appendix C).

    d = −(H + damping)⁻¹ ∇f by conjugate gradient; step = d / √(½ dᵀ(H + damping) d / max_kl + 1e-8); backtracking accepts the first
    point with KL ≤ 2·max_kl and enough improvement.

    Args:
        theta_P, f0, grad_P: point, value, gradient (a step with max|grad| < grad_stop_tol is left out).
        f_and_kl(): (f, KL) at what theta_P is then.  make_hvp(): the function v ↦ H v, called only when a step is taken.
    Original: the scaling uses the damped product while the wall is at 2·max_kl.
    """
    gnorm = float(grad_P.abs().max())
    if gnorm < grad_stop_tol:
        return NaturalStep(f0, gnorm, f0)
    x0_P, hvp = theta_P.clone(), make_hvp()

    def damped(v_P):
        return hvp(v_P).add_(v_P, alpha=damping)

    d_P, residual_P, num_products = conjugate_gradient(damped, -grad_P, max_cg_iter)
    # (H + damping) d is −∇f less the residual: no further product
    dx_P = d_P * (1 / math.sqrt(0.5 * float(d_P @ (-grad_P - residual_P)) / max_kl + 1e-8))
    seen = {}

    def barrier(x_P):
        theta_P.copy_(x_P)
        seen['x_P'], (seen['f'], seen['kl']) = x_P, f_and_kl()
        return seen['f'] if seen['kl'] <= 2 * max_kl else math.inf

    if enable_backtracking:
        x_P, num_backtracks = backtracking_line_search(barrier, x0_P, f0, float(grad_P @ dx_P), dx_P)
    else:
        x_P, num_backtracks = x0_P + dx_P, 0
    if seen.get('x_P') is not x_P:
        barrier(x_P)
    return NaturalStep(f0, gnorm, seen['f'], seen['kl'], num_backtracks, cg_solution_P=d_P, num_products=num_products)


def subsample_rows(num_rows: int, frac: float, rng: np.random.RandomState) -> np.ndarray:
    """int(frac·num_rows) row indices drawn with replacement; raises UserError when that is none."""
    if int(frac * num_rows) < 1:
        raise UserError(
            f'a batch of {num_rows} pairs is too small: {frac:g} of it, used for the curvature, is no pair at all; raise min_total_sa'
        )
    return rng.choice(num_rows, size=int(frac * num_rows))


def subsample(x_B_D: torch.Tensor, frac: float | None, rng: np.random.RandomState) -> torch.Tensor:
    """Those rows of a tensor; all of them, without a draw, when frac is None."""
    return x_B_D if frac is None else x_B_D[torch.as_tensor(subsample_rows(len(x_B_D), frac, rng), device=x_B_D.device)]


def finite_difference_hvp(v_P: np.ndarray, grad: Callable[[np.ndarray], np.ndarray], x0_P: np.ndarray, delta: float = 1e-4) -> np.ndarray:
    """(∇f(x0 + ε v̂) − ∇f(x0 − ε v̂))/(2ε)·‖v‖, a check of Hessian-vector products that vectors of 2016 hold."""
    eps = delta / float(np.linalg.norm(v_P))
    return (grad(x0_P + eps * v_P) - grad(x0_P - eps * v_P)) / (2 * eps)


class Adam:
    """Adam with the bias correction folded into the step size (Kingma & Ba 2015, end of section 2).

    α = lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ),  x ← x − α·m/(√v + ε). Here ε is not scaled by the correction: torch.optim.Adam differs in the last digits.
    """

    def __init__(self, theta_P: torch.Tensor, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8):
        self.theta_P, self.lr, self.beta1, self.beta2, self.eps = theta_P, lr, beta1, beta2, eps
        self.m_P, self.v_P, self.t = torch.zeros_like(theta_P), torch.zeros_like(theta_P), 0

    def step(self, grad_P: torch.Tensor) -> None:
        """Update theta_P in place against the gradient of a loss."""
        self.t += 1
        self.m_P.mul_(self.beta1).add_(grad_P, alpha=1 - self.beta1)
        self.v_P.mul_(self.beta2).addcmul_(grad_P, grad_P, value=1 - self.beta2)
        alpha = self.lr * math.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        self.theta_P.addcdiv_(self.m_P, self.v_P.sqrt().add_(self.eps), value=-alpha)

    def state(self) -> dict[str, np.ndarray]:
        return {'m_P': self.m_P.cpu().numpy().copy(), 'v_P': self.v_P.cpu().numpy().copy(), 't': np.array(self.t)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.m_P.copy_(torch.as_tensor(state['m_P']))
        self.v_P.copy_(torch.as_tensor(state['v_P']))
        self.t = int(state['t'])
