#!/usr/bin/env python3
"""Train an expert: TRPO on the true reward of a task.

Example, the CartPole expert of the classic pipeline:
    python scripts/run_rl_mj.py --env_name CartPole-v0 --tiny_policy --min_total_sa 5000 --sim_batch_size 1 --max_iter 101 \
        --lam .98 --policy_cg_damping .01 --vf_cg_damping .01 --vf_include_time 0 --seed 1 --log CartPole-v0.h5

The run is LOG.part until it is complete; --resume continues it. All options of 2016 are kept with their defaults.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from imitate_mj import add_common_options

from policyopt.util import Parser, run_main


def main(argv):
    p = Parser('run_rl_mj', __doc__)
    p.add_argument('--enable_obsnorm', type=int, choices=[0, 1], default=1)
    p.add_argument('--use_tanh', type=int, choices=[0, 1], default=0, help='kept from 2016; the built-in nets are tanh already')
    p.add_argument('--vf_include_time', type=int, choices=[0, 1], default=1, help='0: the value function does not see the time')
    add_common_options(p, min_total_sa=100000)
    args = p.parse_args(argv)
    from policyopt.training import train_rl

    return train_rl(args)


if __name__ == '__main__':
    sys.exit(run_main('run_rl_mj', main))
