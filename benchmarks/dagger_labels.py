"""How many expert labels DAgger and cloning need on cartpole and mountaincar: a CSV of every policy, a figure, and the numbers.

    python benchmarks/dagger_labels.py results/dagger [--seeds 5] [--tasks cartpole mountaincar] [--every 20]

Cloning learns from 1, 2, 4, … expert trajectories; DAgger from one, and then from one episode of its own in each of 10 rounds. Of every
episode each pair is kept, or every N-th as in pipelines/classic.yaml, or every 20th (--every: only these); labels are the pairs that are
kept. Every seed has an expert set of its own, with which both begin. Both train with 90% of their pairs and with as many Adam steps;
DAgger's policies are those at the ends of its rounds, which have had fewer. `dagger_full` (every 20th pair only) trains as many steps in
each round as cloning in all; the paper's DAgger fits a new policy to all labels so far, ours goes on with the same net. Cloning is judged
by its weights of highest valacc and, as `bclone_last`, by its last ones, as DAgger is. A score is (return − random) / (expert − random)
of 50 episodes with the most likely actions. A seed needs the labels from which on its score stays at 0.95 or more. Policies that the CSV
has are not trained again.
"""

import csv
import functools
import itertools
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.command_line import Parser, run_main
from policyopt.files.atomic import write_text
from policyopt.reporting.figures import STYLE, WIDE, figure, outside_legend, styles_of
from policyopt.shipped import shipped

KEPT = {'cartpole': (20, 10, 1), 'mountaincar': (20, 5, 1)}  # every N-th pair
ALGORITHMS = ('bclone', 'bclone_last', 'dagger', 'dagger_full')
STEPS, ROUNDS, EPISODES, REACHED = 5500, 10, 50, 0.95
COLUMNS = ('task', 'algorithm', 'every', 'trajectories', 'seed', 'labels', 'return', 'score')


def sizes(every):
    """Numbers of trajectories that cloning learns from."""
    return {1: (1, 2, 4), 20: (4, 7, 10, 14, 20, 28, 40)}.get(every, (1, 2, 4, 7, 10, 20))


def baselines():
    """{task: row of results/classic/tasks.csv}: env, expert, returns over 500 episodes."""
    with open(shipped('results/classic/tasks.csv'), encoding='utf-8') as f:
        return {row['task']: row for row in csv.DictReader(f)}


def learner(mode, base, expert, every, num, seed, steps=STEPS) -> Any:
    """The optimiser of a run of so many Adam steps, at its start."""
    import policyopt as po
    from policyopt import training

    demos = po.Demonstrations.record(expert, base['env'], num, seed=seed)
    mdp = po.MDP(base['env'])
    own = {'dagger_rounds': ROUNDS, 'expert': base['policy']} if mode == 'dagger' else {}
    options = training.resolved(
        po.ImitationOptions(
            mode=mode,
            data_subsamp_freq=every,
            max_iter=steps,
            seed=seed,
            bclone_train_frac=0.9,
            bclone_eval_freq=100,
            sim_batch_size=1,
            **own,
        )
    )
    return training.imitation_run(options, mdp, training.expert_pairs(options, demos, mdp, 'demos'), expert if own else None).opt


def cloned(base, expert, every, num, seed):
    """Yield (algorithm, trajectories, labels, policy) of one run of cloning."""
    opt = learner('bclone', base, expert, every, num, seed)
    best, weights = -np.inf, {}
    for _ in range(STEPS):
        fields = {name: value for name, value, _ in opt.step()}
        if fields['valacc'] is not None and fields['valacc'] > best:
            best, weights = fields['valacc'], opt.policy.export()
    labels = len(opt.train_rows) + len(opt.val_rows)
    yield 'bclone_last', num, labels, opt.policy
    opt.policy.load(weights, 'the best weights')
    yield 'bclone', num, labels, opt.policy


def rounds_of_dagger(base, expert, every, num, seed, name='dagger', steps=STEPS):
    """Yield (name, episodes, labels, policy) at the end of each round."""
    opt = learner('dagger', base, expert, every, num, seed, steps)
    for played in range(1, ROUNDS + 2):
        while opt.iteration < played * steps // (ROUNDS + 1):
            opt.step()
        yield name, played, len(opt.obs_N_Do), opt.policy


RUNS = {
    'bclone': cloned,
    'dagger': rounds_of_dagger,
    'dagger_full': functools.partial(rounds_of_dagger, name='dagger_full', steps=STEPS * (ROUNDS + 1)),
}


def measure(args, rows, save):
    import torch

    import policyopt as po

    torch.set_grad_enabled(False)
    there = {tuple(row[k] for k in COLUMNS[:5]) for row in rows}
    for seed, task, algorithm in itertools.product(range(args.seeds), args.tasks, RUNS):
        base = baselines()[task]
        expert = po.load_policy(shipped(base['policy']))
        mean, random = (float(base[k]) for k in ('expert_return_mean', 'random_return_mean'))
        for every in KEPT[task]:
            if every not in args.every or (algorithm == 'dagger_full' and every != 20):
                continue
            for num in sizes(every) if algorithm == 'bclone' else (1,):
                if (task, algorithm, str(every), str(num), str(seed)) in there:
                    continue
                for name, played, labels, policy in RUNS[algorithm](base, expert, every, num, seed):
                    ret = po.evaluate(policy, base['env'], EPISODES, seed=seed).returns.mean()
                    values = (task, name, every, played, seed, labels, f'{ret:.6g}', f'{(ret - random) / (mean - random):.6g}')
                    rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
                    print(*values, flush=True)
                save(rows)


def needed(rows, task, algorithm, every, stays=True):
    """Of each seed that was tried, the labels from which on its score stays at REACHED or more (stays False: at which it first is).

    Infinite where it does not.
    """
    mine = [r for r in rows if (r['task'], r['algorithm'], r['every']) == (task, algorithm, str(every))]
    found = []
    for seed in sorted({r['seed'] for r in mine}):
        points = sorted((int(r['trajectories']), int(r['labels']), float(r['score'])) for r in mine if r['seed'] == seed)
        good = [score >= REACHED for _, _, score in points]
        found.append(next((labels for i, (_, labels, _) in enumerate(points) if (all(good[i:]) if stays else good[i])), np.inf))
    return found


def summary(rows, tasks, stays=True):
    """A table of the labels `needed`: medians over the seeds, in brackets each of them; last, the best DAgger's ÷ the best cloning's."""
    lines = [f'| task | pairs kept | {" | ".join(ALGORITHMS)} | dagger ÷ bclone |', '|---|---|---|---|---|---|---|']
    for task, every in [(name, every) for name in tasks for every in KEPT[name]]:
        by = {a: sorted(needed(rows, task, a, every, stays)) for a in ALGORITHMS}
        cells = [f'{_word(np.median(some))} ({", ".join(map(_word, some))})' if some else '' for some in by.values()]
        cloning, mine = (min(np.median(by[a]) for a in by if a.startswith(kind) and by[a]) for kind in ('bclone', 'dagger'))
        ratio = f'{mine / cloning:.2f}' if np.isfinite([cloning, mine]).all() else '–'
        lines.append(f'| {task} | {"each" if every == 1 else f"every {every}th"} | {" | ".join(cells)} | {ratio} |')
    return '\n'.join(lines)


def _word(labels):
    return f'{labels:.0f}' if np.isfinite(labels) else '–'


@matplotlib.rc_context(STYLE)
def draw(rows, tasks, path):
    """A panel per task: bars of the median labels `needed`, by how many pairs are kept; a dot per seed, a cross where some need more."""
    base = styles_of(['bclone', 'dagger'])
    looks = {  # the second of each pair is paler
        'bclone': ('cloning, best weights', base['bclone']['color'], 0.9),
        'bclone_last': ('cloning, last weights', base['bclone']['color'], 0.4),
        'dagger': ('DAgger', base['dagger']['color'], 0.9),
        'dagger_full': ('DAgger, fitted anew', base['dagger']['color'], 0.4),
    }
    fig, axes = figure(WIDE, 3.8, 1, len(tasks))
    for ax, task in zip(axes[0], tasks, strict=True):
        by = {(a, e): np.array(needed(rows, task, a, e)) for a, e in itertools.product(ALGORITHMS, KEPT[task])}
        top = 1.12 * max(x[np.isfinite(x)].max(initial=0) for x in by.values())
        for (i, algorithm), (j, every) in itertools.product(enumerate(ALGORITHMS), enumerate(KEPT[task])):
            found, (name, colour, alpha) = by[algorithm, every], looks[algorithm]
            if not found.size:
                continue
            x, done = j + 0.2 * (i - 1.5), found[np.isfinite(found)]
            ax.bar(x, np.median(found) if np.isfinite(np.median(found)) else 0, 0.18, color=colour, alpha=alpha, label=name)
            ax.plot(np.full(done.size, x), done, '.', color='black', markersize=4, alpha=0.6)
            if lost := found.size - done.size:
                ax.plot(x, top, 'x', color='#B00020', markersize=6, clip_on=False)
                ax.annotate(str(lost), (x, top), (0, 4), textcoords='offset points', ha='center', fontsize=10, annotation_clip=False)
        ax.set_xticks(range(len(KEPT[task])), ['each pair' if e == 1 else f'every {e}th' for e in KEPT[task]])
        ax.set_title(task, pad=18)
        ax.set_ylim(0, top)
        ax.grid(axis='x', visible=False)
    axes[0][0].set_ylabel('expert labels needed')
    outside_legend(fig, axes, 4)
    fig.savefig(path, dpi=150)


def main(argv):
    parser = Parser('dagger_labels', __doc__)
    parser.add_argument('folder', help='where labels.csv and labels.png go')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--tasks', nargs='+', choices=list(KEPT), default=list(KEPT))
    kept = sorted(set(itertools.chain(*KEPT.values())))
    parser.add_argument('--every', nargs='+', type=int, choices=kept, default=kept, help='train only where every N-th pair is kept')
    args = parser.parse_args(argv)
    table = Path(args.folder) / 'labels.csv'
    rows = list(csv.DictReader(table.open(encoding='utf-8'))) if table.exists() else []

    def save(rows):
        write_text(str(table), '\n'.join([','.join(COLUMNS), *(','.join(row[k] for k in COLUMNS) for row in rows)]) + '\n')

    measure(args, rows, save)
    draw(rows, args.tasks, Path(args.folder) / 'labels.png')
    print(f'labels from which on a score stays at {REACHED} or more:\n{summary(rows, args.tasks)}')
    print(f'\nlabels at which it first is:\n{summary(rows, args.tasks, stays=False)}')


if __name__ == '__main__':
    sys.exit(run_main('dagger_labels', main))
