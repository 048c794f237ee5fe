r"""Draw the results of an experiment, alone or next to published ones.

    python scripts/plot_results.py runs/classic/checkpoints/results.h5
    python scripts/plot_results.py results.h5 --kind reproduction -o ours_and_paper.pdf \
        --reference results/paper/results_per_run.csv

figure1       score, (return − random) / (expert − random), over the number of expert trajectories
raw           the same of the mean return; in both, published results are thin lines
forest        our score minus the published one per algorithm and task, with intervals and margins
reproduction  every cell, ours filled and published ones open; cells that differ are shaded
profile       share of runs that reach a score

The bands of figure1 and raw are the 95% interval of the mean over runs; of fewer than 4 runs, from
the lowest to the highest.
"""

import os

from policyopt.command_line import Parser
from policyopt.reporting.figures import check_picture, results_figure, save_figure
from policyopt.reproduction.figures import KINDS
from policyopt.reproduction.study import Study


def main(argv):
    parser = Parser('plot_results', __doc__)
    parser.add_argument('results', metavar='RESULTS.h5', help='what stage 2_eval wrote')
    parser.add_argument('-o', '--output', metavar='FILE', help='.png, .pdf or .svg (default: RESULTS_<kind>.png next to the results)')
    parser.add_argument('--kind', choices=list(KINDS), default='figure1', help='what to draw (default: figure1)')
    parser.add_argument('--reference', metavar='F', help='CSV of published results; tasks.csv next to it is the scale of scores')
    parser.add_argument('--between-set', metavar='F', nargs='+', help='results with several expert sets, as for analyze_results.py')
    args = parser.parse_args(argv)
    inputs = [args.results, args.reference, *(args.between_set or [])]
    path = args.output or f'{os.path.splitext(args.results)[0]}_{args.kind}.png'
    check_picture(path, inputs)
    analysis = Study.read(args.results, args.reference, args.between_set)
    save_figure(results_figure(analysis, args.kind, KINDS), path)
    print(f'{args.kind}: {KINDS[args.kind].caption}\nwrote {path}')
