#!/usr/bin/env python3
"""Train one imitation run: behavioural cloning (--mode bclone) or adversarial imitation with TRPO (--mode ga).

Example, GAIL on four expert trajectories of CartPole:
    python scripts/imitate_mj.py --mode ga --data trajs_cartpole.h5 --limit_trajs 4 --data_subsamp_freq 10 \
        --env_name CartPole-v0 --min_total_sa 5000 --sim_batch_size 1 --max_iter 301 --seed 0 --log run.h5

The run is run.h5.part until it is complete; --resume continues it. All options of 2016 are kept with their defaults.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.util import MAX_ITER, Parser, run_main


def add_common_options(p, min_total_sa):
    """Options that imitate_mj.py and run_rl_mj.py share."""
    p.add_argument('--env_name', '--env', required=True, help='gymnasium id, a 2016 name, or package.module:EnvId')
    p.add_argument('--max_traj_len', type=int, help="steps per episode at most (default: the env's time limit)")
    p.add_argument('--policy_hidden_spec', help='JSON list of hidden layers (default: two of 100 tanh units)')
    p.add_argument('--tiny_policy', action='store_true', help='two hidden layers of 64 tanh units')
    p.add_argument('--discount', type=float, default=0.995)
    p.add_argument('--lam', type=float, default=0.97)
    p.add_argument('--max_iter', type=int, help=f'default: {MAX_ITER}, or with --resume what the run was started with')
    p.add_argument('--policy_max_kl', type=float, default=0.01)
    p.add_argument('--policy_cg_damping', type=float, default=0.1)
    p.add_argument('--vf_max_kl', type=float, default=0.01)
    p.add_argument('--vf_cg_damping', type=float, default=0.1)
    p.add_argument('--sim_batch_size', type=int, help='1: one process; default: worker processes where they pay')
    p.add_argument('--min_total_sa', type=int, default=min_total_sa, help='state-action pairs per iteration, at least')
    p.add_argument('--print_freq', type=int, default=1)
    p.add_argument('--save_freq', type=int, default=20, help='iterations between snapshots')
    p.add_argument('--log', help='HDF5 file of the run; default: keep nothing')
    p.add_argument('--seed', type=int, help='default: drawn, printed and stored; equal seeds give equal bits on one kind of processor')
    p.add_argument('--device', default='cpu', help='cpu or cuda')
    p.add_argument('--dtype', default='float64', choices=['float64', 'float32'])
    p.add_argument('--resume', action='store_true', help='continue LOG.part bit for bit; a complete LOG is left alone')
    p.add_argument('--verbose', action='store_true', help='show a traceback on errors')


def main(argv):
    p = Parser('imitate_mj', __doc__)
    p.add_argument('--mode', choices=['bclone', 'ga'], required=True)
    p.add_argument('--data', required=True, help='expert trajectories (HDF5)')
    p.add_argument('--limit_trajs', type=int, help='use the first N trajectories only')
    p.add_argument('--data_subsamp_freq', type=int, default=1, help='keep every N-th pair of a trajectory')
    p.add_argument('--obsnorm_mode', choices=['none', 'expertdata', 'online'], default='expertdata')
    p.add_argument('--bclone_lr', type=float, default=1e-3)
    p.add_argument('--bclone_batch_size', type=int, default=128)
    p.add_argument('--bclone_eval_ntrajs', type=int, default=20, help='kept from 2016; cloning does no rollouts')
    p.add_argument('--bclone_eval_freq', type=int, default=1000, help='iterations between validations, snapshots and printed lines')
    p.add_argument('--bclone_train_frac', type=float, default=0.7)
    p.add_argument('--no_vf', type=int, choices=[0, 1], default=0, help='1: baseline is the mean return of each time step')
    p.add_argument('--policy_ent_reg', type=float, default=0.0, help='causal entropy bonus')
    p.add_argument('--reward_type', choices=['nn', 'l2ball', 'simplex'], default='nn', help='GAIL, FEM, game-theoretic')
    p.add_argument('--reward_max_kl', type=float, default=0.01, help='kept from 2016; no reward uses it')
    p.add_argument('--reward_lr', type=float, default=0.01)
    p.add_argument('--reward_steps', type=int, default=1, help='Adam steps of the classifier per iteration')
    p.add_argument('--reward_ent_reg_weight', type=float, default=0.001)
    p.add_argument('--reward_include_time', type=int, choices=[0, 1], default=0)
    p.add_argument('--favor_zero_expert_reward', type=int, choices=[0, 1], default=0, help='1 for tasks that end on success')
    p.add_argument('--plot_freq', type=int, default=0, help='0 only; use showlog.py')
    add_common_options(p, min_total_sa=50000)
    args = p.parse_args(argv)
    from policyopt.training import train_imitation

    return train_imitation(args)


if __name__ == '__main__':
    sys.exit(run_main('imitate_mj', main))
