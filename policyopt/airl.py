"""Adversarial inverse reinforcement learning: a reward function that may outlive the dynamics that it was learned under.

Letters: B policy rows, Bex expert rows, Ball both, Do, Da observation and action dims, Di net inputs, K net outputs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from policyopt.interfaces import Fields
from policyopt.nn import FeedforwardNet, net_shapes, parse_spec
from policyopt.options import ImitationOptions
from policyopt.rewards import ClassifierReward, ClassifierRows, at_chosen_outputs, chosen_outputs
from policyopt.torchutil import NetConfig, to_tensor
from policyopt.trajectories import Batch, ContinuousSpace, Expert, FiniteSpace, Space

if TYPE_CHECKING:
    from policyopt.sampling.mdp import MDP


class AIRLRows(NamedTuple):
    """Rows ready for the nets: inputs of g and which output is meant, inputs of h, where among these s′ is, γ or 0, log π.

    The inputs of h are the states, then what follows those whose successor is not the next row.
    """

    pairs: torch.Tensor
    index: torch.Tensor | None
    states: torch.Tensor
    next_B: torch.Tensor
    gamma_B: torch.Tensor
    logp_B: torch.Tensor


class AIRLReward(ClassifierReward):
    """AIRL's discriminator D = exp f/(exp f + π(a|s)), whose logit is f − log π(a|s) (Fu, Luo & Levine 2018, eq. 4 and section 6).

    f(s, a, s′) = g(s, a) + γ h(s′) − h(s), with h(s′) = 0 where s′ is terminal: g is the reward, h shapes it. Finite actions: g is
    a net from the standardised observation to one number per action; continuous: from standardised [obs, action]; state_only: from
    the observation. h is a net of the same size on the observation. --reward_include_time appends time·time_scale to the inputs of both.

    The policy is paid log D − log(1 − D) = f − log π(a|s), as in the paper's Algorithm 1. Its mean over the policy's own pairs tends
    to −KL, so where episodes can end, ending is what pays. With a horizon, terminal states therefore last to it for classifier and
    policy alike (Kostrikov et al. 2019, section 4.2), and the last step is paid c·(γ + γ² + …) more. c is the best logit of such a
    step, the log of its frequency among the expert's steps over that among the policy's, over all batches so far and with one
    step added to each. Nothing is different where episodes end by a time limit only.
    Differs from the paper: the order of the updates (policy first) and the full-batch classifier steps are those of `ga`.
    """

    uses_transitions = True

    def __init__(
        self,
        options: ImitationOptions,
        obs_space: ContinuousSpace,
        action_space: Space,
        time_scale: float = 1.0,
        nets: NetConfig = NetConfig(),
        *,
        horizon: int | None = None,
        ended: tuple[float, float] = (0.0, 0.0),
    ):
        """horizon: steps of an episode that does not end; None: nothing follows a terminal state. ended: see trajectories.Expert."""
        self.horizon, self.gamma = horizon, options.discount
        state_only, times = options.airl_state_only, options.reward_include_time
        self.by_action = isinstance(action_space, FiniteSpace) and not state_only
        a_dim = 0 if isinstance(action_space, FiniteSpace) or state_only else action_space.dim
        num_outputs = action_space.size if isinstance(action_space, FiniteSpace) and not state_only else 1
        spec = parse_spec(options.reward_hidden_spec or options.policy_hidden_spec)
        g_shapes = net_shapes('/AIRLReward/g', spec, obs_space.dim + times + a_dim, num_outputs)
        h_shapes = net_shapes('/AIRLReward/h', spec, obs_space.dim + times, 1)
        norm_dims = {'/AIRLReward/obsnorm': obs_space.dim} | ({'/AIRLReward/anorm': a_dim} if a_dim else {})
        super().__init__(options, g_shapes | h_shapes, time_scale, nets, norm_dims)
        num_g = sum(math.prod(s) for s in g_shapes.values())
        self.g = FeedforwardNet(spec, self.theta_P[:num_g], g_shapes.values())
        self.h = FeedforwardNet(spec, self.theta_P[num_g:], h_shapes.values())
        # (steps in terminal states, all steps) of the policy so far, and of the expert
        self.ended_4 = torch.tensor([0.0, 0.0, *ended], dtype=torch.float64)
        self.obsnorm, self.anorm = self.normalizers['/AIRLReward/obsnorm'], self.normalizers.get('/AIRLReward/anorm')
        self.g.init(nets.rng)
        self.h.init(nets.rng)

    @property
    def variables(self) -> dict[str, torch.Tensor]:
        return super().variables | {'/AIRLReward/ended_4': self.ended_4}

    @classmethod
    def from_options(cls, args: ImitationOptions, mdp: MDP, expert: Expert, time_scale: float, nets: NetConfig) -> AIRLReward:
        horizon = mdp.horizon(args.max_traj_len) if args.airl_absorbing else None
        return cls(args, mdp.obs_space, mdp.action_space, time_scale, nets, horizon=horizon, ended=expert.ended)

    def update_inputnorm(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray, weight_B: torch.Tensor | None = None) -> None:
        self.update_obsnorm(obs_B_Do, weight_B)
        if self.anorm is not None:
            self.anorm.update(to_tensor(a_B_Da, self.anorm.mean_1_D), weight_B)

    def _states(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> torch.Tensor:
        """What h sees, (B, Di)."""
        return self._with_time(self.normalized_obs(obs_B_Do), t_B)

    def _pairs(self, x_B_Di: torch.Tensor, a_B_Da: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(what g sees, which of its outputs (B, 1) is meant or None), from what h sees."""
        if self.anorm is not None:
            x_B_Di = torch.cat([x_B_Di, self.anorm.standardize(to_tensor(a_B_Da, self.anorm.mean_1_D))], dim=1)
        return x_B_Di, self._index(a_B_Da)

    def learned_reward(self, obs_B_Do: np.ndarray, a_B_Da: np.ndarray, t_B: np.ndarray, terminal_B: np.ndarray | None = None) -> np.ndarray:
        """g of pairs (B,), the reward without its shaping, plus the rewards in a terminal state that follows."""
        x_B_Di, index_B_1 = self._pairs(self._states(obs_B_Do, t_B), a_B_Da)
        g_B = chosen_outputs(self.g.forward(x_B_Di), index_B_1)
        return self._with_ends(g_B, t_B, np.zeros(len(t_B), bool) if terminal_B is None else terminal_B)

    def shaping(self, obs_B_Do: np.ndarray, t_B: np.ndarray) -> np.ndarray:
        """h of states (B,)."""
        return self.h.forward(self._states(obs_B_Do, t_B))[:, 0].cpu().numpy()

    def compute_logits(self, batch: Batch) -> torch.Tensor:
        """f − log π (B,) as a tensor."""
        return self._logits(self.rows(batch))

    def rows(self, batch: Batch) -> AIRLRows:
        """Normalised once, for any number of passes."""
        obs_B_Do, a_B_Da, t_B, transitions = batch
        assert transitions is not None  # see uses_transitions
        x_B_Di, nextobs_B_Do = self._states(obs_B_Do, t_B), transitions.nextobs_B_Do
        after_B, follows_B = np.asarray(t_B) + 1, np.zeros(len(t_B), bool)
        follows_B[:-1] = (after_B[:-1] == t_B[1:]) & (nextobs_B_Do[:-1] == obs_B_Do[1:]).all(axis=1)
        others = self._states(nextobs_B_Do[~follows_B], after_B[~follows_B])
        next_B = np.arange(1, len(t_B) + 1)
        next_B[~follows_B] = len(t_B) + np.arange(len(others))
        gamma_B, logp_B = (to_tensor(x, self.theta_P) for x in (self.gamma * ~np.asarray(transitions.terminal_B), transitions.logp_B))
        next_B = torch.as_tensor(next_B, device=self.theta_P.device)
        return AIRLRows(*self._pairs(x_B_Di, a_B_Da), torch.cat([x_B_Di, others]), next_B, gamma_B, logp_B)

    def _logits(self, rows: AIRLRows) -> torch.Tensor:
        h = self.h.forward(rows.states)[:, 0]
        return chosen_outputs(self.g.forward(rows.pairs), rows.index) + rows.gamma_B * h[rows.next_B] - h[: len(rows.next_B)] - rows.logp_B

    def steps_after(self, t_B: np.ndarray, terminal_B: np.ndarray) -> np.ndarray:
        """How many steps an episode spends in the terminal state that a pair leads to, (B,)."""
        return np.zeros(len(t_B)) if self.horizon is None else np.where(terminal_B, np.maximum(self.horizon - 1 - np.asarray(t_B), 0), 0)

    def compute_reward(self, batch: Batch) -> np.ndarray:
        """Imitation rewards (B,): f − log π, plus the rewards in a terminal state that follows."""
        assert batch.transitions is not None  # see uses_transitions
        return self._with_ends(self.compute_logits(batch), batch.t_B, batch.transitions.terminal_B)

    def _with_ends(self, r_B: torch.Tensor, t_B: np.ndarray, terminal_B: np.ndarray) -> np.ndarray:
        after_B, (of_pi, pi, of_ex, ex) = self.steps_after(t_B, terminal_B), self.ended_4.tolist()
        c = math.log((of_ex + 1) / (ex + 1) * (pi + 1) / (of_pi + 1))
        discounted_B = after_B if self.gamma == 1 else self.gamma * (1 - self.gamma**after_B) / (1 - self.gamma)
        return r_B.cpu().numpy() + c * discounted_B

    def loss_gradient(
        self, rows: AIRLRows, labels_expert_is_one_Ball: torch.Tensor, weight_Ball: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """(loss of the logits, gradient)."""
        logits_Ball = self._logits(rows)
        d_Ball = weight_Ball * self._derivative(logits_Ball, labels_expert_is_one_Ball)
        dh = torch.zeros(len(rows.states), dtype=d_Ball.dtype, device=d_Ball.device)
        dh[: len(d_Ball)] = -d_Ball
        dh[rows.next_B] += rows.gamma_B * d_Ball  # a state follows one row at most

        def dg(out, block):
            return at_chosen_outputs(d_Ball[block], None if rows.index is None else rows.index[block], out.shape[1])

        grads = (
            self.g.forward_backward(rows.pairs, dg)[1],
            self.h.forward_backward(rows.states, lambda out, block: dh[block, None].clone())[1],
        )
        return self._loss(logits_Ball, labels_expert_is_one_Ball, weight_Ball), torch.cat(grads)

    def fit(self, batch: Batch, expert: Batch, excount_Bex: np.ndarray | None = None) -> tuple[Fields, np.ndarray]:
        """Normaliser update with all rows, then --reward_steps Adam steps on the full batch, as TransitionClassifier.fit.

        Returns (log fields rloss, racc, raccpi, raccex, rkl, rbt; rewards of the policy rows under the new f).
        """
        assert batch.transitions is not None  # see uses_transitions
        both, all_pairs = ClassifierRows(len(batch.t_B), len(expert.t_B), excount_Bex, self.theta_P), batch.followed_by(expert)
        self.update_inputnorm(all_pairs.obs_B_Do, all_pairs.a_B_Da, both.count_Ball)
        rows = self.rows(all_pairs)
        weight_Ball = both.weight_Ball.clone()
        if self.horizon is not None:  # a step of the ones that the nets see is one among those in terminal states too
            after = self.steps_after(batch.t_B, batch.transitions.terminal_B).sum()
            self.ended_4[:2] += torch.tensor([after, both.num_pi + after])
            of_ex, ex = self.ended_4[2:].tolist()
            weight_Ball[: both.num_pi] *= both.num_pi / (both.num_pi + after)
            weight_Ball[both.num_pi :] *= 1 - of_ex / max(ex, 1)
        for _ in range(self.options.reward_steps):
            loss, grad_P = self.loss_gradient(rows, both.labels_expert_is_one_Ball, weight_Ball)
            self.adam.step(grad_P)
        logits_Ball = self._logits(rows)
        r_B = self._with_ends(logits_Ball[: both.num_pi], batch.t_B, batch.transitions.terminal_B)
        return both.log_fields(loss, logits_Ball), r_B
