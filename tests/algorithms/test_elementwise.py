"""tanh by either library is right, is chosen by the kind of processor alone, and every number of 2016 holds with both."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, script_env
from hypothesis import given
from hypothesis import strategies as st
from training_tools import needs_avx512

from policyopt import elementwise


def tanh_by_numpy_(x):
    return np.tanh(x, out=x)


IMPLEMENTATIONS = [tanh_by_numpy_, elementwise.tanh_by_torch_]


@pytest.mark.parametrize('tanh_', IMPLEMENTATIONS)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50))
def test_error_bound(tanh_, xs):
    x = np.array(xs)
    h = tanh_(x.copy())
    assert (np.abs(h - np.tanh(x.astype(np.longdouble))) <= 5e-16).all()
    assert (np.abs(h) <= 1).all()


def test_numpy_keeps_relative_accuracy_near_zero_and_torch_loses_it():
    x = np.geomspace(1e-12, 1e-3, 200)
    exact = np.tanh(x.astype(np.longdouble))
    by_numpy, by_torch = ((np.abs(tanh_(x.copy()) - exact) / exact).astype(float) for tanh_ in IMPLEMENTATIONS)
    assert by_numpy.max() < 1e-15
    assert (by_torch <= 5e-16 / x).all() and by_torch.max() > 1e-7


@pytest.mark.parametrize('tanh_', IMPLEMENTATIONS)
def test_infinity_nan_and_work_in_place(tanh_):
    x = np.array([np.inf, -np.inf, np.nan, 0.0])
    assert tanh_(x) is x
    np.testing.assert_array_equal(x, [1, -1, np.nan, 0])


@pytest.mark.parametrize('tanh_', IMPLEMENTATIONS)
def test_a_row_does_not_depend_on_its_neighbours(tanh_):
    """Blocks of 16 rows, of which an actor's batches are made, have whole vectors of numbers."""
    x = np.random.RandomState(0).randn(48, 7)
    whole = tanh_(x.copy())
    for at in range(0, 48, 16):
        np.testing.assert_array_equal(tanh_(x[at : at + 16].copy()), whole[at : at + 16])


def test_float32_goes_through_numpy():
    x = np.linspace(-3, 3, 1000, dtype=np.float32)
    np.testing.assert_array_equal(elementwise.tanh_(x.copy()), np.tanh(x))


def test_the_kernel_decides():
    needs_avx512()
    code = (
        'import numpy as np; from policyopt import elementwise as e; x = np.linspace(-1, 1, 99); '
        'print(e.KERNEL, *((f(x.copy()) == e.tanh_(x.copy())).all() for f in (np.tanh, e.tanh_by_torch_)))'
    )
    for env, expected in (({}, ['True', 'False']), (elementwise.WITHOUT_AVX512, ['X86_V3', 'False', 'True'])):
        done = subprocess.run([sys.executable, '-c', code], env=script_env(**env), capture_output=True, text=True, timeout=60)
        assert done.stdout.split()[-len(expected) :] == expected, done.stderr


def test_every_number_of_2016_holds_without_avx512_too():
    needs_avx512()
    files = [str(REPO / 'tests' / name) for name in ('test_golden.py', 'test_golden_imitation.py')]
    env = script_env(**elementwise.WITHOUT_AVX512) | {'PYTEST_ADDOPTS': '', 'GOLDEN_DIR': os.environ.get('GOLDEN_DIR', '')}
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider', *files]
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and ' passed' in done.stdout, done.stdout[-2000:]


def test_what_decides_the_last_bits_does_not_depend_on_what_else_is_loaded():
    code = 'from policyopt.torchutil import numerics; before = numerics(); import scipy.linalg; print(before == numerics(), before)'
    done = subprocess.run([sys.executable, '-c', code], env=script_env(), capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith('True numpy '), done.stdout + done.stderr
