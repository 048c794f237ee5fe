"""Reward functions learned from expert pairs: GAIL's discriminator, and the linear rewards that it is compared with.

Letters: B policy rows, Bex expert rows, Ball both, Do, Da observation and action dims, Di net inputs, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from policyopt.errors import UserError
from policyopt.interfaces import Fields
from policyopt.nn import FeedforwardNet, Model, net_shapes, parse_spec
from policyopt.optim import Adam
from policyopt.options import ImitationOptions
from policyopt.torchutil import NetConfig, to_tensor
from policyopt.trajectories import Batch, ContinuousSpace, Expert, FiniteSpace, Space

if TYPE_CHECKING:
    from policyopt.sampling.mdp import MDP


def chosen_outputs(out_B_K: torch.Tensor, a_B_1: torch.Tensor | None) -> torch.Tensor:
    """The outputs (B,) of the actions that were taken, or the only ones."""
    return out_B_K[:, 0] if a_B_1 is None else out_B_K.gather(1, a_B_1)[:, 0]


def at_chosen_outputs(x_B: torch.Tensor, a_B_1: torch.Tensor | None, num_outputs: int) -> torch.Tensor:
    """(B, K) of which `chosen_outputs` are x and all others 0."""
    return x_B[:, None].clone() if a_B_1 is None else x_B.new_zeros((len(x_B), num_outputs)).scatter_(1, a_B_1, x_B[:, None])


class ClassifierRows:
    """Policy rows and then expert rows, for a classifier: how often each counts, its label (1: expert) and its weight in the loss."""

    def __init__(self, num_pi: int, num_ex: int, excount_Bex: np.ndarray | None, like: torch.Tensor):
        """excount_Bex: how often each expert row was drawn (default: once). A row that was drawn twice has twice the weight."""
        self.num_pi = num_pi
        self.count_Bex = torch.ones(num_ex, dtype=like.dtype, device=like.device) if excount_Bex is None else to_tensor(excount_Bex, like)
        ones_B = torch.ones(num_pi, dtype=like.dtype, device=like.device)
        self.count_Ball = torch.cat([ones_B, self.count_Bex])
        self.labels_expert_is_one_Ball = torch.cat([torch.zeros_like(ones_B), torch.ones_like(self.count_Bex)])
        self.weight_Ball = self.count_Ball / torch.where(self.labels_expert_is_one_Ball > 0, self.count_Bex.sum(), float(num_pi))

    def log_fields(self, loss: float, scores_Ball: torch.Tensor) -> Fields:
        """What a classifier logs: its loss before its last step, and how many rows its scores put on the right side after it."""
        raccpi = float((scores_Ball[: self.num_pi] <= 0).to(self.count_Bex.dtype).mean())
        raccex = float(((scores_Ball[self.num_pi :] > 0) * self.count_Bex).sum() / self.count_Bex.sum())
        return [
            ('rloss', loss, float),
            ('racc', (raccpi + raccex) / 2, float),
            ('raccpi', raccpi, float),
            ('raccex', raccex, float),
            ('rkl', None, float),
            ('rbt', 0, int),
        ]


class ClassifierReward(Model):
    """Base class of rewards that are classifiers trained by Adam. Everything that they learn is in their variables.

    options: those named reward_… and favor_zero_expert_reward; the default of reward_hidden_spec is policy_hidden_spec.
    by_action: whether the net that scores pairs has one output per action.
    """

    by_action: bool

    def __init__(
        self,
        options: ImitationOptions,
        shapes: dict[str, tuple[int, ...]],
        time_scale: float,
        nets: NetConfig,
        norm_dims: dict[str, int],
    ):
        super().__init__(shapes, nets, norm_dims)
        self.options, self.time_scale, self.rng = options, time_scale, nets.rng
        self.adam = Adam(self.theta_P, options.reward_lr)

    def _with_time(self, x_B_D: torch.Tensor, t_B: np.ndarray) -> torch.Tensor:
        """Inputs of a net, to which --reward_include_time appends time·time_scale."""
        if not self.options.reward_include_time:
            return x_B_D
        return torch.cat([x_B_D, to_tensor(t_B, self.theta_P)[:, None] * self.time_scale], dim=1)

    def _index(self, a_B_Da: np.ndarray) -> torch.Tensor | None:
        """Which outputs (B, 1) are meant, or None where there is one."""
        return torch.as_tensor(np.asarray(a_B_Da), dtype=torch.int64, device=self.theta_P.device) if self.by_action else None

    def _loss(self, scores_B: torch.Tensor, labels_expert_is_one_B: torch.Tensor, weight_B: torch.Tensor) -> float:
        """Σ weight·(cross-entropy − reward_ent_reg_weight·Bernoulli entropy) of scores."""
        p, softplus = torch.sigmoid(scores_B), torch.nn.functional.softplus(scores_B, threshold=50)
        cross_entropy, entropy = softplus - labels_expert_is_one_B * scores_B, softplus - p * scores_B
        return float((weight_B * (cross_entropy - self.options.reward_ent_reg_weight * entropy)).sum())

    def _derivative(self, scores_B: torch.Tensor, labels_expert_is_one_B: torch.Tensor) -> torch.Tensor:
        """d/ds of the loss, each row for itself and without its weight."""
        p = torch.sigmoid(scores_B)
        # H = softplus(s) − s·p, so dH/ds = −s·p·(1 − p)
        return p - labels_expert_is_one_B + self.options.reward_ent_reg_weight * scores_B * p * (1 - p)

    def learned(self) -> dict[str, np.ndarray]:
        return self.export()

    def load_learned(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        self.load(arrays, where)

    def state(self) -> dict[str, np.ndarray]:
        return {f'/adam/{k}': v for k, v in self.adam.state().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.adam.load_state({k: state[f'/adam/{k}'] for k in ('m_P', 'v_P', 't')})


class TransitionClassifier(ClassifierReward):
    """GAIL's discriminator: a net that scores observation-action pairs, score > 0 = expert-like (Ho & Ermon 2016, eq. 17).

    Finite actions: a net from the standardised observation to one score per action. Continuous: from standardised [obs, action]
    to one score. --reward_include_time appends time·time_scale. Reward: log σ(s) ≤ 0 with favor_zero_expert_reward (episodes that end on
    success), else −log(1 − σ(s)) ≥ 0 (episodes that end on failure), in the stable forms −softplus(−s) and softplus(s).
    """

    def __init__(
        self,
        options: ImitationOptions,
        obs_space: ContinuousSpace,
        action_space: Space,
        time_scale: float = 1.0,
        nets: NetConfig = NetConfig(),
    ):
        self.by_action = isinstance(action_space, FiniteSpace)
        norm_dim = obs_space.dim + (0 if isinstance(action_space, FiniteSpace) else action_space.dim)
        num_scores = action_space.size if isinstance(action_space, FiniteSpace) else 1
        spec = parse_spec(options.reward_hidden_spec or options.policy_hidden_spec)
        shapes = net_shapes('/TransitionClassifier', spec, norm_dim + options.reward_include_time, num_scores)
        super().__init__(options, shapes, time_scale, nets, {'/TransitionClassifier/inputnorm': norm_dim})
        self.net = FeedforwardNet(spec, self.theta_P, shapes.values())
        self.inputnorm = self.normalizers['/TransitionClassifier/inputnorm']
        self.net.init(nets.rng)

    @classmethod
    def from_options(cls, args: ImitationOptions, mdp: MDP, expert: Expert, time_scale: float, nets: NetConfig) -> TransitionClassifier:
        return cls(args, mdp.obs_space, mdp.action_space, time_scale, nets)

    def _norm_inputs(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray) -> torch.Tensor:
        obs = to_tensor(obs_B_Do, self.inputnorm.mean_1_D)
        return obs if self.by_action else torch.cat([obs, to_tensor(a_B_Da, obs)], dim=1)

    def update_inputnorm(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray) -> None:
        self.inputnorm.update(self._norm_inputs(obs_B_Do, a_B_Da))

    def _inputs(self, raw_B_D: torch.Tensor, t_B: np.ndarray) -> torch.Tensor:
        return self._with_time(self.inputnorm.standardize(raw_B_D), t_B)

    def compute_scores(self, batch: Batch) -> torch.Tensor:
        """Scores (B,) as a tensor."""
        out = self.net.forward(self._inputs(self._norm_inputs(batch.obs_B_Do, batch.a_B_Da), batch.t_B))
        return chosen_outputs(out, self._index(batch.a_B_Da))

    def reward_of_scores(self, scores_B: torch.Tensor) -> np.ndarray:
        """Rewards of scores, a numpy array (B,)."""
        softplus = torch.nn.functional.softplus
        # torch's softplus turns linear above its threshold; 50 is beyond float64's resolution of the difference
        r_B = -softplus(-scores_B, threshold=50) if self.options.favor_zero_expert_reward else softplus(scores_B, threshold=50)
        return r_B.cpu().numpy()

    def compute_reward(self, batch: Batch) -> np.ndarray:
        return self.reward_of_scores(self.compute_scores(batch))

    def learned_reward(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray, t_B: np.ndarray, terminal_B: np.ndarray | None = None) -> np.ndarray:
        return self.compute_reward(Batch(obs_B_Do, a_B_Da, t_B))

    def loss_gradient(
        self, x_Ball_Di: torch.Tensor, index_Ball: torch.Tensor | None, labels_expert_is_one_Ball: torch.Tensor, weight_Ball: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """(loss, gradient)."""
        scores_Ball = torch.empty_like(weight_Ball)

        def dout(out, rows):
            index = None if index_Ball is None else index_Ball[rows]
            s = scores_Ball[rows] = chosen_outputs(out, index)
            ds = weight_Ball[rows] * self._derivative(s, labels_expert_is_one_Ball[rows])
            return at_chosen_outputs(ds, index, out.shape[1])

        _, grad_P = self.net.forward_backward(x_Ball_Di, dout)
        return self._loss(scores_Ball, labels_expert_is_one_Ball, weight_Ball), grad_P

    def penalty_gradient(self, x_Ball_Di: torch.Tensor, index_Ball: torch.Tensor | None, both: ClassifierRows) -> torch.Tensor:
        """∇ of the mean of (‖∂s/∂x‖ − 1)², each x between a policy row and a drawn expert row (Gulrajani et al. 2017, eq. 3).

        x is standardised. With finite actions, s is the score of the action in the policy's row.
        """
        assert self.rng is not None
        x_B_Di, ex_Bex_Di = x_Ball_Di[: both.num_pi], x_Ball_Di[both.num_pi :]
        count_Bex = both.count_Bex.cpu().numpy().astype(np.float64)
        rows_B = self.rng.choice(len(count_Bex), size=both.num_pi, p=count_Bex / count_Bex.sum())
        share_B_1 = to_tensor(self.rng.uniform(size=(both.num_pi, 1)), x_B_Di)
        mix_B_Di = torch.lerp(ex_Bex_Di[torch.as_tensor(rows_B, device=x_B_Di.device)], x_B_Di, share_B_1)
        index_B = None if index_Ball is None else index_Ball[: both.num_pi]
        if self.net.is_piecewise_linear:  # two to three times as fast as torch.func, with the same bits
            dout_B_K = at_chosen_outputs(mix_B_Di.new_ones(both.num_pi), index_B, self.net.shapes[-1][1])
            derivative_B_Di, gradient = self.net.input_gradient(mix_B_Di, dout_B_K)
            norm_B_1 = derivative_B_Di.norm(dim=1, keepdim=True)
            return gradient((norm_B_1 - 1) * (2 / both.num_pi) * (derivative_B_Di / norm_B_1).masked_fill_(norm_B_1 == 0, 0.0))

        def penalty(net_P):
            def score(x_B_Di):
                return chosen_outputs(self.net.functional(net_P, x_B_Di), index_B).sum()

            return ((torch.func.grad(score)(mix_B_Di).norm(dim=1) - 1) ** 2).mean()

        return torch.func.grad(penalty)(self.theta_P)

    def fit(self, batch: Batch, expert: Batch, excount_Bex: np.ndarray | None = None) -> tuple[Fields, np.ndarray]:
        """Normaliser update with all rows, then --reward_steps Adam steps on the full batch.

        excount_Bex says how often each expert row was drawn (default once each).
        Returns (log fields rloss, racc, raccpi, raccex, rkl, rbt; rewards of the policy rows under the new classifier).
        """
        both, all_pairs = ClassifierRows(len(batch.t_B), len(expert.t_B), excount_Bex, self.theta_P), batch.followed_by(expert)
        raw = self._norm_inputs(all_pairs.obs_B_Do, all_pairs.a_B_Da)
        self.inputnorm.update(raw, both.count_Ball)
        x_Ball_Di, index_Ball = self._inputs(raw, all_pairs.t_B), self._index(all_pairs.a_B_Da)
        for _ in range(self.options.reward_steps):
            loss, grad_P = self.loss_gradient(x_Ball_Di, index_Ball, both.labels_expert_is_one_Ball, both.weight_Ball)
            if self.options.reward_grad_penalty:
                grad_P.add_(self.penalty_gradient(x_Ball_Di, index_Ball, both), alpha=self.options.reward_grad_penalty)
            self.adam.step(grad_P)
        scores_Ball = chosen_outputs(self.net.forward(x_Ball_Di), index_Ball)
        return both.log_fields(loss, scores_Ball), self.reward_of_scores(scores_Ball[: both.num_pi])


class LinearReward(Model):
    """Rewards linear in fixed features, in numpy: 'l2ball' is feature-expectation matching (Abbeel & Ng 2004), 'simplex' the
    game-theoretic variant (Syed et al. 2008).

    Continuous actions: [z, a, (.01 z)², (.01 a)², τ, τ², τ³ (with --reward_include_time), 1] on standardised obs z and action a; with
    quadratic_features [z, a (, τ)], its flattened outer product, 1. Finite: the block [z, (.01 z)², times] stands in the place of
    the taken action, zeros elsewhere, then 1. simplex appends the negated features. τ = time·time_scale.

    Subtracting a bound makes all rewards ≤ 0 with favor_zero_expert_reward (a maximum), else ≥ 0 (a minimum). --reward_shift
    chooses it: 'running' takes it over 0 and all rewards so far, as in 2016; 'batch' over the batch; 'none' subtracts nothing.
    """

    def __init__(
        self,
        options: ImitationOptions,
        obs_space: ContinuousSpace,
        action_space: Space,
        time_scale: float,
        expert: Expert,
        rng: np.random.RandomState,
        *,
        quadratic_features: bool = False,
        sqscale: float = 0.01,
    ):
        self.options, self.action_space, self.time_scale = options, action_space, time_scale
        self.finite, self.simplex = isinstance(action_space, FiniteSpace), options.reward_type == 'simplex'
        self.quadratic_features, self.sqscale = quadratic_features, sqscale
        norm_dim = obs_space.dim + (0 if isinstance(action_space, FiniteSpace) else action_space.dim)
        super().__init__({}, NetConfig(), {'/LinearReward/inputnorm': norm_dim})
        self.inputnorm = self.normalizers['/LinearReward/inputnorm']
        self.update_inputnorm(expert.obs_N_Do, expert.a_N_Da)
        self.expert_mean_F = self.features(expert.pairs).mean(axis=0)
        num_features = len(self.expert_mean_F)
        if self.simplex:
            self.w: Any = int(rng.randint(num_features))
        else:
            w = rng.randn(num_features)
            self.w = w / (np.linalg.norm(w) + 1e-8)
        self.reward_bound = 0.0
        self.bound_moves = True  # False once the reward is loaded from a finished run

    @classmethod
    def from_options(cls, args: ImitationOptions, mdp: MDP, expert: Expert, time_scale: float, nets: NetConfig) -> LinearReward:
        assert nets.rng is not None
        return cls(args, mdp.obs_space, mdp.action_space, time_scale, expert=expert, rng=nets.rng)

    def _norm_inputs(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(obs_B_Do if self.finite else np.concatenate([obs_B_Do, a_B_Da], axis=1), dtype=torch.float64)

    def update_inputnorm(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray) -> None:
        self.inputnorm.update(self._norm_inputs(obs_B_Do, a_B_Da))

    def features(self, batch: Batch) -> np.ndarray:
        """(B, F)."""
        obs_B_Do, a_B_Da, t_B, _ = batch
        x_B_D = self.inputnorm.standardize(self._norm_inputs(obs_B_Do, a_B_Da)).numpy()
        tau_B_1 = np.asarray(t_B)[:, None] * self.time_scale
        times = [tau_B_1, tau_B_1**2, tau_B_1**3] if self.options.reward_include_time else []
        ones_B_1 = np.ones_like(tau_B_1)
        if self.quadratic_features and not self.finite:
            f = np.concatenate([x_B_D, *times[:1]], axis=1)
            feats = [f, (f[:, :, None] * f[:, None, :]).reshape(len(f), -1), ones_B_1]
        elif isinstance(self.action_space, FiniteSpace):
            block = np.concatenate([x_B_D, (self.sqscale * x_B_D) ** 2, *times], axis=1)
            placed = np.zeros((len(block), self.action_space.size, block.shape[1]))
            placed[np.arange(len(block)), np.asarray(a_B_Da)[:, 0]] = block
            feats = [placed.reshape(len(block), -1), ones_B_1]
        else:
            feats = [x_B_D, (self.sqscale * x_B_D) ** 2, *times, ones_B_1]
        feats_B_F = np.concatenate(feats, axis=1)
        return np.concatenate([feats_B_F, -feats_B_F], axis=1) if self.simplex else feats_B_F

    def reward_of_features(self, feats_B_F: np.ndarray) -> np.ndarray:
        """(Picked feature or feature·w) / F, minus the bound, which is first updated with these rewards."""
        r_B = (feats_B_F[:, self.w] if self.simplex else feats_B_F @ self.w) / feats_B_F.shape[1]
        shift = self.options.reward_shift
        if self.bound_moves and shift != 'none':
            extreme, batch_bound = (max, r_B.max()) if self.options.favor_zero_expert_reward else (min, r_B.min())
            self.reward_bound = float(batch_bound) if shift == 'batch' else extreme(self.reward_bound, batch_bound)
        return r_B - self.reward_bound

    def compute_reward(self, batch: Batch) -> np.ndarray:
        """Imitation rewards (B,): ≤ 0 with favor_zero_expert_reward, else ≥ 0. With --reward_shift none, of both signs."""
        return self.reward_of_features(self.features(batch))

    def learned_reward(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray, t_B: np.ndarray, terminal_B: np.ndarray | None = None) -> np.ndarray:
        return self.compute_reward(Batch(obs_B_Do, a_B_Da, t_B))

    def fit(self, batch: Batch, expert: Batch | None = None, excount_Bex: np.ndarray | None = None) -> tuple[Fields, np.ndarray]:
        """Compare the batch's feature mean μ with the expert's μ_E: w = (μ_E − μ)/(‖·‖ + 1e-8), or the feature argmin(μ − μ_E).

        Expert rows are not used again: μ_E is fixed. Returns (log fields l2 or vmin, rewards of the rows under the new w).
        """
        feats_B_F = self.features(batch)
        gap_F = feats_B_F.mean(axis=0) - self.expert_mean_F
        if self.simplex:
            self.w = int(gap_F.argmin())
            fields = [('vmin', gap_F.min(), float)]
        else:
            norm = np.linalg.norm(gap_F)
            self.w = -gap_F / (norm + 1e-8)
            fields = [('l2', norm, float)]
        return fields, self.reward_of_features(feats_B_F)

    def further_fields(self) -> Fields:
        return [('reward_bound', self.reward_bound, float)]

    def state(self) -> dict[str, np.ndarray]:
        return {'/w': np.array(self.w), '/reward_bound': np.array(self.reward_bound), '/expert_mean_F': self.expert_mean_F}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.w = int(state['/w']) if self.simplex else np.array(state['/w'])
        self.reward_bound, self.expert_mean_F = float(state['/reward_bound']), np.array(state['/expert_mean_F'])

    def learned(self) -> dict[str, np.ndarray]:
        return self.export() | {f'/LinearReward{k}': v for k, v in self.state().items()}

    def load_learned(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        for name, own in self.learned().items():
            if name not in arrays or arrays[name].shape != own.shape:
                seen = f'has shape {arrays[name].shape}' if name in arrays else 'is missing'
                raise UserError(f'{where}: {name} {seen}, but the task asks for shape {own.shape}')
        self.load(arrays, where)
        self.load_state({k: arrays[f'/LinearReward{k}'] for k in self.state()})
        self.bound_moves = False
