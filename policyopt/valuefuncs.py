"""Value functions of observation and time: a net, a linear one, and one constant per time step.

Letters: B rows, Do observation dim, P flat parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from policyopt import optim
from policyopt.interfaces import Fields
from policyopt.nn import Curvature, FeedforwardNet, Model, net_shapes, parse_spec
from policyopt.options import CommonOptions
from policyopt.torchutil import NetConfig, to_tensor

HVP_FRAC = 0.1  # share of the rows that Hessian-vector products use, drawn with replacement


class ValueFunc(Model):
    """V(obs, t): a net on [standardised obs, time·time_scale] that predicts standardised values.

    time_scale is 1 / the environment's time limit.
    """

    def __init__(
        self,
        options: CommonOptions,
        obs_dim: int,
        time_scale: float,
        nets: NetConfig = NetConfig(),
        enable_obsnorm: bool = True,
    ):
        """options: --vf_max_kl, --vf_cg_damping, the --vf_steps of each `fit`, and the hidden layers, which are the policy's."""
        self.time_scale, self.max_kl, self.damping, self.steps = time_scale, options.vf_max_kl, options.vf_cg_damping, options.vf_steps
        spec = parse_spec(options.policy_hidden_spec)
        shapes = net_shapes('/ValueFunc', spec, obs_dim + 1, 1)
        super().__init__(shapes, nets, ({'/ValueFunc/obsnorm': obs_dim} if enable_obsnorm else {}) | {'/ValueFunc/vnorm': 1})
        self.net = FeedforwardNet(spec, self.theta_P, shapes.values())
        self.obsnorm, self.vnorm = self.normalizers.get('/ValueFunc/obsnorm'), self.normalizers['/ValueFunc/vnorm']
        self.net.init(nets.rng)

    def inputs(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> torch.Tensor:
        """[standardised obs, time·time_scale], (B, Do + 1)."""
        t = to_tensor(t_B, self.theta_P)
        return torch.cat([self.normalized_obs(obs_B_Do), t[:, None] * self.time_scale], dim=1)

    def evaluate(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> np.ndarray:
        """Values in the units of the targets, a numpy array (B,)."""
        return self.vnorm.unstandardize(self.net.forward(self.inputs(obs_B_Do, t_B)))[:, 0].cpu().numpy()

    def objective_gradient(self, x_B_Di: torch.Tensor, target_B: torch.Tensor) -> tuple[torch.Tensor, float, torch.Tensor]:
        """The present output, L = −mean((v − target)²) and ∇L."""
        num = len(x_B_Di)
        out, grad_P = self.net.forward_backward(x_B_Di, lambda out, rows: (target_B[rows, None] - out).mul_(2 / num))
        return out[:, 0], -float(((out[:, 0] - target_B) ** 2).mean()), grad_P

    def kl_hvp(self, x_B_Di: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """v ↦ H v, H the Hessian of mean((v_old − v)²) where v_old is the present output."""
        curv = Curvature(self.net, x_B_Di)
        return lambda v_P: curv.product(v_P, lambda r_out, rows: r_out * (2 / len(x_B_Di)))

    def fit(
        self, obs_B_Do: np.ndarray, t_B: np.ndarray, y_B: np.ndarray, rng: np.random.RandomState, hvp_frac: float | None = HVP_FRAC
    ) -> Fields:
        """`steps` natural-gradient steps towards the targets y, after both normalisers have taken in the batch.

        rng draws the rows of the Hessian-vector products (hvp_frac None: all rows). Returns log fields vf_dl, vf_kl, vf_gnorm, vf_bt of
        the last step.
        As in 2016: the old prediction, to which the trust region refers, is computed under the *new* normalisers.
        """
        self.update_obsnorm(obs_B_Do)
        y_B_1 = to_tensor(y_B, self.vnorm.mean_1_D)[:, None]
        self.vnorm.update(y_B_1)
        x_B_Di, target_B = self.inputs(obs_B_Do, t_B), self.vnorm.standardize(y_B_1)[:, 0]
        for _ in range(self.steps):
            fields = self.step(x_B_Di, target_B, rng, hvp_frac)
        return fields

    def step(self, x_B_Di: torch.Tensor, target_B: torch.Tensor, rng: np.random.RandomState, hvp_frac: float | None) -> Fields:
        """One natural-gradient step on standardised inputs and targets; returns its log fields."""
        v_old_B, obj0, grad_P = self.objective_gradient(x_B_Di, target_B)

        def loss_and_kl():
            v_B = self.net.forward(x_B_Di)[:, 0]
            return float(((v_B - target_B) ** 2).mean()), float(((v_old_B - v_B) ** 2).mean())

        def make_hvp():
            return self.kl_hvp(optim.subsample(x_B_Di, hvp_frac, rng))

        self.last_step = optim.natural_gradient_step(
            self.theta_P, -obj0, -grad_P, loss_and_kl, make_hvp, max_kl=self.max_kl, damping=self.damping
        )
        return self.last_step.fields('vf_')


class LinearValueFunc:
    """Ridge regression on [obs, t/100, (t/100)², 1] with penalty 1e-5; no command uses it, but vectors of 2016 hold it."""

    def __init__(self, ridge: float = 1e-5):
        self.ridge, self.w_F = ridge, None

    def features(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> np.ndarray:
        t = np.asarray(t_B)[:, None] / 100
        return np.concatenate([obs_B_Do, t, t**2, np.ones_like(t)], axis=1)

    def fit(self, obs_B_Do: np.ndarray, t_B: np.ndarray, y_B: np.ndarray) -> Fields:
        x = self.features(obs_B_Do, t_B)
        self.w_F = np.linalg.solve(x.T @ x + self.ridge * np.eye(x.shape[1]), x.T @ y_B)
        return []

    def evaluate(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> np.ndarray:
        """Values (B,); zeros before the first fit."""
        return np.zeros(len(obs_B_Do)) if self.w_F is None else self.features(obs_B_Do, t_B) @ self.w_F


class ConstantValueFunc:
    """The mean target of each time step, whatever the observation; 0 for times never seen."""

    def __init__(self, max_timesteps: int):
        self.v_T = np.zeros(max_timesteps)

    def fit(self, obs_B_Do: np.ndarray | None, t_B: np.ndarray, y_B: np.ndarray) -> Fields:
        t = np.asarray(t_B, dtype=np.int64)
        total, count = np.bincount(t, y_B, len(self.v_T)), np.bincount(t, minlength=len(self.v_T))
        self.v_T = np.where(count > 0, total / np.maximum(count, 1), 0.0)
        return []

    def evaluate(self, obs_B_Do: np.ndarray | None, t_B: np.ndarray) -> np.ndarray:
        return self.v_T[np.asarray(t_B, dtype=np.int64)]
