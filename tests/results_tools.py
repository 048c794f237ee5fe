"""What the tests of tables and pictures share: results made of numbers, with the real row types."""

from pathlib import Path

import numpy as np

from policyopt.files.results_file import ResultRow, TaskRow, write_results
from policyopt.reproduction.study import Study

analyze = Study


def result_row(y_E, alg='ga', task='cartpole', num_trajs=4, run=0, dataset=0, expert=200.0):
    """One run whose evaluation episodes returned y_E."""
    y_E = np.atleast_1d(np.asarray(y_E, float))
    ex_E = np.full(3, expert)
    lengths_E = np.abs(np.nan_to_num(y_E)).astype(int)
    return ResultRow(
        alg, task, num_trajs, run, 11 + run, f'x{run}.h5/snapshots/iter0000300', dataset, ex_E, ex_E.astype(int), y_E, lengths_E
    )


def cell_rows(ys, datasets=None, **cell):
    """One run per number in ys; its two episodes lie one above and one below that mean."""
    datasets = datasets if datasets is not None else [0] * len(ys)
    return [result_row([y - 1, y + 1], run=i, dataset=int(d), **cell) for i, (y, d) in enumerate(zip(ys, datasets, strict=True))]


def task_row(task='cartpole', expert=200.0, random=20.0):
    """One task; `random` None means that nothing was measured."""
    random_E = np.full(4, np.nan if random is None else random)
    return TaskRow(task, 'CartPole-v0', 'e.h5/snapshots/iter0000100', np.full(3, expert), np.full(3, 200), random_E, np.full(4, 20))


SPEC = """
tasks: [{name: cartpole}]
training: {algorithms: [{name: bclone}, {name: ga}], dataset_num_trajs: [1, 4], runs: 3}
"""
ATTRS = {
    'spec': SPEC,
    'run_name': 'small',
    'command': 'im_pipeline.py pipelines/small.yaml 2_eval',
    'git_hash': 'abc',
    'versions': {'numpy': '2'},
}


def small_results(path, random=20.0, drop=(), nan_in=None, datasets=1, **attrs):
    """A campaign of 2 algorithms × 2 sizes × 3 runs on cartpole, written as stage 2 writes it; returns its path."""
    rows = []
    for alg, means in (('bclone', (60, 150)), ('ga', (195, 198))):
        for size, mean in zip((1, 4), means, strict=True):
            for run in range(3):
                if (alg, size, run) not in drop:
                    rows.append(result_row(mean + run + np.array([-2.0, 2.0]), alg, 'cartpole', size, run, run % datasets))
                    if (alg, size, run) == nan_in:
                        rows[-1].alg_traj_returns[1] = np.nan
    Path(path).unlink(missing_ok=True)  # finished data is never replaced
    write_results(path, rows, [task_row(random=random)], ATTRS | attrs)
    return path


def write_csv(path, columns, rows):
    """A CSV from lists; returns its path."""
    path.write_text('\n'.join(','.join(map(str, line)) for line in [columns, *rows]) + '\n')
    return path
