"""Export training logs: as CSV, for TensorBoard, or as small files.

    python scripts/export_log.py runs/quickstart/checkpoints/alg=*.h5 --csv logs.csv
    python scripts/export_log.py run.h5.part --tensorboard tb --follow
    python scripts/export_log.py runs/modern/checkpoints/alg=*.h5 --logs curves

--csv writes one table with a line for every iteration of every log; it may replace a table.
--tensorboard writes a folder for every log (pip install -e '.[tensorboard]', then tensorboard
--logdir tb); one that holds an export already is rejected, because TensorBoard would draw both.
--logs writes each log as an .h5 file without snapshots, for showlog.py.

Logs of running trainings (.h5.part) are read as of their last save; --follow continues until they
are complete. Files that are no logs are skipped.
"""

import contextlib
import sys
import time

from policyopt.command_line import Parser
from policyopt.errors import UserError
from policyopt.files.atomic import check_output, check_writable_dir
from policyopt.files.names import is_part
from policyopt.files.training_log import read_log, read_root, write_log
from policyopt.reporting import curves, log_export


def main(argv):
    p = Parser('export_log', __doc__)
    p.add_argument('logfiles', nargs='+', metavar='LOG', help='.h5 of a finished, .h5.part of a running training')
    p.add_argument('--csv', metavar='FILE', help='write one table, in place of one that exists')
    p.add_argument('--tensorboard', metavar='DIR', help="write TensorBoard's event files below this folder, for logs that have none there")
    p.add_argument('--logs', metavar='DIR', help='write each log as a file of its own into this folder, without snapshots')
    p.add_argument('--follow', action='store_true', help='go on until every run is complete')
    p.add_argument(
        '--interval', type=float, default=10.0, metavar='S', help='seconds between two looks with --follow (default: %(default)s)'
    )
    args = p.parse_args(argv)
    if not (args.csv or args.tensorboard or args.logs):
        raise UserError('nothing to write; name a table with --csv FILE, or a folder with --tensorboard DIR or --logs DIR')
    if not args.interval > 0:
        raise UserError(f'--interval {args.interval}: expected a number of seconds above 0')
    if args.csv:
        check_output(args.csv, 'a table of logs', args.logfiles, others=filter(None, (args.logs, args.tensorboard)), begins='log,')
    for folder, what in ((args.tensorboard, 'the folder of TensorBoard'), (args.logs, 'the folder of logs')):
        if folder:
            check_writable_dir(folder, what)
    paths = curves.log_paths(args.logfiles)
    names = log_export.log_names(paths)
    board = log_export.TensorBoard(args.tensorboard, list(names.values())) if args.tensorboard else None
    bare = log_export.bare_paths(args.logs, names) if args.logs else []

    def read(files):
        return files, [read_log(file) for file in files], [read_root(file) for file in files if board or bare]

    with contextlib.closing(board) if board else contextlib.nullcontext():
        for files, tables, roots in curves.readings(paths, read):
            if args.csv:
                log_export.write_csv(args.csv, dict(zip(names.values(), tables, strict=True)))
            if board:
                board.write(tables, roots)
            for path, table, root in zip(bare, tables, roots, strict=False):
                write_log(path, table, root)
            if not args.follow or not any(map(is_part, files)):
                break
            time.sleep(args.interval)
    print(f'{sum(map(len, tables))} rows of {len(paths)} logs: {", ".join(filter(None, (args.csv, args.tensorboard, args.logs)))}')
    if args.tensorboard:
        print(f'next: tensorboard --logdir {args.tensorboard}', file=sys.stderr)
