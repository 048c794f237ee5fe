"""Print how far training logs have got, and the last snapshot of each.

    python scripts/check_progress.py runs/classic/checkpoints/*.h5*

Takes finished runs (.h5), running ones (.h5.part), and folders of them.
Reading never disturbs a training, which replaces its file whole at every save.
"""

import os
import sys

from policyopt.command_line import Parser
from policyopt.errors import UserError, printable


def main(argv):
    p = Parser('check_progress', __doc__, verbose=False)
    p.add_argument('logs', nargs='+', metavar='LOG', help='training logs, or folders of them')
    p.add_argument('-v', '--verbose', action='store_true', help='show tracebacks of errors')
    args = p.parse_args(argv)
    from policyopt.files.names import is_log
    from policyopt.files.training_log import read_log, read_root, snapshot_names

    paths, bad = [], []
    for log in args.logs:
        here = [os.path.join(log, n) for n in sorted(os.listdir(log)) if is_log(n)] if os.path.isdir(log) else [log]
        paths += [path for path in here if os.path.basename(path) != 'results.h5' or path in args.logs]
    if not paths:
        raise UserError(f'{args.logs[0]}: holds no training logs; expected files that end in .h5 or .h5.part')
    for path in paths:
        try:
            rows = len(read_log(path))
            last = (snapshot_names(path, needed=False) or ['no snapshot'])[-1]
            total = read_root(path)['args'].get('max_iter', '?')
            print(printable(f'{path}: {last}, {rows} of {total} iterations'), flush=True)
        except UserError as e:
            bad.append(e)
            print(f'check_progress: {printable(e)}', file=sys.stderr)
    if bad:
        raise UserError(f'{len(bad)} of {len(paths)} files could not be read (named above)')
