"""Policies in numpy alone, to step environments with: light enough for worker processes that never load torch.

Letters: B rows, K alternatives, Do observation dim, Da action storage dim, Dn noise dim, Pa distribution parameters.
"""

import numpy as np

ACTOR_ROWS = 16  # an actor works in blocks of this many rows, so that a row's result does not depend on its neighbours


def sample_categorical(p_B_K, u_B):
    """Inverse-CDF samples from rows of probabilities and uniforms in [0, 1)."""
    return (p_B_K[:, :-1].cumsum(axis=1) < u_B[:, None]).sum(axis=1)  # without the last: whatever is left over is its share


class Actor:
    """A policy frozen into numpy: distributions and actions for small batches of observations, without torch's overhead per call.

    It can be pickled to worker processes. Rows are evaluated in batches padded to a multiple of ACTOR_ROWS, because matrix
    products of other shapes may round otherwise: so an action depends on its observation and noise alone.
    """

    def __init__(self, layers, mean, scale, stdev):
        """layers: [((W, b) or None, activation name or None)]; mean, scale (1, Do) or None; stdev (Da,), None for finite actions."""
        self.layers, self.mean, self.scale, self.stdev = layers, mean, scale, stdev
        self.finite = stdev is None
        self.num_noise = 1 if self.finite else len(stdev)
        self.dtype = layers[-1][0][0].dtype

    def adist(self, obs_B_Do):
        """Distribution parameters (B, Pa)."""
        num = len(obs_B_Do)
        h = np.zeros((-(-num // ACTOR_ROWS) * ACTOR_ROWS, obs_B_Do.shape[1]), dtype=self.dtype)
        h[:num] = obs_B_Do
        if self.mean is not None:
            h -= self.mean
            h /= self.scale
        for affine, act in self.layers:
            if affine is not None:
                # block by block: BLAS takes another kernel, which rounds otherwise, for larger products
                h = (h.reshape(-1, ACTOR_ROWS, h.shape[1]) @ affine[0]).reshape(len(h), -1)
                h += affine[1]
            if act is not None:
                h = _NUMPY_ACTIVATIONS[act](h)
        out = h[:num]
        if not self.finite:
            return np.concatenate([out, np.broadcast_to(self.stdev, out.shape)], axis=1)
        out = out - out.max(axis=1, keepdims=True)
        return out - np.log(np.exp(out).sum(axis=1, keepdims=True))

    def noise(self, rng, num):
        """The randomness of `num` actions in a row, (num, num_noise): uniforms for finite actions, normals for continuous ones."""
        return rng.random((num, 1)) if self.finite else rng.standard_normal((num, self.num_noise))

    def act(self, adist_B_Pa, noise_B_Dn=None):
        """Actions (B, Da) from distributions and noise; without noise the most likely one."""
        if self.finite:
            if noise_B_Dn is None:
                return adist_B_Pa.argmax(axis=1)[:, None]
            return sample_categorical(np.exp(adist_B_Pa), noise_B_Dn[:, 0])[:, None]
        mean, stdev = np.split(adist_B_Pa.astype(np.float64), 2, axis=1)
        return mean if noise_B_Dn is None else mean + stdev * noise_B_Dn


class RandomActor:
    """The policy that the paper calls random: finite actions equally likely, continuous ones uniform in the action box.

    Standard normal where a continuous action has no bounds. Its distributions have no parameters to record (Pa = 0).
    Original: not part of the code; found by what the paper's random returns are (Reacher −43, HalfCheetah −282).
    """

    def __init__(self, info, a_max=None):
        """info: the EnvInfo of a task. a_max: uniform in ±a_max instead."""
        self.num_actions, self.num_noise = info.num_actions, info.a_dim
        low, high = (info.a_low, info.a_high) if a_max is None else (np.full(info.a_dim, -a_max), np.full(info.a_dim, a_max))
        self.low_high = None if low is None else (np.array(low), np.array(high))

    def adist(self, obs_B_Do):
        return np.empty((len(obs_B_Do), 0))

    def noise(self, rng, num):
        bounded = self.num_actions or self.low_high
        return rng.random((num, self.num_noise)) if bounded else rng.standard_normal((num, self.num_noise))

    def act(self, adist_B_Pa, noise_B_Dn):
        if self.num_actions:
            return (noise_B_Dn * self.num_actions).astype(np.int64)
        if self.low_high is None:
            return noise_B_Dn
        low, high = self.low_high
        return low + (high - low) * noise_B_Dn


def _leaky(h):
    return np.where(h > 0, h, h.dtype.type(0.01) * h)


_NUMPY_ACTIVATIONS = {
    'tanh': lambda h: np.tanh(h, out=h),
    'relu': lambda h: np.maximum(h, 0, out=h),
    'lrelu': _leaky,
    'elu': lambda h: np.where(h > 0, h, np.expm1(np.minimum(h, 0))),
}
