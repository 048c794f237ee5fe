#!/usr/bin/env python3
"""Make the figures and numbers of the results pages anew from the shipped files.

    python tools/results/make_results.py                 # figures, then the numbers in the pages
    python tools/results/make_results.py --numbers       # only the numbers in the pages
    python tools/results/make_results.py --check         # change nothing; exit code 1 where they differ
    python tools/results/make_results.py --tables DIR    # also tables of every results file, into DIR

A page holds the block FILE:KIND, for example classic/results:cells, between
<!-- begin: FILE:KIND --> and <!-- end: FILE:KIND -->.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from policyopt.algorithms import label_of
from policyopt.command_line import Parser, run_main
from policyopt.errors import RunFailed
from policyopt.files.atomic import write_text
from tools.results.claims import WHOLE
from tools.results.documents import Blocks, fill
from tools.results.pictures import draw_curves, draw_efficiency, draw_gail

ROOT = Path(__file__).resolve().parents[2]
PAPER = 'results/paper/results_per_run.csv'
SETS = [f'classic-2016-experts/{name}' for name in ('five_sets', 'bclone_twenty_sets', 'linear_sets')]
# shipped file: the files with several expert sets that it takes the variance between sets from
FILES = {path.relative_to(ROOT / 'results').with_suffix('').as_posix(): [] for path in sorted((ROOT / 'results').glob('*/*.h5'))}
FILES |= {
    'classic-2016-experts/results': SETS,
    'classic/results': SETS,
    'modern/reacher_bclone': ['modern/reacher_bclone_five_sets'],
}
# shipped file: what was published of it, where that is not the paper's
OTHERS: dict = {n: None for n in FILES if n.endswith('_sampled') or n.startswith(('quickstart/', 'benchmark/', 'gail/', 'linear_rewards/'))}
OTHERS['seals/airl'] = 'results/peers/imitation.csv'
# picture: (shipped file, kind)
FIGURES = {
    'mujoco_figure1': ('modern/results', 'figure1'),
    'mujoco_cloning': ('modern/bclone_five_sets', 'figure1'),
    'classic_figure1': ('classic-2016-experts/results', 'figure1'),
    'classic_forest': ('classic-2016-experts/results', 'forest'),
    'classic_profile': ('classic-2016-experts/results', 'profile'),
    'our_experts_figure1': ('benchmark/results', 'figure1'),
}
# picture: (files of `gail`, drawn as far as they are there; that of `ga`; their steps in words)
GAIL = {
    'gail_figure1': (['gail/paper', 'gail/ant'], 'modern/ga', ('1 million steps', '25 million')),
    'gail_classic': (['gail/classic'], 'classic-2016-experts/results', ('200 000 steps', '1.5 million')),
}
BOUNDS = {'': 'bound of 2016', '_batch': "batch's bound", '_none': 'no bound'}
# picture: folders of training logs, and what its legend calls algorithms; drawn when they are shipped
CURVES: dict[str, tuple[list[str], dict[str, str]]] = {
    'mujoco_gail_curves': (['modern/ga_curves'], {}),
    'reacher_curves': (
        ['modern/reacher_ga_curves', 'modern/reacher_ga_4_11_curves'],
        {'ga_entreg0': 'no entropy bonus', 'ga_entreg-3': 'entropy bonus of weight 0.001'},
    ),
    'linear_rewards_curves': (['modern/fem_simplex_curves'], {label_of('fem'): 'FEM', label_of('simplex'): 'game-theoretic'}),
    'reward_shift_curves': (
        ['linear_rewards/curves'],
        {
            label_of(f'{alg}{end}'): f'{name}, {bound}'
            for alg, name in (('fem', 'FEM'), ('simplex', 'game-theoretic'))
            for end, bound in BOUNDS.items()
        },
    ),
}


def judged(name):
    """The arguments of a command that compare a results file as the pages do."""
    reference = OTHERS.get(name, PAPER)
    sets = [f'results/{b}.h5' for b in FILES[name]]
    return ['--reference', reference] * bool(reference) + ['--between-set', *sets] * bool(sets)


def table_commands(folder):
    """The commands that write the tables of every results file into a folder."""
    for name in FILES:
        out = f'{folder}/{name.replace("/", "_")}'
        outputs = ['--csv', f'{out}.csv', '--markdown', f'{out}.md', '--html', f'{out}.html']
        yield ['scripts/analyze_results.py', f'results/{name}.h5', *judged(name), *outputs, '-v', '2']


def figure_commands():
    """The commands that make the figures of results files, from the root of the checkout."""
    for picture, (name, kind) in FIGURES.items():
        yield ['scripts/plot_results.py', f'results/{name}.h5', '--kind', kind, *judged(name), '-o', f'results/{picture}.png']


def main(argv):
    parser = Parser('make_results', __doc__)
    parser.add_argument('--numbers', action='store_true', help='leave the figures as they are')
    parser.add_argument('--check', action='store_true', help='compare the pages with the files and change nothing')
    parser.add_argument('--tables', metavar='DIR', help='also write the tables of every results file into this folder')
    args = parser.parse_args(argv)
    tables = args.tables and os.path.abspath(args.tables)
    os.chdir(ROOT)
    if tables:
        os.makedirs(tables, exist_ok=True)
    draws = not (args.numbers or args.check)
    for command in [*(table_commands(tables) if tables else ()), *(figure_commands() if draws else ())]:
        print('python', shlex.join(command), flush=True)
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    for picture, (folders, words) in CURVES.items() if draws else ():
        if all(os.path.isdir(f'results/{f}') for f in folders):
            print(f'draws results/{picture}.png from the logs in {", ".join(folders)}', flush=True)
            draw_curves([f'results/{folder}' for folder in folders], PAPER, f'results/{picture}.png', words)
    if draws:
        for picture, (files, of_2016, steps) in GAIL.items():
            print(f'draws results/{picture}.png', flush=True)
            draw_gail([f'results/{f}.h5' for f in files], f'results/{of_2016}.h5', PAPER, f'results/{picture}.png', steps)
        print('draws results/sample_efficiency.png from results/peers/halfcheetah.csv', flush=True)
        draw_efficiency('results/peers/halfcheetah.csv', 'results/sample_efficiency.png')
    blocks, stale = Blocks('results', FILES, PAPER, OTHERS, WHOLE), []
    for path in [Path('README.md'), *sorted(Path('results').glob('*.md'))]:
        if (text := path.read_text(encoding='utf-8')) != (made := fill(text, blocks.make, path)):
            stale.append(str(path))
            if not args.check:
                write_text(str(path), made)
    if args.check and stale:
        raise RunFailed(f'{", ".join(stale)}: other numbers than the shipped files give; run tools/results/make_results.py --numbers')
    print('the pages agree with the files' if args.check else f'changed: {", ".join(stale) or "no page"}')


if __name__ == '__main__':
    sys.exit(run_main('make_results', main))
