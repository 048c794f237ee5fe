#!/usr/bin/env python3
"""Time a stated fraction of a campaign and extrapolate to all of it, with the error of the extrapolation.

    python benchmarks/campaign.py pipelines/classic.yaml -j 2 --waves 1 [--json campaign.json]

For every algorithm and task, waves × J runs of the campaign go through the real pipeline, J at a time. A wave's wall time is what J
runs cost, start-up included; runs of one algorithm and task cost alike whatever the dataset size. Stage 0 is timed whole.
error: standard error from the spread of the timed runs within their group.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt.pipeline.spec import load_spec  # noqa: E402
from policyopt.provenance import git_hash, versions  # noqa: E402


def pipeline(spec, stage, storage, *options):
    """Wall seconds of one call of im_pipeline.py."""
    command = [sys.executable, str(REPO / 'scripts/im_pipeline.py'), spec, stage, '--resume', '-q', *options]
    start = time.perf_counter()
    done = subprocess.run([*command, '--set', f'options.storagedir={storage}'], cwd=REPO, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{" ".join(command)} failed:\n{done.stderr}')
    return time.perf_counter() - start


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('spec', nargs='?', default='pipelines/classic.yaml')
    p.add_argument('-j', '--jobs', type=int, default=2)
    p.add_argument('--waves', type=int, default=1)
    p.add_argument('--json', metavar='FILE')
    args = p.parse_args()
    spec = load_spec(args.spec)
    algs, tasks = [a.name for a in spec.training.algorithms], [t.name for t in spec.tasks]
    sizes, runs = spec.training.dataset_num_trajs, spec.training.runs
    per_group = len(sizes) * runs
    total = variance = 0.0
    rows = []
    with tempfile.TemporaryDirectory() as storage:
        stage0 = pipeline(args.spec, '0', storage)
        print(f'stage 0: {stage0:.1f} s for {len(tasks)} tasks\n{"alg":8} {"task":14} {"runs":>5} {"s per run":>10}')
        for alg in algs:
            for task in tasks:
                walls = []
                for wave in range(args.waves):
                    only = [f'alg={alg}', f'task={task}', f'num_trajs={sizes[wave % len(sizes)]}', *(f'run={r}' for r in range(args.jobs))]
                    walls.append(pipeline(args.spec, '1', storage, '-j', str(args.jobs), '--only', *only))
                mean = statistics.mean(walls)
                total += per_group / args.jobs * mean
                if len(walls) > 1:
                    variance += (per_group / args.jobs) ** 2 * statistics.variance(walls) / len(walls)
                rows.append({'alg': alg, 'task': task, 'wall_s': walls})
                print(f'{alg:8} {task:14} {args.waves * args.jobs:5d} {mean:10.1f}', flush=True)
    count, timed = per_group * len(algs) * len(tasks), args.waves * args.jobs * len(rows)
    error = f'(standard error {math.sqrt(variance) / 60:.1f})' if args.waves > 1 else '(no error: one wave)'
    print(f'{timed} of {count} runs timed; all of them with -j {args.jobs}: {total / 60:.1f} {error} minutes')
    if args.json:
        data = {'git_hash': git_hash(), 'versions': versions(), 'jobs': args.jobs, 'stage0_s': stage0, 'rows': rows, 'minutes': total / 60}
        Path(args.json).write_text(json.dumps(data, indent=1))
        print(f'written: {args.json}')


if __name__ == '__main__':
    main()
