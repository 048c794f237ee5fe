"""Print the returns and lengths in trajectory files.

    python scripts/print_saved_returns.py trajs/trajs_cartpole.h5 trajs/trajs_mountaincar.h5 --each

Per file: mean, standard deviation (sd), lowest and highest.
"""

from policyopt.command_line import Parser
from policyopt.files.trajectory_file import load_trajs


def main(argv):
    parser = Parser('print_saved_returns', __doc__)
    parser.add_argument('trajfiles', nargs='+', metavar='TRAJS', help='a trajectory file (trajs_<task>.h5)')
    parser.add_argument('--each', action='store_true', help='a line per trajectory too')
    args = parser.parse_args(argv)
    for path in args.trajfiles:
        trajs = load_trajs(path)
        print(f'{path}: {len(trajs.lengths)} trajectories')
        for name, x_B in (('returns', trajs.returns), ('lengths', trajs.lengths)):
            print(f'  {name}  {x_B.mean():.6g} (sd {x_B.std():.6g}, lowest {x_B.min():.6g}, highest {x_B.max():.6g})')
        if args.each:
            for i, (r, length) in enumerate(zip(trajs.returns, trajs.lengths, strict=True)):
                print(f'  {i}  return {r:.6g}  length {length}')
