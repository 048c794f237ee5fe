r"""Train an expert: TRPO on the true reward of a task.

The CartPole expert of the classic pipeline:
    python scripts/run_rl_mj.py --env_name CartPole-v0 --tiny_policy --min_total_sa 5000 \
        --sim_batch_size 1 --max_iter 101 --lam .98 --policy_cg_damping .01 --vf_cg_damping .01 \
        --vf_include_time 0 --seed 1 --log CartPole-v0.h5

The run is LOG.part until it is complete; --resume continues it. All options of 2016 are kept with
their defaults.
"""

from policyopt import options


def main(argv):
    chosen = options.parse_options('run_rl_mj', __doc__, options.RLOptions, argv)
    from policyopt.training import train_rl

    return train_rl(chosen)
