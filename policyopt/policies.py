"""Stochastic policies: a net's outputs as a distribution over actions, with the derivatives that the algorithms need.

Letters: B rows, Do observation dim, Da action storage dim, K net outputs, Pa distribution parameters, P flat parameters.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from policyopt.arguments import as_flag, as_generator, as_integer, as_numbers, kind_of
from policyopt.errors import RunFailed, UserError
from policyopt.nn import ACTIVATIONS, Curvature, FeedforwardNet, Model, OfRows, net_shapes, parse_spec
from policyopt.sampling.actors import Actor
from policyopt.torchutil import DTYPES, NetConfig, as_device, to_tensor
from policyopt.trajectories import ContinuousSpace, FiniteSpace, Space

if TYPE_CHECKING:
    from policyopt.files.training_log import Snapshot
    from policyopt.sampling.mdp import MDP


class Policy(Model):
    """Observations → standardiser → net → distribution over actions.

    A distribution is a subclass with `adist`, `logprob`, `kl`, `entropy` and `action`, of tensors and differentiable by torch
    (docs/extending.md). The derivatives with respect to the net's outputs and the policy's own parameters follow by torch.func;
    GibbsPolicy and GaussianPolicy have theirs written out, and actors in numpy, which are faster.
    """

    def __init_subclass__(cls) -> None:
        if cls.__base__ is not Policy:
            raise TypeError(f'{cls.__name__}: derive it from Policy; derivatives and actor of another class do not follow its functions')

    actions: type[Space] = ContinuousSpace  # the kind of space that the distribution is for
    outputs_per_action = 1  # outputs of the net for each number of a continuous action, or each action of a finite space

    def __init__(
        self,
        obs_space: ContinuousSpace,
        action_space: Space,
        hidden_spec: str | list,
        *,
        enable_obsnorm: bool = True,
        nets: NetConfig = NetConfig(),
        bounds_2_Da: np.ndarray | None = None,
    ):
        """bounds_2_Da: the box (lowest, highest) that continuous actions are clipped to when they are played; None: they are not."""
        if not isinstance(action_space, self.actions):
            raise UserError(f'{type(self).__name__} is for actions of a {self.actions.__name__}; the actions are of {action_space}')
        as_integer(self.outputs_per_action, f'{type(self).__name__}.outputs_per_action', 1)
        self.obs_space, self.action_space, self.hidden_spec = obs_space, action_space, hidden_spec
        self.bounds_2_Da = None if bounds_2_Da is None else torch.as_tensor(bounds_2_Da, dtype=torch.float64)
        spec = parse_spec(hidden_spec)
        scope = f'/{type(self).__name__}'
        shapes = net_shapes(scope, spec, obs_space.dim, self.num_outputs)
        own = self.own_shapes(scope)
        super().__init__(own | shapes, nets, {f'{scope}/obsnorm': obs_space.dim} if enable_obsnorm else {})
        self.num_own = sum(math.prod(s) for s in own.values())
        self.own_P = self.theta_P[: self.num_own]
        self.net = FeedforwardNet(spec, self.theta_P[self.num_own :], shapes.values())
        self.obsnorm = self.normalizers.get(f'{scope}/obsnorm')
        self.net.init(nets.rng)

    def checked(self) -> Policy:
        """This policy, if its functions do what they should for two rows of zeros; else UserError. Those of the built-in classes do."""
        if type(self).actor is Policy.actor:
            self._check_functions()
        return self

    def _check_functions(self) -> None:
        out_2_K, num = self.theta_P.new_zeros((2, self.num_outputs)), self.action_space.storage_size
        adist = self._call_checked('adist', (2, None), out_2_K)
        self._call_checked('action', (2, num), adist, torch.full_like(adist[:, :1], 0.5).expand(2, num))
        a_2_Da = self._call_checked('action', (2, num), adist)
        if isinstance(self.action_space, FiniteSpace) and not bool(((a_2_Da >= 0) & (a_2_Da < self.action_space.size)).all()):
            raise UserError(f'{type(self).__name__}.action() returned {a_2_Da.tolist()}; expected 0 to {self.action_space.size - 1}')
        self._call_checked('logprob', (2,), adist, self.action_tensor(a_2_Da))
        self._call_checked('kl', (2,), adist, adist)
        self._call_checked('entropy', (2,), adist)

    def _call_checked(self, name: str, shape: tuple[int | None, ...], *args: torch.Tensor) -> torch.Tensor:
        """What a function returns, which is to be a tensor of finite numbers of this shape; None: of any size."""
        where = f'{type(self).__name__}.{name}()'
        try:
            x = getattr(self, name)(*args)
        except NotImplementedError as e:
            raise UserError(f'{where} is missing; a policy class has adist, logprob, kl, entropy and action') from e
        except (Exception, SystemExit) as e:
            raise UserError(f'{where} failed with {type(e).__name__}: {e}') from e
        seen = f'a tensor of shape {tuple(x.shape)}' if isinstance(x, torch.Tensor) else kind_of(x)
        if isinstance(x, torch.Tensor) and len(x.shape) == len(shape) and all(n in (m, None) for m, n in zip(x.shape, shape, strict=True)):
            if not x.is_complex() and bool(torch.isfinite(x).all()):
                return x
            seen += ' of complex numbers' if x.is_complex() else ' with NaN or infinity'
        wanted = f'({", ".join("any" if n is None else str(n) for n in shape)}{"," * (len(shape) == 1)})'
        raise UserError(f'{where} returned {seen} for 2 rows; expected a tensor of finite numbers of shape {wanted}')

    @property
    def num_outputs(self) -> int:
        space = self.action_space
        return self.outputs_per_action * (space.size if isinstance(space, FiniteSpace) else space.dim)

    def adist(self, out_B_K: torch.Tensor, /) -> torch.Tensor:
        """Distribution parameters (B, Pa) from the net's outputs and `own_P`."""
        raise NotImplementedError

    def logprob(self, adist_B_Pa: torch.Tensor, a_B_Da: torch.Tensor, /) -> torch.Tensor:
        """log π of actions, (B,)."""
        raise NotImplementedError

    def kl(self, old_B_Pa: torch.Tensor, new_B_Pa: torch.Tensor, /) -> torch.Tensor:
        """KL(old ‖ new) of each row, (B,)."""
        raise NotImplementedError

    def entropy(self, adist_B_Pa: torch.Tensor, /) -> torch.Tensor:
        """Of each row, (B,)."""
        raise NotImplementedError

    def action(self, adist_B_Pa: torch.Tensor, u_B_Da: torch.Tensor | None = None, /) -> torch.Tensor:
        """The most likely actions (B, Da), or those that uniform numbers from [0, 1) draw."""
        raise NotImplementedError

    def own_shapes(self, scope: str) -> dict[str, tuple[int, ...]]:
        """{scope/name: shape} of parameters that are not the net's; they start at 0, and `own_P` has them as one vector."""
        return {}

    def logprob_vjp(
        self, out_B_K: torch.Tensor, adist_B_Pa: torch.Tensor, a_B_Da: torch.Tensor, weight_B: torch.Tensor, /
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The gradients of Σ weight·log π with respect to the net's outputs (B, K) and to `own_P`."""

        def weighted(out, own_P):
            return (weight_B * self.logprob(self._adist_with(out, own_P), a_B_Da)).sum()

        return torch.func.grad(weighted, (0, 1))(out_B_K, self.own_P)

    def kl_hessian_product(
        self, out_B_K: torch.Tensor, adist_B_Pa: torch.Tensor, r_B_K: torch.Tensor, v_own: torch.Tensor, /
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The Hessian of Σ KL(this ‖ new) in the new outputs and own parameters, taken where new is this, times (r, v)."""

        def sum_of_kl(out, own_P):
            return self.kl(adist_B_Pa, self._adist_with(out, own_P)).sum()

        return torch.func.jvp(torch.func.grad(sum_of_kl, (0, 1)), (out_B_K, self.own_P), (r_B_K, v_own))[1]

    def _adist_with(self, out_B_K: torch.Tensor, own_P: torch.Tensor) -> torch.Tensor:
        """`adist` as a function of the own parameters too, for torch.func."""
        kept, self.own_P = self.own_P, own_P
        try:
            return self.adist(out_B_K)
        finally:
            self.own_P = kept

    def compute_adist(self, obs_B_Do: ArrayLike) -> torch.Tensor:
        """Distribution parameters (B, Pa) as a tensor."""
        return self.adist(self.net.forward(self.normalized_obs(obs_B_Do)))

    def action_tensor(self, a_B_Da: ArrayLike) -> torch.Tensor:
        """Actions as a tensor on this policy's device (int64 for finite spaces)."""
        if isinstance(self.action_space, FiniteSpace):
            return torch.as_tensor(np.asarray(a_B_Da), dtype=torch.int64, device=self.theta_P.device)
        return to_tensor(a_B_Da, self.theta_P)

    def logprob_gradient(self, x_B_Do: torch.Tensor, a_B_Da: torch.Tensor, dlogp: OfRows) -> tuple[torch.Tensor, torch.Tensor]:
        """log π(a|x) per row, and the gradient of a sum of functions of it; x is already normalised.

        dlogp(logp, rows) returns d loss/d log π for the rows of a slice. Returns (logp_B, grad_P).
        """
        logp_B = torch.empty(len(x_B_Do), dtype=self.theta_P.dtype, device=self.theta_P.device)
        own_P = torch.zeros_like(self.own_P)

        def dout(out, rows):
            adist, a = self.adist(out), a_B_Da[rows]
            logp_B[rows] = self.logprob(adist, a)
            d_out, d_own = self.logprob_vjp(out, adist, a, dlogp(logp_B[rows], rows))
            own_P.add_(d_own)
            return d_out

        _, net_P = self.net.forward_backward(x_B_Do, dout)
        return logp_B, torch.cat([own_P, net_P])

    def kl_hvp(self, x_B_Do: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function v ↦ H v, H the Hessian of mean KL(this ‖ new) where new is this, over rows that are already normalised."""
        curv = Curvature(self.net, x_B_Do)
        adist = self.adist(curv.out_B_Do)

        def product(v_P):
            own_P = torch.zeros_like(self.own_P)
            v_own, v_net = v_P[: self.num_own], v_P[self.num_own :]

            def hessian_out(r_out, rows):
                h_out, h_own = self.kl_hessian_product(curv.out_B_Do[rows], adist[rows], r_out, v_own)
                own_P.add_(h_own, alpha=1 / len(x_B_Do))
                return h_out.div_(len(x_B_Do))

            net_P = curv.product(v_net, hessian_out)
            return torch.cat([own_P, net_P])

        return product

    def act(self, obs: Any, deterministic: bool = True, rng: Any = None) -> Any:
        """Actions for one observation (Do,) or a batch (B, Do), numpy in and out.

        Finite actions: an int, or (B,) int64. Continuous ones: (Da,) or (B, Da) float64, clipped only where it was trained so.
        deterministic takes the most likely action (the mean); else one is drawn with rng, a numpy.random.Generator, a seed, or
        None for fresh randomness. Raises UserError for observations of another shape, or that are not finite numbers.
        """
        obs_B_Do, Do = as_numbers(obs, 'the observation'), self.obs_space.dim
        if obs_B_Do.ndim not in (1, 2) or obs_B_Do.shape[-1] != Do:
            raise UserError(f'the observation has shape {obs_B_Do.shape}; this policy takes ({Do},), or (B, {Do}) for a batch')
        deterministic = as_flag(deterministic, 'deterministic')
        actor, one, obs_B_Do = self.actor(), obs_B_Do.ndim == 1, np.atleast_2d(obs_B_Do)
        outputs = actor.outputs(obs_B_Do)
        a_B_Da = self.clipped(actor.act(outputs, None if deterministic else actor.noise(as_generator(rng), len(obs_B_Do))))
        if actor.finite:
            return int(a_B_Da[0, 0]) if one else a_B_Da[:, 0]
        return a_B_Da[0] if one else a_B_Da

    def predict(self, obs: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[np.ndarray, Any]:
        """Choose actions with the interface of a Stable-Baselines3 model, for example for its `evaluate_policy`: (actions, state).

        obs as in `act`; actions are arrays, of shape () for one finite action. There is no state: the one given is returned, and
        episode_start is not needed. Raises as `act`.
        """
        return np.asarray(self.act(obs, deterministic)), state

    def clipped(self, a_B_Da: np.ndarray) -> np.ndarray:
        """Actions as they are played: clipped to the policy's bounds where it has any."""
        return a_B_Da if self.bounds_2_Da is None else a_B_Da.clip(*self.bounds_2_Da.numpy())

    @property
    def variables(self) -> dict[str, torch.Tensor]:
        bounds = {} if self.bounds_2_Da is None else {f'/{type(self).__name__}/bounds_2_Da': self.bounds_2_Da}
        return super().variables | bounds

    def to_torch(self) -> torch.nn.Module:
        """A copy as a torch.nn.Module: observations (B, Do) or (Do,) → the most likely actions, as `act`, for export.

        Returns int64 (B,) for finite actions, else the means (B, Da). Its parameters have this policy's precision and device.
        """
        return DeterministicPolicy(self)

    def actor(self) -> Actor:
        """A copy for stepping environments, with the net in numpy."""
        return DistributionActor(self)

    def numpy_net(self) -> dict[str, Any]:
        """Normaliser, net and bounds as the arguments of an Actor."""
        norm, bounds = self.obsnorm, self.bounds_2_Da
        frozen = [None if affine is None else tuple(x.cpu().numpy().copy() for x in affine) for affine, _ in self.net.stages]
        return {
            'layers': [(affine, act) for affine, (_, act) in zip(frozen, self.net.stages, strict=True)],
            'mean': None if norm is None else norm.mean_1_D.cpu().numpy().copy(),
            'scale': None if norm is None else norm.stdev_1_D.cpu().numpy() + norm.eps,
            'bounds_2_Da': None if bounds is None else bounds.numpy().copy(),
        }


class DistributionActor(Actor):
    """An actor whose distribution is a policy's, computed by torch."""

    def __init__(self, policy: Policy):
        super().__init__(**policy.numpy_net(), stdev=None)
        self.policy, self.finite = policy, isinstance(policy.action_space, FiniteSpace)
        self.num_noise = policy.action_space.storage_size

    def adist_of(self, out_B_K: np.ndarray) -> np.ndarray:
        return self.policy.adist(self._tensor(out_B_K)).cpu().numpy()

    def noise(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.random((num, self.num_noise))

    def act(self, out_B_K: np.ndarray, noise_B_Dn: np.ndarray | None = None) -> np.ndarray:
        return self.act_by(self.adist_of(out_B_K), noise_B_Dn)

    def act_by(self, adist_B_Pa: np.ndarray, noise_B_Dn: np.ndarray | None = None) -> np.ndarray:
        u_B_Da = None if noise_B_Dn is None else self._tensor(noise_B_Dn)
        a_B_Da = self.policy.action(self._tensor(adist_B_Pa), u_B_Da).cpu().numpy()
        if not np.isfinite(a_B_Da).all():
            raise RunFailed(f'{type(self.policy).__name__}.action() returned NaN or infinity; expected finite numbers')
        return a_B_Da.astype(self.policy.action_space.storage_type)

    def _tensor(self, x: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(x, device=self.policy.theta_P.device)


class GibbsPolicy(Policy):
    """Softmax over net scores; adist = log-probabilities (B, number of actions)."""

    actions = FiniteSpace
    action_space: FiniteSpace

    def adist(self, out_B_K: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(out_B_K, dim=1)

    def logprob(self, adist_B_K: torch.Tensor, a_B_1: torch.Tensor) -> torch.Tensor:
        return adist_B_K.gather(1, a_B_1)[:, 0]

    def kl(self, old_B_K: torch.Tensor, new_B_K: torch.Tensor) -> torch.Tensor:
        return (old_B_K.exp() * (old_B_K - new_B_K)).sum(1)

    def entropy(self, adist_B_K: torch.Tensor) -> torch.Tensor:
        """−Σ p log(p + 1e-10) (as in 2016: the constant is inside the logarithm)."""
        p_B_K = adist_B_K.exp()
        return -(p_B_K * (p_B_K + 1e-10).log()).sum(1)

    def action(self, adist_B_K: torch.Tensor, u_B_1: torch.Tensor | None = None) -> torch.Tensor:
        if u_B_1 is None:
            return adist_B_K.argmax(1, keepdim=True)
        return (adist_B_K[:, :-1].exp().cumsum(1) < u_B_1).sum(1, keepdim=True)

    def logprob_vjp(
        self, out_B_K: torch.Tensor, adist_B_K: torch.Tensor, a_B_1: torch.Tensor, weight_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """∂log π/∂scores = onehot − p."""
        d = adist_B_K.exp().neg_()
        d.scatter_add_(1, a_B_1, torch.ones_like(d[:, :1]))
        return d.mul_(weight_B[:, None]), self.own_P  # which is empty

    def kl_hessian_product(
        self, out_B_K: torch.Tensor, adist_B_K: torch.Tensor, r_B_K: torch.Tensor, v_own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(diag(p) − p pᵀ) r."""
        pr = adist_B_K.exp() * r_B_K
        return pr - adist_B_K.exp() * pr.sum(1, keepdim=True), v_own

    def actor(self) -> Actor:
        return Actor(**self.numpy_net(), stdev=None)


class GaussianPolicy(Policy):
    """Mean from the net, free log-stdevs (start 0); adist = [means, stdevs] (B, 2·dim)."""

    action_space: ContinuousSpace

    def own_shapes(self, scope: str) -> dict[str, tuple[int, ...]]:
        return {f'{scope}/logstdevs_1_Da': (1, self.action_space.dim)}

    def adist(self, out_B_D: torch.Tensor) -> torch.Tensor:
        return torch.cat([out_B_D, self.own_P.exp().expand_as(out_B_D)], dim=1)

    def _split(self, adist_B_Pa: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return adist_B_Pa.chunk(2, dim=1)

    def logprob(self, adist_B_Pa: torch.Tensor, a_B_D: torch.Tensor) -> torch.Tensor:
        mean, stdev = self._split(adist_B_Pa)
        return -0.5 * (((a_B_D - mean) / stdev) ** 2).sum(1) - stdev.log().sum(1) - 0.5 * math.log(2 * math.pi) * mean.shape[1]

    def kl(self, old_B_Pa: torch.Tensor, new_B_Pa: torch.Tensor) -> torch.Tensor:
        (mean1, stdev1), (mean2, stdev2) = self._split(old_B_Pa), self._split(new_B_Pa)
        return ((stdev2 / stdev1).log() + (stdev1**2 + (mean1 - mean2) ** 2) / (2 * stdev2**2) - 0.5).sum(1)

    def entropy(self, adist_B_Pa: torch.Tensor) -> torch.Tensor:
        """½ D (1 + log 2π) + Σ log stdev."""
        stdev = self._split(adist_B_Pa)[1]
        return 0.5 * stdev.shape[1] * (1 + math.log(2 * math.pi)) + stdev.log().sum(1)

    def action(self, adist_B_Pa: torch.Tensor, u_B_D: torch.Tensor | None = None) -> torch.Tensor:
        mean, stdev = self._split(adist_B_Pa)
        return mean if u_B_D is None else mean + stdev * torch.special.ndtri(u_B_D)

    def logprob_vjp(
        self, out_B_D: torch.Tensor, adist_B_Pa: torch.Tensor, a_B_D: torch.Tensor, weight_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """∂log π/∂mean = (a − μ)/σ², ∂log π/∂log σ = (a − μ)²/σ² − 1."""
        mean, stdev = self._split(adist_B_Pa)
        z = (a_B_D - mean) / stdev
        return (z / stdev).mul_(weight_B[:, None]), weight_B @ (z * z - 1)

    def kl_hessian_product(
        self, out_B_D: torch.Tensor, adist_B_Pa: torch.Tensor, r_B_D: torch.Tensor, v_own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """∂²/∂μ² = 1/σ², ∂²/∂logσ² = 2 in each row."""
        # a sum over rows, not a product: their last bits differ
        return r_B_D / self._split(adist_B_Pa)[1] ** 2, (2 * v_own).repeat(len(r_B_D), 1).sum(0)

    def actor(self) -> Actor:
        return Actor(**self.numpy_net(), stdev=np.exp(self.own_P.cpu().numpy()))


# the class of a new policy, by the kind of its actions
POLICY_CLASSES: dict[type[Space], type[Policy]] = {FiniteSpace: GibbsPolicy, ContinuousSpace: GaussianPolicy}


class DeterministicPolicy(torch.nn.Module):
    """A policy's most likely action as a torch module, with its normaliser inside; `Policy.to_torch` makes it."""

    mean_Do: torch.Tensor
    scale_Do: torch.Tensor
    bounds_2_Da: torch.Tensor | None

    def __init__(self, policy: Policy):
        super().__init__()
        if not isinstance(policy, GibbsPolicy | GaussianPolicy):
            raise UserError(f'to_torch exports a GibbsPolicy or a GaussianPolicy, and this is {kind_of(policy)}; export its `net`')
        self.finite = isinstance(policy, GibbsPolicy)
        self.register_buffer('bounds_2_Da', None if policy.bounds_2_Da is None else policy.bounds_2_Da.to(policy.theta_P))
        norm, like, layers = policy.obsnorm, policy.theta_P, []
        # float64 for nets of both types, as in the policy
        mean_Do = torch.zeros(policy.obs_space.dim, dtype=torch.float64, device=like.device)
        self.register_buffer('mean_Do', mean_Do if norm is None else norm.mean_1_D[0].clone())
        self.register_buffer('scale_Do', torch.ones_like(self.mean_Do) if norm is None else norm.stdev_1_D[0] + norm.eps)
        for affine, activation in policy.net.stages:
            if affine is not None:
                W, b = affine
                # draws no numbers
                layer: Any = torch.nn.utils.skip_init(torch.nn.Linear, *W.shape, dtype=like.dtype, device=like.device)
                layer.weight.data.copy_(W.t())
                layer.bias.data.copy_(b[0])
                layers.append(layer)
            if activation is not None:
                layers.append(copy.deepcopy(ACTIVATIONS[activation].module))  # hooks and names are those of one layer
        self.net = torch.nn.Sequential(*layers)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        dtype: Any = self.net[-1].weight.dtype
        out = self.net(((obs - self.mean_Do) / self.scale_Do).to(dtype))
        if self.finite:
            return out.argmax(-1)
        return out if self.bounds_2_Da is None else out.clamp(*self.bounds_2_Da)


def make_policy(
    obs_space: Any,
    action_space: Any,
    hidden_spec: str | list,
    enable_obsnorm: bool = True,
    rng: np.random.RandomState | None = None,
    dtype: torch.dtype | str = torch.float64,
    device: torch.device | str = 'cpu',
    bounds_2_Da: np.ndarray | None = None,
    policy_class: type[Policy] | None = None,
) -> Policy:
    """A policy of the class given, or of that in POLICY_CLASSES: GibbsPolicy for finite actions, GaussianPolicy for continuous ones.

    obs_space, action_space: a ContinuousSpace or a FiniteSpace, or Gymnasium's Box (1-D) or Discrete (from 0).
    rng (numpy RandomState) draws the hidden weights; without it all weights are 0, to be loaded. bounds_2_Da: see Policy.
    Raises UserError for anything else.
    """
    obs_space, action_space = as_space(obs_space, 'obs_space'), as_space(action_space, 'action_space')
    if not isinstance(obs_space, ContinuousSpace):
        raise UserError(f'obs_space is {obs_space}; expected a ContinuousSpace, or a Box of Gymnasium with one axis')
    if rng is not None and not isinstance(rng, np.random.RandomState | np.random.Generator):
        raise UserError(f'rng is {kind_of(rng)}; expected a numpy.random.RandomState, or None for weights of 0')
    if not (dtype := DTYPES.get(str(dtype).removeprefix('torch.'), torch.int64)).is_floating_point:
        raise UserError(f'dtype is none of those for nets; expected {" or ".join(map(repr, DTYPES))}')
    device, enable_obsnorm = as_device(device, 'device='), as_flag(enable_obsnorm, 'enable_obsnorm')
    name = f'POLICY_CLASSES[{type(action_space).__name__}]' if policy_class is None else 'policy_class'
    chosen: Any = POLICY_CLASSES[type(action_space)] if policy_class is None else policy_class
    if not isinstance(chosen, type) or not issubclass(chosen, Policy):
        raise UserError(f'{name} is {kind_of(chosen)}; expected a class that is derived from Policy')
    nets = NetConfig(rng, dtype, device)
    if bounds_2_Da is not None:
        bounds_2_Da = as_bounds(bounds_2_Da, action_space)
    policy = chosen(obs_space, action_space, hidden_spec, enable_obsnorm=enable_obsnorm, nets=nets, bounds_2_Da=bounds_2_Da)
    return policy.checked()


def as_bounds(bounds: Any, action_space: Space) -> np.ndarray:
    """The box of continuous actions as (lowest, highest), or UserError."""
    bounds_2_Da, wanted = as_numbers(bounds, 'bounds_2_Da'), (2, action_space.storage_size)
    if isinstance(action_space, FiniteSpace):
        raise UserError('bounds_2_Da is given, but actions are finite; leave it out')
    if bounds_2_Da.shape != wanted or (bounds_2_Da[0] > bounds_2_Da[1]).any():
        seen = f'has shape {bounds_2_Da.shape}' if bounds_2_Da.shape != wanted else 'has lowest numbers above the highest'
        raise UserError(f'bounds_2_Da {seen}; expected the lowest numbers, then the highest, of shape {wanted}')
    return bounds_2_Da


def as_space(space: Any, name: str) -> Space:
    """A space of ours, from one of ours or of Gymnasium's; raises UserError, which calls it `name`, for anything else."""
    if isinstance(space, ContinuousSpace | FiniteSpace):
        as_integer(space.dim if isinstance(space, ContinuousSpace) else space.size, f'the size of {name}', 1)
        return space
    shape = getattr(space, 'shape', None)
    if hasattr(space, 'low') and isinstance(shape, tuple) and len(shape) == 1 and shape[0]:
        return ContinuousSpace(int(shape[0]))
    if hasattr(space, 'n') and getattr(space, 'start', None) == 0:
        return FiniteSpace(int(space.n))
    text = ' '.join(str(space).split())[:80]
    raise UserError(f'{name} is {text}; expected a ContinuousSpace or FiniteSpace, or a Box (one axis) or Discrete (from 0) of Gymnasium')


def policy_from_snapshot(snapshot: Snapshot, mdp: MDP | None = None) -> Policy:
    """Build the policy of a snapshot from its stored options and set its variables; the one place where this is done.

    mdp: the task that it is for; without one the spaces are inferred from the variables. Raises UserError when the snapshot
    does not fit the task (observation or action dims, kind of action space), or holds no policy.
    """
    spec, obsnorm = snapshot_options(snapshot)
    where = f'{snapshot.file}: {snapshot.path}' + (f" (for env '{mdp.env_name}')" if mdp else '')
    policy_class = class_of(snapshot.variables, where)
    if mdp and not isinstance(mdp.action_space, policy_class.actions):
        needed = POLICY_CLASSES[type(mdp.action_space)].__name__
        raise UserError(f'{where}: holds {held(snapshot.variables)}, but the task needs a {needed}; is it the right env?')
    spaces = (mdp.obs_space, mdp.action_space) if mdp else spaces_of(policy_class, snapshot.variables, where)
    bounds_2_Da = snapshot.variables.get(f'/{policy_class.__name__}/bounds_2_Da')
    try:
        policy = make_policy(*spaces, spec, obsnorm, bounds_2_Da=bounds_2_Da, policy_class=policy_class)
    except UserError as e:
        raise UserError(f'{where}: {e}') from e
    policy.load(snapshot.variables, where)
    return policy


def held(variables: Iterable[str]) -> str:
    """The classes that variables are named after, in words."""
    return ', '.join(sorted({name.split('/')[1] for name in variables})) or 'nothing'


def class_of(variables: Iterable[str], where: str) -> type[Policy]:
    """The policy class that variables are named after; raises UserError where no such class has been imported."""
    known = {cls.__name__: cls for cls in Policy.__subclasses__()}
    names = [name for name in known if any(variable.startswith(f'/{name}/') for variable in variables)]
    if not names:
        raise UserError(
            f'{where}: holds {held(variables)}, and no policy of a known class ({", ".join(known)}); '
            'import the module that defines the class before the file is read'
        )
    return known[names[0]]


def spaces_of(policy_class: type[Policy], variables: Mapping[str, np.ndarray], where: str) -> tuple[ContinuousSpace, Space]:
    """(observation space, action space) that a policy's variables are for: the inputs of its first weights, the outputs of its last."""
    scope = f'/{policy_class.__name__}'
    weights = [np.shape(variables[name]) for name in sorted(variables, key=_layer) if re.fullmatch(f'{scope}/.*/AffineLayer/W', name)]
    if not weights or any(len(shape) != 2 for shape in weights) or f'{scope}/out/AffineLayer/W' not in variables:
        raise UserError(f'{where}: lacks weights of a {policy_class.__name__}; the file is damaged or of another kind')
    num_in, num_out = weights[0][0], weights[-1][1]
    return ContinuousSpace(num_in), policy_class.actions(num_out // policy_class.outputs_per_action)


def _layer(name: str) -> float:
    """Where a variable stands in its net: the number of its hidden layer; the output comes last."""
    found = re.search(r'/layer_(\d+)/', name)
    return int(found[1]) if found else math.inf


def snapshot_options(snapshot: Snapshot) -> tuple[str, bool]:
    """(hidden spec, whether observations are normalised) from the options stored with a snapshot, of ours or of 2016."""
    args = snapshot.args
    if not args.get('policy_hidden_spec'):
        raise UserError(f"{snapshot.file}: its stored args lack 'policy_hidden_spec'; is it a training log?")
    enable = args['obsnorm_mode'] != 'none' if 'obsnorm_mode' in args else bool(args.get('enable_obsnorm', 1))
    return args['policy_hidden_spec'], enable
