#!/usr/bin/env python3
"""Make every table, report, figure and number of results/ anew from the shipped results files; says each command that it runs.

    python tools/results/make_results.py             # tables, reports and figures, then the numbers in the documents
    python tools/results/make_results.py --numbers   # only the numbers in the documents
    python tools/results/make_results.py --check     # change nothing; exit code 1 when a document says other numbers than the files give

A document holds the block FILE:KIND, for example classic/results:answer, between <!-- begin: FILE:KIND --> and <!-- end: FILE:KIND -->.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.command_line import Parser, run_main
from policyopt.errors import RunFailed
from policyopt.files.atomic import write_text
from tools.results.documents import Blocks, fill

ROOT = Path(__file__).resolve().parents[2]
PAPER = 'results/paper/results_per_run.csv'
SETS = FIVE, TWENTY, LINEAR = [f'classic-2016-experts/{name}' for name in ('five_sets', 'bclone_twenty_sets', 'linear_sets')]
GAIL = [f'gail/{name}' for name in ('200k', 'small', '1m', 'paper')]
# shipped file: (files with several expert sets, detail of its tables, whether it has a page, its figures)
FILES = {
    'classic-2016-experts/results': (SETS, 2, True, ['figure1', 'forest', 'reproduction', 'profile']),
    FIVE: ([], 2, True, ['forest', 'reproduction']),
    **dict.fromkeys((TWENTY, LINEAR, 'classic-2016-experts/float32'), ([], 1, False, ['reproduction'])),
    'classic/results': (SETS, 1, True, ['figure1', 'forest', 'reproduction']),
    **dict.fromkeys(('modern/results', 'quickstart/results'), ([], 1, False, ['figure1'])),
    'modern/ga': ([], 1, False, ['reproduction']),
    **dict.fromkeys(('modern/bclone', 'modern/bclone_five_sets'), ([], 1, False, ['forest', 'reproduction'])),
    'modern/reacher_bclone': (['modern/reacher_bclone_five_sets'], 1, False, ['reproduction']),
    'benchmark/results': ([], 1, True, ['figure1']),
    **dict.fromkeys(GAIL, ([], 1, False, [])),
}
TABLES = sorted({f'modern/{path.stem}' for path in (ROOT / 'results/modern').glob('*.h5')} - FILES.keys())  # without figures
FILES |= dict.fromkeys(('seals/airl', *TABLES), ([], 1, False, []))
OTHERS: dict = dict.fromkeys(n for n in FILES if n.endswith('_sampled') or n in ('quickstart/results', 'benchmark/results', *GAIL))
OTHERS['seals/airl'] = 'results/peers/imitation.csv'
CURVES = {name: f'{name}/' for name in ('ga_curves', 'reacher_ga_curves')}  # pictures of results/modern: the logs that they show
CURVES |= {f'reacher_ga_{n}_curves': f'reacher_ga_4_11_curves/*num_trajs={n},' for n in (4, 11)}


def commands():
    """The commands that make the tables, reports and figures, from the root of the checkout."""
    for name, (between, level, page, kinds) in FILES.items():
        file, reference = f'results/{name}', OTHERS.get(name, PAPER)
        judged = ['--reference', reference] * bool(reference) + ['--between-set', *(f'results/{b}.h5' for b in between)] * bool(between)
        out = ['--csv', f'{file}.csv', '--markdown', f'{file}.md', *(['--html', f'{file}.html'] if page else [])]
        yield ['scripts/analyze_results.py', f'{file}.h5', *judged, *out, '-v', str(level)]
        for kind in kinds:
            scaled = ['--scale', scale] if kind == 'figure1' and os.path.exists(scale := f'results/{Path(name).parts[0]}/tasks.csv') else []
            yield ['scripts/plot_results.py', f'{file}.h5', '--kind', kind, *judged, *scaled, '-o', f'{file}_{kind}.png']
    for picture, logs in CURVES.items():
        found = map(str, sorted(Path('results/modern').glob(f'{logs}*.h5')))
        yield ['scripts/showlog.py', *found, *f'--fields trueret --group --noplot --plotfile results/modern/{picture}.png'.split()]


def main(argv):
    parser = Parser('make_results', __doc__)
    parser.add_argument('--numbers', action='store_true', help='leave tables, reports and figures as they are')
    parser.add_argument('--check', action='store_true', help='compare the documents with the files and change nothing')
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    for command in [] if args.numbers or args.check else commands():
        print('python', shlex.join(command), flush=True)
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    blocks, stale = Blocks('results', {name: between for name, (between, *_) in FILES.items()}, PAPER, OTHERS), []
    for path in [Path('README.md'), *sorted(Path('results').rglob('README.md'))]:
        if (text := path.read_text(encoding='utf-8')) != (made := fill(text, blocks.make, path)):
            stale.append(str(path))
            if not args.check:
                write_text(str(path), made)
    if args.check and stale:
        raise RunFailed(f'{", ".join(stale)}: other numbers than the shipped files give; run tools/results/make_results.py --numbers')
    print('the documents agree with the files' if args.check else f'changed: {", ".join(stale) or "no document"}')


if __name__ == '__main__':
    sys.exit(run_main('make_results', main))
