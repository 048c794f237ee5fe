r"""Train one imitation run: cloning, DAgger, GAIL and its relatives.

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

from policyopt import options
from policyopt.command_line import run_main


def main(argv):
    chosen = options.parse_options('imitate_mj', __doc__, options.ImitationOptions, argv)
    from policyopt.training import train_imitation

    return train_imitation(chosen)


if __name__ == '__main__':
    sys.exit(run_main('imitate_mj', main))
