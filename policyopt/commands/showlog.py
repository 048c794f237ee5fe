r"""Print the last row of training logs and draw their learning curves.

    python scripts/showlog.py runs/*.h5 --plotfile curves.png
    python scripts/showlog.py checkpoints/*.h5* --group --smooth 10 --fields trueret,racc \
        --plotfile curves.png

One panel per field shows all logs. With --group, runs are grouped by algorithm (and by task and
dataset size where these differ): a line for the mean, a band from the lowest to the highest run.
Logs of running trainings (.h5.part) are read as of their last save; --follow redraws them until
they are complete. Files that are no logs, such as results.h5, are skipped.
vf_r2 is shown floored at 0.
"""

import sys
import time

from policyopt.command_line import Parser, whole
from policyopt.errors import UserError, printable
from policyopt.reporting import curves
from policyopt.reporting.figures import check_picture, has_screen, save_figure, show_windows


def main(argv):
    parser = Parser('showlog', __doc__)
    parser.add_argument('logfiles', nargs='+', metavar='LOG', help='.h5 of a finished, .h5.part of a running training')
    parser.add_argument('--fields', help=f'columns, comma-separated (default: {curves.DEFAULT_FIELDS}; cloning logs: those of cloning too)')
    parser.add_argument('--noplot', action='store_true', help='only print')
    parser.add_argument('--plotfile', metavar='FILE', help='write the picture there (.png, .pdf, .svg) instead of opening a window')
    parser.add_argument('--range_end', type=int, metavar='ITER', help='leave out later iterations')
    parser.add_argument('--group', action='store_true', help='one line with a band per algorithm instead of one line per log')
    parser.add_argument('--smooth', type=whole(1), default=1, metavar='N', help='moving average over the last N rows (default: 1)')
    parser.add_argument('--follow', action='store_true', help='again and again, until every run is complete (Ctrl-C ends it)')
    parser.add_argument('--interval', type=float, default=10.0, metavar='S', help='seconds between two drawings (default: %(default)s)')
    args = parser.parse_args(argv)
    if args.plotfile:
        if args.noplot:
            raise UserError('--noplot and --plotfile contradict each other; give one of them')
        check_picture(args.plotfile, args.logfiles)
    if not args.interval > 0:
        raise UserError(f'--interval {args.interval}: expected a number of seconds above 0')
    paths = curves.log_paths(args.logfiles)
    screen = not (args.noplot or args.plotfile) and has_screen()
    for logs in curves.readings(paths, lambda files: curves.read_logs(files, args.range_end)):
        show(logs, args, screen)
        if not args.follow or all(log.done for log in logs):
            break
        if not screen:
            time.sleep(args.interval)
        elif not show_windows(args.interval):
            return  # the window was closed
    if screen:
        show_windows()


def show(logs, args, screen):
    """Print the last rows, and draw the curves on the screen or into a file."""
    if args.group:
        curves.groups_of(logs)
    fields, words = curves.known_fields(logs, args.fields)
    if 'valacc' in fields:
        words.append(f'valacc: {curves.meaning_of(logs, "valacc")}')
    print(printable(curves.last_rows(logs, fields), keep='\n'), flush=True)
    for word in words:
        print(f'showlog: {printable(word)}', file=sys.stderr)
    if args.plotfile or screen:
        figure = curves.curves_figure(logs, fields, args.group, args.smooth, on_screen=screen)
    if args.plotfile:
        save_figure(figure, args.plotfile)
        print(f'wrote {args.plotfile}', flush=True)
    elif not (screen or args.noplot):
        print('showlog: there is no screen to draw on; name a file with --plotfile FILE.png, or say --noplot', file=sys.stderr)
