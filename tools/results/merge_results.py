#!/usr/bin/env python3
"""Merge the results of an experiment that was run in parts into one file.

    python tools/results/merge_results.py monday.h5 tuesday.h5 -o results.h5

The parts are files that 2_eval wrote with --only or --exclude, from one YAML file: equal tasks and
training, every run in one part.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.command_line import Parser, run_main
from policyopt.errors import UserError
from policyopt.files.atomic import check_output
from policyopt.files.results_file import read_results, returns_table, write_results
from policyopt.provenance import provenance
from policyopt.shipped import as_typed
from tools.results.merging import merge_results


def main(argv):
    p = Parser('merge_results', __doc__)
    p.add_argument('parts', nargs='+', metavar='RESULTS.h5', help='what 2_eval wrote')
    p.add_argument('-o', '--out', required=True, metavar='FILE', help='the file to write; one that exists is refused')
    args = p.parse_args(argv)
    check_output(args.out, 'the results', args.parts)
    if os.path.exists(args.out):
        raise UserError(f'{args.out}: exists already; choose another file for the results')
    rows, tasks, attrs, remarks = merge_results([(path, read_results(path)) for path in args.parts])
    for remark in remarks:
        print(f'note: {remark}', file=sys.stderr)
    write_results(args.out, rows, tasks, provenance() | attrs)
    print(returns_table(rows))
    print(f'results: {args.out}\nnext: {as_typed(f"analyze_results.py {args.out}")}', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(run_main('merge_results', main))
