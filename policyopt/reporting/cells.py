"""The analysis as CSV files: one row per run, and one row per cell beside it. Empty fields mean: not known, or not defined."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from policyopt.files.atomic import write_text
from policyopt.files.names import settings_of
from policyopt.reporting.statistics import POWER, sd

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Analysis, Cell
    from policyopt.reporting.reference import CellKey
    from policyopt.reproduction.aggregate import Aggregate

RUN_COLUMNS = {
    'task': 'name of the task',
    'alg': 'algorithm',
    'num_trajs': 'expert trajectories that it learned from',
    'run': 'index of the run',
    'seed': 'its seed',
    'dataset': 'its expert set',
    'snapshot': 'evaluated policy',
    'episodes': 'evaluation episodes',
    'return_mean': 'mean true return',
    'return_std': 'its standard deviation over episodes',
    'length_mean': 'mean episode length',
    'length_std': 'its standard deviation over episodes',
    'percent_expert': '100·(return_mean − random)/(expert − random)',
}

CELL_COLUMNS = {
    'task': 'name of the task',
    'alg': "algorithm; 'expert' and 'random' are the baselines (num_trajs 0)",
    'num_trajs': 'expert trajectories learned from',
    'runs': 'runs',
    'sets': 'expert sets among them',
    'episodes': 'evaluation episodes',
    'return_mean': 'mean over runs',
    'margin95': 'half width of its 95% t interval over runs',
    'margin95_sets': 'the same over expert sets; empty with one set',
    'sd_runs': 'standard deviation over runs',
    'return_std': 'standard deviation over episodes',
    'iqm': 'interquartile mean over runs',
    'iqm_lo': 'its bootstrap 95% interval, low',
    'iqm_hi': 'high',
    'length_mean': 'mean episode length',
    'percent_expert': '100·(return_mean − random)/(expert − random)',
    'ref_mean': 'reference: mean over runs',
    'ref_sd': 'standard deviation over runs',
    'ref_runs': 'runs',
    'ref_margin95': '95% half width',
    'ref_percent_expert': 'with its own expert and random returns',
    'difference': 'return_mean − ref_mean',
    'welch_p': "Welch's t over runs",
    'welch_holm': 'Holm-corrected over the table',
    'permutation_p': 'permutation test over runs',
    'permutation_holm': 'Holm-corrected',
    'prob_improvement': 'P(run of ours > run of theirs), ties half',
    'sd_within': 'between runs on one expert set',
    'sd_between': 'between sets',
    'between_from': 'expert sets that sd_between comes from',
    'predict_lo': '95% prediction interval for ONE set of ref_runs runs, low',
    'predict_hi': 'high',
    'predict_df': 'its degrees of freedom (Satterthwaite)',
    'predict_p': 'p of ref_mean under it',
    'p': 'the deciding p',
    'judged_by': 'sets, welch, equal, permutation or none',
    'p_holm': 'p, Holm-corrected over the table',
    'verdict': 'consistent (no difference found), ceiling (all runs of both sides at the expert), differs, not testable',
    'detectable': f'smallest difference seen with {POWER:.0%} power at 5%',
    'detectable_holm': 'the same at 5% / number of cells',
    'detectable_score': 'detectable_holm as a share of (expert − random)',
    'rejectable': 'whether any mean return between random and expert would be called different at that level: 1 or 0',
    'note': 'remarks',
    'command': 'repeats the runs of this cell',
}

AGGREGATE_COLUMNS = {
    'alg': 'algorithm; empty: all',
    'task': 'task; empty: all',
    'cells': 'cells that the row is a mean of, with equal weights',
    'ceiling': 'cells of them at the ceiling',
    'difference': 'ours − reference in units of (expert − random)',
    'se': 'its standard error',
    'df': 'its degrees of freedom (Satterthwaite)',
    'lo90': '90% interval, low',
    'hi90': 'high',
    'lo95': '95% interval, low',
    'hi95': 'high',
    'sets': 'what se holds: measured (runs and expert sets), runs (sets unknown for some cells), tasks or cells (their spread)',
    'p': 'two-sided t test of no difference',
    'margin': 'declared margin of equivalence',
    'tost_p': 'p of equivalence within it',
    'permutation_p': 'label permutation within cells, takes runs for exchangeable',
    'prob_improvement': 'mean over cells of P(run of ours > run of theirs)',
    'prob_improvement_lo': 'its bootstrap 95% interval, low',
    'prob_improvement_hi': 'high',
    'iqm': 'interquartile mean of our normalised runs',
    'iqm_lo': 'its bootstrap 95% interval, low',
    'iqm_hi': 'high',
    'ref_iqm': "the reference's",
    'ref_iqm_lo': 'low',
    'ref_iqm_hi': 'high',
    'verdict': 'equivalent, differs, undecided, ceiling, not testable',
}


def beside(path: str, name: str) -> str:
    """Where another table stands: beside the per-run file, `results.csv` → `results_cells.csv`, `results_aggregate.csv`."""
    root, suffix = os.path.splitext(path)
    return f'{root}_{name}{suffix}'


def columns_help() -> str:
    """What the columns of both files mean, for --help."""
    out = []
    for title, columns in (
        ('columns of --csv F, one row per run', RUN_COLUMNS),
        ('columns of F_cells, one row per cell', CELL_COLUMNS),
        ('columns of F_aggregate, beside a reference', AGGREGATE_COLUMNS),
    ):
        out += [f'{title}:', *(f'  {name:<20}{meaning}' for name, meaning in columns.items())]
    return '\n'.join(out)


def write_run_csv(path: str, analysis: Analysis) -> None:
    """One row per run; its columns are those of `results/paper/results_per_run.csv` and more, so it can serve as a reference."""

    def rows():
        for key, cell in analysis.cells.items():
            for row in cell.rows:
                r_E, len_E = np.asarray(row.alg_traj_returns, float), np.asarray(row.alg_traj_lengths, float)
                yield {
                    **key._asdict(),
                    'run': row.run,
                    'seed': row.seed,
                    'dataset': row.dataset,
                    'snapshot': row.snapshot,
                    'episodes': r_E.size,
                    'return_mean': r_E.mean(),
                    'return_std': sd(r_E),
                    'length_mean': len_E.mean(),
                    'length_std': sd(len_E),
                    'percent_expert': 100 * float(analysis.baselines[key.task].score(r_E.mean())),
                }

    _write_csv(path, RUN_COLUMNS, rows())


def write_cell_csv(path: str, analysis: Analysis, commands: Mapping[CellKey, str]) -> None:
    """One row per cell, and two per task for the expert and the random policy; it can serve as a reference (margin95, runs)."""

    def rows():
        for task, b in analysis.baselines.items():
            for who, mean, std, episodes in (
                ('expert', b.expert_mean, b.expert_sd, b.expert_episodes),
                ('random', b.random_mean, b.random_sd, b.random_episodes),
            ):
                if episodes:
                    yield {
                        'task': task,
                        'alg': who,
                        'num_trajs': 0,
                        'runs': 1,
                        'episodes': episodes,
                        'return_mean': mean,
                        'return_std': std,
                    }
            for key, c in analysis.cells.items():
                if key.task == task:
                    yield _cell_row(key, c) | _comparison_row(analysis, key) | {'command': commands.get(key, '')}

    _write_csv(path, CELL_COLUMNS, rows())


def _cell_row(key: CellKey, c: Cell) -> dict[str, Any]:
    return {
        **key._asdict(),
        'runs': c.y_N.size,
        'sets': np.unique(c.set_N).size,
        'episodes': c.episodes,
        'return_mean': c.mean,
        'margin95': c.margin,
        'margin95_sets': c.margin_sets,
        'sd_runs': c.sd_runs,
        'return_std': c.sd_episodes,
        'iqm': c.iqm,
        'iqm_lo': c.iqm_lo,
        'iqm_hi': c.iqm_hi,
        'length_mean': c.length_mean,
        'percent_expert': c.percent_expert,
    }


def _comparison_row(analysis: Analysis, key: CellKey) -> dict[str, Any]:
    c, b = analysis.comparisons.get(key), analysis.ref_baselines.get(key.task)
    if c is None:
        return {}
    same = (
        'welch_p',
        'welch_holm',
        'prob_improvement',
        'sd_within',
        'sd_between',
        'between_from',
        'p',
        'judged_by',
        'p_holm',
        'verdict',
        'detectable',
        'detectable_holm',
        'detectable_score',
        'note',
    )
    return {name: getattr(c, name) for name in same} | {
        'rejectable': int(c.rejectable),
        'ref_mean': c.ref.mean,
        'ref_sd': c.ref.sd,
        'ref_runs': c.ref.m,
        'ref_margin95': c.ref.margin,
        'difference': c.diff,
        'ref_percent_expert': 100 * float(b.score(c.ref.mean)) if b else math.nan,
        'permutation_p': c.perm_p,
        'permutation_holm': c.perm_holm,
        'predict_lo': c.pred_lo,
        'predict_hi': c.pred_hi,
        'predict_df': c.pred_df,
        'predict_p': c.pred_p,
    }


def csv_paths(path: str) -> list[str]:
    """The files of `write_csv`: per run, per cell, and per algorithm and task."""
    return [path, beside(path, 'cells'), beside(path, 'aggregate')]


def write_csv(path: str, analysis: Analysis, commands: Mapping[CellKey, str]) -> list[str]:
    """The tables per run, per cell and, beside a reference, per algorithm and task; returns the paths that were written."""
    per_run, per_cell, per_block = csv_paths(path)
    write_run_csv(per_run, analysis)
    write_cell_csv(per_cell, analysis, commands)
    if not analysis.aggregate:
        return [per_run, per_cell]
    write_aggregate_csv(per_block, analysis.aggregate)
    return [per_run, per_cell, per_block]


def write_aggregate_csv(path: str, aggregate: Aggregate) -> None:
    """One row per algorithm, per algorithm and task, per task, and over all."""

    def values(r):
        out = {name: getattr(r, name) for name in ('alg', 'task', 'se', 'df', 'sets', 'p', 'margin', 'tost_p', 'verdict')}
        out |= {'cells': r.num_cells, 'ceiling': r.num_ceiling, 'difference': r.diff, 'permutation_p': r.perm_p}
        for level in (90, 95):
            out[f'lo{level}'], out[f'hi{level}'] = r.interval(level / 100)
        for name, triple in (('prob_improvement', r.improvement), ('iqm', r.iqm), ('ref_iqm', r.ref_iqm)):
            out |= dict(zip((name, f'{name}_lo', f'{name}_hi'), triple, strict=True))
        return out

    _write_csv(path, AGGREGATE_COLUMNS, map(values, [*aggregate.algs, *aggregate.blocks, *aggregate.tasks, aggregate.whole]))


def _write_csv(path: str, columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> None:
    def plain(x):
        return '' if x is None or (isinstance(x, float) and math.isnan(x)) else f'{x:.10g}' if isinstance(x, float) else x

    text = io.StringIO()
    rows = list(rows)
    settings = [settings_of(row['alg'])[1] for row in rows]  # a sweep's have columns of their own, behind the others
    varied = dict.fromkeys(key for found in settings for key in found)
    writer = csv.DictWriter(text, [*columns, *(key for key in varied if key not in columns)], restval='', lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: plain(v) for k, v in (found | row).items()} for row, found in zip(rows, settings, strict=True))
    write_text(path, text.getvalue())
