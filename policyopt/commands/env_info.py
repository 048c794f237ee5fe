"""Print the observations, actions and time limit of tasks.

Example:
    python scripts/media/env_info.py CartPole-v0 Acrobot-v0 mypackage.envs:Robot-v0
"""

from policyopt.command_line import Parser
from policyopt.environments import rlgymenv


def main(argv):
    parser = Parser('env_info', __doc__)
    parser.add_argument('env', nargs='+', help='a gymnasium id, or package.module:EnvId')
    args = parser.parse_args(argv)
    for info in [rlgymenv.env_info(name) for name in args.env]:
        action = f'one of 0 … {info.num_actions - 1}' if info.finite else f'{info.a_dim} real numbers, taken unclipped'
        print(f'{info.name}' + (f' ({info.id})' if info.id != info.name else ''))
        print(f'  observation  {info.obs_dim} real numbers')
        print(f'  action       {action}')
        print(f'  time limit   {f"{info.time_limit} steps" if info.time_limit else "none"}')
