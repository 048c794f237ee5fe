"""Training on a GPU, through the real command lines: the numbers of the processor, and the same bits every time. Skipped without one."""

import numpy as np
import pytest
import torch
from training_tools import CLONING, RUNS, TIMINGS, differences, run
from training_tools import folder as folder

from policyopt.files.training_log import read_log, read_snapshot

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='there is no GPU here')
GAUSSIAN = ['run_rl_mj.py', '--env_name', 'Pendulum-v1', '--min_total_sa', '600', '--max_iter', '31', '--seed', '3']
COMMANDS = RUNS | {'rl of a Gaussian policy': GAUSSIAN}


def trained(name, folder, device, log):
    """The file of a run of COMMANDS, a sampled one cut to six iterations."""
    iterations = [] if name in CLONING else ['--max_iter', '6']
    run(COMMANDS[name], folder, *iterations, '--device', device, '--log', log)
    return str(folder / log)


@pytest.mark.parametrize('name', COMMANDS)
def test_a_gpu_gives_the_numbers_of_the_processor(folder, name):
    """Actions are drawn on the processor, so that rounding alone tells the two apart: in float64 it stays small over a few iterations."""
    cpu, gpu = (trained(name, folder, device, f'{name}_{device}.h5') for device in ('cpu', 'cuda'))
    log, gpu_log = read_log(cpu), read_log(gpu)
    assert len(log) == len(gpu_log) >= 6
    for column in set(log.dtype.names) - set(TIMINGS):
        np.testing.assert_allclose(gpu_log[column], log[column], rtol=1e-4, atol=1e-6, err_msg=column)
    ours, theirs = (read_snapshot(f'{path}/snapshots/last').variables for path in (gpu, cpu))
    for variable, value in theirs.items():
        np.testing.assert_allclose(ours[variable], value, rtol=1e-5, atol=1e-7, err_msg=variable)


@pytest.mark.parametrize('name', ['ga', 'airl'])
def test_equal_seeds_give_equal_bits_on_a_gpu(folder, name):
    once, again = (trained(name, folder, 'cuda', f'{name}_{n}.h5') for n in (1, 2))
    assert differences(once, again) == []
