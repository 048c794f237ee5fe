#!/usr/bin/env python3
"""Train experts of our own on the fixed-horizon tasks of seals and keep the log and the last snapshot of each.

    python tools/experts/gen_seals_policies.py NEW_FOLDER --tasks CartPole-v0

Writes CartPole-v0.h5 and so on into the folder, then plays 200 stochastic episodes with each. Given again, the command goes on
where it was interrupted; experts that are there already are only played. CartPole's observations are not normalised: a cart that
lost its pole rolls on for hundreds of metres, beside which the few centimetres that matter vanish. MountainCar finds its goal
because the value function does not see the time. Swimmer needs lam and a discount near 1: with lam .98 it stays at 161. The options
of Walker2d-v1 and Ant-v1 are a proposal that nobody has followed to the end. Needs `pip install -e .[seals,mujoco]`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.command_line import run_main
from tools.experts.gen_classic_policies import train_experts

CLASSIC = '--tiny_policy --sim_batch_size 1 --policy_cg_damping .01 --vf_cg_damping .01 --vf_include_time 0 --seed 0 '
MUJOCO = '--min_total_sa 20000 --sim_batch_size 1 --max_iter 301 --seed 0 --lam .98'
EXPERTS = {
    'seals:seals/CartPole-v0': CLASSIC + '--min_total_sa 10000 --max_iter 101 --enable_obsnorm 0',
    'seals:seals/MountainCar-v0': CLASSIC + '--min_total_sa 20000 --max_iter 201 --lam .98',
    'seals:seals/Swimmer-v1': '--min_total_sa 10000 --sim_batch_size 1 --max_iter 101 --seed 0 --lam .995 --discount .9995',
    'seals:seals/Hopper-v1': MUJOCO,
    'seals:seals/HalfCheetah-v1': MUJOCO,
    'seals:seals/Walker2d-v1': MUJOCO,
    'seals:seals/Ant-v1': MUJOCO,
}
TRAINED = list(EXPERTS)[:5]

if __name__ == '__main__':
    prog = 'gen_seals_policies'
    sys.exit(run_main(prog, lambda argv: train_experts(prog, __doc__, EXPERTS, TRAINED, argv)))
