#!/usr/bin/env python3
r"""Train one imitation run: behavioural cloning, DAgger, or adversarial imitation with TRPO.

GAIL on four expert trajectories of CartPole:
    python scripts/imitate_mj.py --mode gail --data trajs_cartpole.h5 --limit_trajs 4 \
        --data_subsamp_freq 10 --env_name CartPole-v0 --max_iter 25 --seed 0 --log run.h5
DAgger from the first of them, with an expert that labels (docs/algorithms.md):
    python scripts/imitate_mj.py --mode dagger --data trajs_cartpole.h5 --limit_trajs 1 \
        --expert expert_policies/classic/CartPole-v0.h5/snapshots/last --env_name CartPole-v0 \
        --max_iter 1001 --bclone_eval_freq 100 --log dagger.h5

The run is run.h5.part until it is complete; --resume continues it. --mode ga is GAIL with the
options of 2016. All options of 2016 are kept with their defaults.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt import options
from policyopt.util import Parser, run_main


def main(argv):
    p = Parser('imitate_mj', __doc__, usage='imitate_mj --mode MODE --data TRAJS.h5 [--env_name ENV] [options]', add_help=False)
    options.add_to(p, options.ImitationOptions)
    chosen = options.parsed(p, options.ImitationOptions, argv)
    from policyopt.training import train_imitation

    return train_imitation(chosen)


if __name__ == '__main__':
    sys.exit(run_main('imitate_mj', main))
