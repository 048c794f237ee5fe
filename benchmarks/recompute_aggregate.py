"""The aggregate of the classic table once more, with pandas and statsmodels, sharing no code with what it checks.

    pip install pandas statsmodels        # into an environment of its own; nothing else here needs them
    python tools/results/make_results.py --numbers --tables tables
    python benchmarks/recompute_aggregate.py tables

Reads the tables of results, five_sets, bclone_twenty_sets and linear_sets of results/classic-2016-experts and the paper's CSV files, prints
both versions of every number of the whole table and of the files with most sets, and exits with 1 when two differ by more than 1e-9
(absolute; the CSV files keep ten digits).
"""
# pyright: reportMissingImports=false

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.weightstats import _tconfint_generic, _zstat_generic2

ROOT = Path(__file__).resolve().parent.parent
CELL = ['task', 'alg', 'num_trajs']
CEILING, PRIOR_DF = 0.02, 4


def scores(path, scale):
    """Runs with their normalised return."""
    runs = pd.read_csv(path).merge(scale, on='task')
    width = runs.expert_return_mean - runs.random_return_mean
    return runs.assign(score=(runs.return_mean - runs.random_return_mean) / width)


def between(five):
    """One row per algorithm and task: ω² and the variance it comes from, pooled over tasks, with degrees of freedom."""
    rows = []
    for (alg, task), block in five.groupby(['alg', 'task']):
        z = block.groupby(['dataset', 'num_trajs']).score.mean().groupby('dataset').mean()
        noise = 0.0
        for _, cell in block.groupby('num_trajs'):
            if len(cell) == cell.dataset.nunique():  # one run a set: what runs vary stays in ω²
                continue
            table = anova_lm(ols('score ~ C(dataset)', cell).fit())
            noise += table.loc['Residual', 'mean_sq'] * (1 / cell.groupby('dataset').size()).mean()
        spread, sizes = z.var(), block.num_trajs.nunique()
        ceiling = ((block.score - 1).abs() <= CEILING).all()
        rows.append({'alg': alg, 'task': task, 'var': spread - noise / sizes**2, 'spread': spread, 'f': len(z) - 1, 'ceiling': ceiling})
    own = pd.DataFrame(rows).set_index(['alg', 'task'])
    free = own[~own.ceiling]
    prior = free.groupby('alg').apply(lambda g: pd.Series({c: np.average(g[c], weights=g.f) for c in ('var', 'spread')} | {'f': g.f.sum()}))
    out = own.copy()
    for (alg, task), b in free.iterrows():
        p = prior.loc[alg]
        f0 = min(PRIOR_DF, p.f - b.f)
        out.loc[(alg, task), ['var', 'spread']] = [(b.f * b[c] + f0 * p[c]) / (b.f + f0) for c in ('var', 'spread')]
        out.loc[(alg, task), 'f'] = b.f + f0
    return out.assign(var=out['var'].clip(lower=0))


def row(cells, sets):
    """difference, se, df of some cells: a frame with one line per cell, all with as many expert sets of ours; the paper has one."""
    num = len(cells)
    parts = pd.concat([cells.v_ours / num**2, cells.v_ref / num**2])
    dofs = pd.concat([cells.f_ours, cells.f_ref])
    parts, dofs = parts[dofs > 0], dofs[dofs > 0]
    share = cells.groupby(['alg', 'task']).size() / num
    sets = sets.join(share.rename('share'), how='inner')
    times = (1 / cells.sets_ours.iloc[0] + 1) * sets.share**2
    v, spread = times * sets['var'], times * sets.spread
    total = parts.sum() + v.sum()
    df = total**2 / ((parts**2 / dofs).sum() + (spread**2 / sets.f).sum())
    return cells['diff'].mean(), np.sqrt(total), max(df, sets.f.min() if len(sets) else 1.0)


def cell_stats(runs):
    """Per cell: mean, its variance from what runs on one set vary, degrees of freedom of that, and the number of sets."""
    of_set = runs.groupby([*CELL, 'dataset']).score.transform('mean')
    cells = runs.assign(sq=(runs.score - of_set) ** 2).groupby(CELL).agg(
        mean=('score', 'mean'), size=('score', 'size'), ss=('sq', 'sum'), sets=('dataset', 'nunique')
    )  # fmt: skip
    f = cells['size'] - cells.sets
    return pd.DataFrame({'mean': cells['mean'], 'v': cells.ss / f / cells['size'], 'f': f, 'sets': cells.sets})


def compare(ours, paper, sets, printed):
    """The largest difference between a shipped aggregate and the same computed here."""
    cells = cell_stats(ours).add_suffix('_ours').join(cell_stats(paper.assign(dataset=0)).add_suffix('_ref'), how='inner').reset_index()
    cells = cells.assign(diff=cells.mean_ours - cells.mean_ref)
    wanted = printed[printed.alg.notna()]
    worst = 0.0
    for _, p in wanted.iterrows():
        mine = cells[(cells.alg == p.alg) & ((cells.task == p.task) | pd.isna(p.task))]
        diff, se, df = row(mine, sets)
        if se == 0:
            continue
        lo90, hi90 = _tconfint_generic(diff, se, df, 0.10, 'two-sided')
        lo95, hi95 = _tconfint_generic(diff, se, df, 0.05, 'two-sided')
        tost = max(t.sf((diff + p.margin) / se, df), t.cdf((diff - p.margin) / se, df))
        two_sided = 2 * t.sf(abs(_zstat_generic2(diff, se, 'two-sided')[0]), df)
        again = {
            'difference': diff,
            'se': se,
            'df': df,
            'lo90': lo90,
            'hi90': hi90,
            'lo95': lo95,
            'hi95': hi95,
            'tost_p': tost,
            'p': two_sided,
        }
        for name, value in again.items():
            gap = abs(value - p[name])
            worst = max(worst, gap / max(1.0, abs(value)))
        task = '' if pd.isna(p.task) else p.task
        print(f'{p.alg:8s} {task:12s} {diff:+.10f} {p.difference:+.10f}  se {se:.10f} {p.se:.10f}  df {df:.6f} {p.df:.6f}')
    return worst


def main(tables):
    def table(name):
        return Path(tables) / f'classic-2016-experts_{name}.csv'

    scale = pd.read_csv(ROOT / 'results/paper/tasks.csv')
    ours, five, twenty, linear = (scores(table(n), scale) for n in ('results', 'five_sets', 'bclone_twenty_sets', 'linear_sets'))
    paper = scores(ROOT / 'results/paper/results_per_run.csv', scale)
    most = between(pd.concat([five[five.alg != 'bclone'], twenty, linear]))  # of each algorithm the file with most sets
    worst = max(
        compare(runs, paper, sets, pd.read_csv(table(f'{name}_aggregate')))
        for name, runs, sets in (('results', ours, most), ('bclone_twenty_sets', twenty, most), ('linear_sets', linear, most))
    )
    print(f'largest difference: {worst:.1e}')
    return int(not worst <= 1e-9)


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
