"""Print the table of a campaign: per cell mean, intervals and % of expert; beside a reference, first, whether it reproduces.

Examples:
    python scripts/analyze_results.py runs/classic/checkpoints/results.h5
    python scripts/analyze_results.py results.h5 --reference results/paper/results_per_run.csv --html report.html -v 2
    python scripts/analyze_results.py results.h5 --reference results/paper/results_per_run.csv --between-set five_sets/results.h5

Cells are matched with the reference by task name, algorithm name and dataset size. --between-set takes several files.
"""

from policyopt.command_line import Parser
from policyopt.files.atomic import check_output, write_text
from policyopt.files.results_file import read_other_sets, read_results
from policyopt.reporting import cells, html, report
from policyopt.reporting.analysis import analyze, campaign_runs, heading, how_played, repeat_commands, rows_of_campaign
from policyopt.reporting.reference import read_reference, read_reference_tasks


def arguments(argv):
    parser = Parser('analyze_results', __doc__, epilog=cells.columns_help())
    parser.add_argument('results', metavar='RESULTS.h5', help='what stage 2_eval wrote')
    parser.add_argument(
        '--reference', metavar='F', help='CSV of published results, one row per run or per cell; tasks.csv beside it is read too'
    )
    parser.add_argument(
        '--between-set', metavar='F', nargs='+', default=[], help='results with several expert sets: the variance between sets'
    )
    parser.add_argument('--run-name', metavar='NAME', help='only the campaign of that name')
    for kind in ('csv', 'latex', 'markdown', 'html'):
        parser.add_argument(
            f'--{kind}', metavar='F', help=f'also write the table as {kind}' + (' (F per run, F_cells, F_aggregate)' * (kind == 'csv'))
        )
    parser.add_argument('-v', '--verbosity', type=int, choices=(0, 1, 2), default=1, help='width of the printed table (default: 1)')
    return parser.parse_args(argv)


def main(argv):
    args = arguments(argv)
    inputs = [args.results, args.reference, *args.between_set]
    outputs = list(filter(None, [*(cells.csv_paths(args.csv) if args.csv else ()), args.latex, args.markdown, args.html]))
    for i, path in enumerate(outputs):
        check_output(path, 'a table', inputs, others=outputs[:i])
    results = read_results(args.results)
    reference, ref_tasks = (read_reference(args.reference), read_reference_tasks(args.reference)) if args.reference else (None, None)
    analysis = analyze(
        rows_of_campaign(results.rows, results.attrs, args.run_name),
        results.tasks,
        reference=reference,
        ref_baselines=ref_tasks,
        between=read_other_sets(args.between_set, args.results, results),
        expected=campaign_runs(results.attrs.get('spec', '')),
        title=heading(results, args.reference),
    )
    analysis.notes[:0] = how_played(results.attrs)
    commands = repeat_commands(analysis.cells, results.attrs)
    print(report.text_table(analysis, args.verbosity))
    if args.verbosity and results.attrs.get('training_numerics'):
        print(f'trained with: {results.attrs["training_numerics"]} (equal seeds give equal bits on one kind of processor only)')
    written = []
    if args.csv:
        written += cells.write_csv(args.csv, analysis, commands)
    for path, content in (
        (args.latex, lambda: report.latex(analysis)),
        (args.markdown, lambda: report.markdown(analysis, args.verbosity)),
        (args.html, lambda: html.page_of(analysis, results.attrs, commands, [args.results, args.reference, ', '.join(args.between_set)])),
    ):
        if path:
            write_text(path, content())
            written.append(path)
    if written:
        print(f'\nwrote {", ".join(written)}')
