"""Print the results of an experiment, with intervals and verdicts.

    python scripts/analyze_results.py runs/classic/checkpoints/results.h5
    python scripts/analyze_results.py results.h5 --reference results/paper/results_per_run.csv -v 2
    python scripts/analyze_results.py results.h5 --reference F.csv --html report.html

Cells are matched with the reference by task, algorithm and dataset size. The page
docs/pipelines.md describes the columns of --csv.
"""

import os

from policyopt.command_line import Parser
from policyopt.errors import UserError
from policyopt.files.atomic import check_output, write_text
from policyopt.reporting import html, tables
from policyopt.reporting.analysis import MARGINS, begins
from policyopt.reporting.reference import tasks_beside
from policyopt.reproduction.report import aggregate_csv, sections
from policyopt.reproduction.study import Study
from policyopt.shipped import as_typed


def arguments(argv):
    parser = Parser('analyze_results', __doc__, verbose=False)
    parser.add_argument('results', metavar='RESULTS.h5', help='what stage 2_eval wrote')
    parser.add_argument('-v', '--verbosity', type=int, choices=(0, 1, 2), help='0: overview (default), 1: a line per cell, 2: as --study')
    parser.add_argument('--study', action='store_true', help='all columns, failed runs and negative controls')
    judged = parser.add_argument_group('next to published results')
    judged.add_argument(
        '--reference', metavar='F', help='CSV of published results, one row per run or cell; tasks.csv next to it is read too'
    )
    judged.add_argument(
        '--between-set',
        metavar='F',
        nargs='+',
        help='results with several expert sets, for the variance between sets (default: options.between_sets of the YAML)',
    )
    judged.add_argument(
        '--margin',
        metavar='M',
        nargs='+',
        default=[],
        help='difference that counts as the same, as a share of (expert − random); NAME=M for algorithms whose names begin so '
        '(default: 0.10 ga=0.05)',
    )
    files = parser.add_argument_group('files to write')
    files.add_argument('--csv', metavar='F', help='tables per run (F), per cell (F_cells) and per algorithm (F_aggregate)')
    for kind in ('latex', 'markdown', 'html'):
        files.add_argument(f'--{kind}', metavar='F', help=f'the report as {kind}')
    args = parser.parse_args(argv)
    if args.study and args.verbosity not in (None, 2):
        raise UserError(f'--study and -v {args.verbosity} both choose the columns; give one of them')
    if args.margin and not args.reference:
        raise UserError('--margin without --reference: there is no difference to judge; name the published results')
    args.verbosity = 2 if args.study else args.verbosity
    return args


def margins_of(words):
    """{beginning of an algorithm's name: margin} from the words of --margin; the declared margins if there are no words."""
    found = {}
    for word in words:
        name, _, number = word.rpartition('=')
        if name in found:
            raise UserError(f"--margin {word}: '{name}' has two margins; give one")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if not 0 < found[name] < 1:
            raise UserError(f"--margin {word}: '{number}' is no margin; expected a number between 0 and 1, such as 0.1 or ga=0.05")
    return {'': MARGINS['']} | found if words else MARGINS


def main(argv):
    args = arguments(argv)
    inputs = [args.results, args.reference, *([tasks_beside(args.reference)] if args.reference else []), *(args.between_set or [])]
    outputs = outputs_of(args)
    for i, (path, head, _) in enumerate(outputs):
        check_output(path, 'a table', inputs, others=[other for other, *_ in outputs[:i]], begins=head)
    margins = margins_of(args.margin)
    study = Study.read(args.results, args.reference, args.between_set, margins=margins)
    for name in margins if args.margin else ():
        if not any(begins(name, key.alg) for key in study.cells):
            algs = ', '.join(dict.fromkeys(key.alg for key in study.cells))
            raise UserError(f'--margin {name}=…: no algorithm of the results is called so; expected the beginning of {algs}')
    written = []
    for path, _, text_of in outputs:
        if text := text_of(study):
            write_text(path, text)
            written.append(path)
    level = args.verbosity or 0
    print(tables.text_report(study, level, sections(study, level), closing_lines(args, level, study, written)))


def outputs_of(args):
    """[(file to write, how such a file begins, function that returns the file's text for a study, or '' if there is none)]."""

    def page(study):
        from policyopt.reproduction.figures import pictures_of  # here, because matplotlib takes longer than a printed table

        sources = {'results': args.results, 'reference': args.reference, 'between sets': ', '.join(study.between)}
        return html.html_report(study, sections(study), pictures_of(study), {k: v for k, v in sources.items() if v})

    detail = 1 if args.verbosity is None else args.verbosity
    outputs = []
    if args.csv:
        root, suffix = os.path.splitext(args.csv)
        outputs += [(args.csv, 'task,', tables.runs_csv), (f'{root}_cells{suffix}', 'task,', tables.cells_csv)]
        outputs += [(f'{root}_aggregate{suffix}', 'alg,', aggregate_csv)]
    outputs += [
        (args.latex, '%', tables.latex_report),
        (args.markdown, '#', lambda study: tables.markdown_report(study, detail, sections(study))),
        (args.html, '<!', page),
    ]
    return [(path, begins_with, text_of) for path, begins_with, text_of in outputs if path]


def closing_lines(args, level, study, written):
    """What was written, and what to do next."""
    out = [f'wrote {", ".join(written)}'] if written else []
    if level == 2 and study.attrs.get('training_numerics'):
        out.insert(0, f'trained with: {study.attrs["training_numerics"]} (equal seeds give equal bits on one kind of processor only)')
    more = 'all columns and tests: --study' if study.comparisons else 'a line per cell: -v 1'
    return out if level else [*out, f'{more}; picture: {as_typed(f"plot_results.py {args.results}")}']
