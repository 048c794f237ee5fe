"""Expert and random returns over many episodes, as a CSV with the columns of results/paper/tasks.csv: the scale of Figure 1.

    python benchmarks/baselines.py results/classic-2016-experts/tasks.csv --count 500 \\
        cartpole CartPole-v0 expert_policies/2016/classic/CartPole-v0.h5/snapshots/iter0000100 \\
        mountaincar MountainCar-v0 expert_policies/2016/classic/MountainCar-v0.h5/snapshots/iter0000100 \\
        acrobot Acrobot-v0 expert_policies/2016/classic/Acrobot-v0.h5/snapshots/iter0000100

Experts act stochastically, as when they are recorded; the random policy is that of stage 2_eval. Rows of tasks that are not named are kept.
"""

import csv
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.command_line import Parser, run_main
from policyopt.errors import UserError
from policyopt.files.atomic import write_text

COLUMNS: tuple[str, ...] = (
    'task', 'env', 'policy', 'seed', 'expert_episodes', 'expert_return_mean', 'expert_return_std', 'expert_return_median',
    'expert_length_mean', 'random_episodes', 'random_return_mean', 'random_return_std',
)  # fmt: skip


def measured(task, env, policy_path, count, random_count, seed):
    """One row of the CSV."""
    from policyopt.evaluation import open_policy, sample_episodes
    from policyopt.sampling.mdp import sample_randomly

    policy, mdp = open_policy(policy_path, env)
    expert = sample_episodes(policy, mdp, count, seed)
    random = sample_randomly(mdp, random_count, seed)
    mdp.close()
    r, ran = expert.returns, random.returns
    numbers = [r.mean(), r.std(ddof=1), np.median(r), expert.lengths.mean()]
    row = [task, env, policy_path, seed, count, *numbers, random_count, ran.mean(), ran.std(ddof=1)]
    return dict(zip(COLUMNS, (f'{x:.6g}' if isinstance(x, float) else x for x in row), strict=True))


def main(argv):
    parser = Parser('baselines', __doc__)
    parser.add_argument('out', metavar='TASKS.csv')
    parser.add_argument('task', nargs='+', metavar='NAME ENV POLICY', help='three words for each task')
    parser.add_argument('--count', type=int, default=500, help='episodes of each expert (500)')
    parser.add_argument('--random_count', type=int, default=500, help='episodes of the random policy (500)')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    if len(args.task) % 3:
        raise UserError(f'{len(args.task)} words after the file; expected three for each task: NAME ENV POLICY')
    path = Path(args.out)
    rows: dict[str, dict[str, Any]] = {r['task']: r for r in csv.DictReader(io.StringIO(path.read_text()))} if path.exists() else {}
    for name, env, policy in zip(*(args.task[i::3] for i in range(3)), strict=True):
        rows[name] = measured(name, env, policy, args.count, args.random_count, args.seed)
        print(*rows[name].values(), flush=True)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows.values())
        write_text(args.out, text.getvalue())


if __name__ == '__main__':
    sys.exit(run_main('baselines', main))
