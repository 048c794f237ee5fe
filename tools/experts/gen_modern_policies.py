#!/usr/bin/env python3
"""Train experts of our own on the MuJoCo tasks of 2016 and keep the log and the last snapshot of each.

    python tools/experts/gen_modern_policies.py NEW_FOLDER --tasks legacy/Reacher-v1

Writes Reacher-v1.h5 and so on into the folder, then plays 200 stochastic episodes with each. Given again, the command goes on
where it was interrupted; experts that are there already are only played. The options of Humanoid-v1 are a proposal that nobody has
followed to the end. min_total_sa and lam are those of the 2016 logs, where there are any; their nets, iterations
and episodes differ (expert_policies/README.md).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.command_line import run_main
from tools.experts.gen_classic_policies import train_experts

OPTIONS = '--min_total_sa 50000 --sim_batch_size 1 --seed 0 --max_iter '
EXPERTS = {
    'legacy/InvertedPendulum-v1': OPTIONS + '41',
    'legacy/Reacher-v1': OPTIONS + '201',
    'legacy/Hopper-v1': OPTIONS + '201 --lam .98',
    'legacy/HalfCheetah-v1': OPTIONS + '201 --lam .98',
    'legacy/Walker2d-v1': OPTIONS + '301 --lam .98',
    'legacy/Ant-v1': OPTIONS + '401 --lam .97',
    'legacy/Humanoid-v1': OPTIONS + '1501 --lam .97',
}
TRAINED = [f'legacy/{task}-v1' for task in ('InvertedPendulum', 'Reacher', 'Hopper', 'HalfCheetah', 'Walker2d', 'Ant')]

if __name__ == '__main__':
    prog = 'gen_modern_policies'
    sys.exit(run_main(prog, lambda argv: train_experts(prog, __doc__, EXPERTS, TRAINED, argv)))
