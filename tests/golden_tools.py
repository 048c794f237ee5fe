"""What the parity tests share: reading the vectors of 2016, comparing with them, and setting models to their states."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from policyopt.trajectories import ContinuousSpace, FiniteSpace

OWN_GOLDEN = Path(__file__).resolve().parent / 'golden'
GOLDEN = Path(os.environ.get('GOLDEN_DIR') or OWN_GOLDEN).resolve()
RTOL = 1e-8


def files(pattern):
    """A parameter for every golden file of a kind.

    A folder of one's own may hold some kinds only: tests of the others are skipped. One without any vectors, and the repository's own
    without one kind, would skip everything without a word, so collecting the tests fails there.
    """
    found = sorted(GOLDEN.glob(pattern))
    if not found and (GOLDEN == OWN_GOLDEN or not any(GOLDEN.glob('[a-l]_*.*'))):
        raise FileNotFoundError(f'{GOLDEN}: holds no golden vectors {pattern}; look at the environment variable GOLDEN_DIR')
    return pytest.mark.parametrize('path', found, ids=[p.stem for p in found])


def read(path):
    """(arrays, JSON fields) of a golden file."""
    meta = path.with_suffix('.json')
    return np.load(path), json.loads(meta.read_text()) if meta.exists() else {}


def close(actual, expected, rtol=RTOL, atol=1e-13, name=''):
    actual = actual.numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual, dtype=float)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=name)


def check_fields(fields, expected, **tol):
    """Log fields against the golden list [[name, value(, type)], …]; timings are not in it."""
    ours = [f for f in fields if not (f[0].startswith('t') and f[0] in ('tsamp', 'tadv', 'tstep', 'ttotal'))]
    assert [f[0] for f in ours] == [e[0] for e in expected]
    for (name, value, kind), entry in zip(ours, expected, strict=True):
        close(np.nan if value is None else value, np.nan if entry[1] is None else entry[1], name=name, **tol)
        if len(entry) > 2:
            assert kind.__name__ == entry[2], name


def set_vars(model, d, meta, prefix):
    """Load golden variables NN into a model through its names, which must be those of 2016 in their order."""
    names = [v['name'] for v in meta['all_variables_in_order']]
    assert list(model.variables) == names
    model.load({n: d[f'{prefix}_var{i:02d}'] for i, n in enumerate(names)}, 'golden')


def check_vars(model, d, prefix, rtol=RTOL, atol=1e-13):
    for i, (name, var) in enumerate(model.variables.items()):
        close(var, d[f'{prefix}_var{i:02d}'], rtol, atol, f'{prefix} {name}')
    close(model.theta_P, d[f'{prefix}_flat'], rtol, atol, f'{prefix}_flat')


def action_space(kind, n):
    return FiniteSpace(n) if kind in ('gibbs', 'disc') else ContinuousSpace(n)


def action_dim(meta):
    """Outputs of the net, from the shape of its last bias."""
    return meta['all_variables_in_order'][-1]['shape'][1]


def check_beyond_rounding(compute, expected):
    """Assert compute(0) equals the golden arrays to rtol 1e-8, give or take what rounding does to this very computation.

    Ten CG iterations amplify rounding by a factor that differs from case to case (the files say so: `rounding_sensitivity_*`), so it
    is measured: compute(eps) perturbs the starting parameters by relative 1e-15. A noise above 1e-5 would make the check vacuous.
    """
    actual = compute(None)
    others = [compute(np.random.RandomState(seed)) for seed in range(4)]
    for name, want in expected.items():
        noise = max(np.max(np.abs(np.asarray(o[name], dtype=float) - np.asarray(actual[name], dtype=float))) for o in others)
        assert noise <= 1e-5 * max(1.0, np.max(np.abs(want))), name
        close(actual[name], want, atol=1e-12 + 20 * noise, name=name)


def perturb(model, rng):
    if rng is not None:
        model.theta_P.mul_(1 + 1e-15 * torch.as_tensor(rng.randn(len(model.theta_P))))
