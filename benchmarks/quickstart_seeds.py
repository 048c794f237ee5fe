#!/usr/bin/env python3
"""What the quickstart says with other seeds, and on a processor without AVX-512: one row per base seed.

    python benchmarks/quickstart_seeds.py --folder runs/quickstart_seeds                # seeds 0 to 9 on this processor
    python benchmarks/quickstart_seeds.py --folder runs/quickstart_seeds_avx2 --avx2    # the same without AVX-512, on one that has it

Each seed is a whole run of pipelines/quickstart_2016.yaml (all three stages) in a folder of its own; called again, it goes on where it was.
A row has the mean deterministic return of every run, by algorithm and number of expert trajectories. The last lines count
the runs of `ga` with one trajectory that reach 95% of the expert (scaled so that 0 is the random policy).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.elementwise import WITHOUT_AVX512  # noqa: E402
from policyopt.files.results_file import read_results  # noqa: E402


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--folder', type=Path, required=True)
    p.add_argument('--seeds', type=int, nargs='+', default=list(range(10)))
    p.add_argument('-j', '--jobs', default='1')
    p.add_argument('--avx2', action='store_true', help='switch AVX-512 off')
    args = p.parse_args()
    env = os.environ | (WITHOUT_AVX512 if args.avx2 else {})
    reached = total = 0
    cloned = []
    for seed in args.seeds:
        folder = args.folder / f'seed{seed}'
        command = [sys.executable, str(REPO / 'scripts' / 'im_pipeline.py'), str(REPO / 'pipelines' / 'quickstart_2016.yaml'), 'all']
        command += ['--resume', '-q', '-j', args.jobs, '--seed', str(seed), '--set', f'options.storagedir={folder}']
        if not (folder / 'checkpoints' / 'results.h5').exists():
            subprocess.run(command, cwd=REPO, env=env, check=True, stdout=subprocess.DEVNULL)
        results = read_results(str(folder / 'checkpoints' / 'results.h5'))
        (task,) = results.tasks
        random, expert = task.random_returns.mean(), task.ex_traj_returns.mean()
        cells = {}
        for row in results.rows:
            cells.setdefault((row.alg, row.num_trajs), []).append(row.alg_traj_returns.mean())
        scores = [(y - random) / (expert - random) for y in cells['ga', 1]]
        reached, total = reached + sum(s >= 0.95 for s in scores), total + len(scores)
        cloned += cells['bclone', 1]
        said = '  '.join(f'{alg} {n}: ' + ' '.join(f'{y:5.1f}' for y in returns) for (alg, n), returns in sorted(cells.items()))
        print(f'seed {seed}  {said}  expert {expert:.1f}', flush=True)
    print(f'ga with one trajectory reaches 95% of the expert in {reached} of {total} runs')
    print(f'bclone with one trajectory: mean {sum(cloned) / len(cloned):.1f}')


if __name__ == '__main__':
    main()
