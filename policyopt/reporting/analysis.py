"""Statistics of a results table: its cells with their intervals, and every cell beside a published one.

A cell is (task, algorithm, dataset size). Nothing here knows results files: rows and tasks are objects with the columns of the tables
/results and /tasks as attributes. Symbols are those of `statistics`; R counts bootstrap resamples, E episodes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from policyopt.errors import UserError
from policyopt.files.names import MAX_ID, MAX_RUNS, id_of, sweep
from policyopt.files.results_file import likeliest_actions
from policyopt.files.yamlfile import parse_yaml
from policyopt.provenance import derive_seed
from policyopt.reporting.reference import Baseline, CellKey, Reference
from policyopt.reporting.statistics import (
    LEVEL,
    NAN,
    detectable_difference,
    holm,
    permutation_p,
    predict_one_set,
    prob_improvement,
    sd,
    set_margin,
    sets_of,
    t_margin,
    welch,
)
from policyopt.reproduction.aggregate import aggregate, pairs_of
from policyopt.reproduction.failures import failures_of
from policyopt.reproduction.negative_controls import controls
from policyopt.shipped import as_typed

if TYPE_CHECKING:
    from policyopt.reporting.statistics import Sets
    from policyopt.reproduction.failures import Failures
    from policyopt.reproduction.negative_controls import Control

NUM_BOOTSTRAP = 4000


@dataclasses.dataclass
class Cell:
    """One cell with its statistics; intervals are (NaN, NaN) where one run cannot give any.

    `margin` takes runs for independent; `margin_sets` is over expert sets, NaN where there is one.
    """

    key: CellKey
    rows: list
    y_N: np.ndarray
    set_N: np.ndarray
    episodes: int
    mean: float
    margin: float
    margin_sets: float
    sd_runs: float
    sd_episodes: float
    iqm: float
    iqm_lo: float
    iqm_hi: float
    length_mean: float
    percent_expert: float

    @property
    def half_width(self) -> float:
        """Half width of the 95% interval that is shown: over expert sets where there are several, else over runs."""
        return self.margin_sets if math.isfinite(self.margin_sets) else self.margin


@dataclasses.dataclass
class Comparison:
    """One of our cells against the reference; `p` is the one that `judged_by` names, `p_holm` decides the verdict."""

    key: CellKey
    ref: Reference
    diff: float
    welch_p: float = NAN
    perm_p: float = NAN
    prob_improvement: float = NAN
    num_sets: int = 1
    sd_within: float = NAN
    sd_between: float = NAN
    between_from: str = ''
    pred_lo: float = NAN
    pred_hi: float = NAN
    pred_df: float = NAN
    pred_p: float = NAN
    p: float = NAN
    judged_by: str = 'none'
    welch_holm: float = NAN
    perm_holm: float = NAN
    p_holm: float = NAN
    verdict: str = 'not testable'
    detectable: float = NAN
    detectable_holm: float = NAN
    detectable_score: float = NAN
    rejectable: bool = True
    half_95: float = NAN  # half width of the 95% interval of the deciding test, and at the level of Holm's first step
    half_holm: float = NAN
    note: str = ''


@dataclasses.dataclass
class Analysis:
    """Everything that the tables, the pictures and the report show."""

    cells: dict[CellKey, Cell]
    baselines: dict[str, Baseline]
    comparisons: dict[CellKey, Comparison]
    ref_baselines: dict[str, Baseline]
    missing: list[str]
    notes: list[str]
    reference: Mapping[CellKey, Reference] = dataclasses.field(default_factory=dict)
    sources: list = dataclasses.field(default_factory=list)
    title: str = ''

    @property
    def scales(self) -> dict[str, Baseline]:
        """{task: Baseline} that normalises: the reference's, ours for a task that it has none of."""
        return {task: self.ref_baselines.get(task, b) for task, b in self.baselines.items()}

    @functools.cached_property
    def aggregate(self) -> Any:
        """The Aggregate over all cells, or None without a reference."""
        return aggregate({k: (c.y_N, c.set_N) for k, c in self.cells.items()}, self.reference, self.scales, self.sources)

    @functools.cached_property
    def controls(self) -> list[Control]:
        """Negative controls of the aggregate's verdict."""
        return controls(self.aggregate) if self.aggregate else []

    @functools.cached_property
    def failures(self) -> list[Failures]:
        """Failed runs per algorithm and task, [] without a reference."""
        tables = [{k: (c.y_N, c.set_N) for k, c in self.cells.items()}, *self.sources]
        scores = [{k: (self.scales[k.task].score(y), s) for k, (y, s) in t.items() if k.task in self.scales} for t in tables]
        return failures_of(self.aggregate.pairs, scores) if self.aggregate else []

    def without_scores(self) -> str:
        """Why returns of some tasks cannot be normalised, and what to do, as a sentence; empty when all can."""
        tasks = [t for t, b in self.baselines.items() if not math.isfinite(float(b.score(0.0)))]
        unmeasured = [t for t in tasks if not self.baselines[t].random_episodes]
        if unmeasured:
            return (
                f'no scores for {", ".join(unmeasured)}: the results hold no random-policy returns; evaluate the campaign again '
                '(stage 2_eval of im_pipeline.py measures and stores them)'
            )
        return f'no scores for {", ".join(tasks)}: the expert earns there what the random policy earns' if tasks else ''


# --- one cell -------------------------------------------------------------------------------------------------------


def run_id(row: Any) -> str:
    """The name of a run, as its file has it."""
    return id_of(row.alg, row.task, int(row.num_trajs), int(row.run))


def iqm(x: Any) -> Any:
    """Interquartile mean along the last axis: the mean without the lowest and the highest quarter (rounded down)."""
    return stats.trim_mean(x, 0.25, axis=-1)


def iqm_interval(y_N: np.ndarray, set_N: np.ndarray, seed: int, num: int = NUM_BOOTSTRAP) -> tuple[float, ...]:
    """Percentile bootstrap 95% interval of the interquartile mean over runs, stratified by expert set.

    Runs are redrawn within their own set, so every resample has the sets in the proportions of the data. Where some set
    has a single run, that would freeze it: then runs are redrawn over all sets.
    """
    y_N, set_N = np.asarray(y_N, float), np.asarray(set_N)
    if y_N.size < 2:
        return NAN, NAN
    strata = [np.flatnonzero(set_N == s) for s in np.unique(set_N)]
    if min(len(s) for s in strata) < 2:
        strata = [np.arange(y_N.size)]
    rng = np.random.default_rng(seed)
    idx_R_N = np.concatenate([s[rng.integers(len(s), size=(num, len(s)))] for s in strata], axis=1)
    return tuple(float(q) for q in np.quantile(iqm(y_N[idx_R_N]), [LEVEL / 2, 1 - LEVEL / 2]))


def _checked(rows: list) -> dict[str, Any]:
    """Rows by run name, after refusing what no statistic survives."""
    by_name = {}
    for row in rows:
        name = run_id(row)
        if name in by_name:
            raise UserError(f'{name}: appears twice in the results; give every campaign its own file')
        r_E = np.asarray(row.alg_traj_returns, float)
        if not r_E.size:
            raise UserError(f'{name}: has no evaluation episodes; evaluate that run again')
        bad = np.flatnonzero(~np.isfinite(r_E))
        if bad.size:
            raise UserError(
                f'{name}: return {r_E[bad[0]]} in evaluation episode {bad[0]} ({bad.size} of {r_E.size} are not finite); '
                'train that run again or take it out of the results'
            )
        by_name[name] = row
    if not by_name:
        raise UserError('the results hold no runs; evaluate a campaign first (stage 2_eval)')
    return by_name


def _grouped(by_name: dict[str, Any]) -> dict[CellKey, list]:
    """{CellKey: runs in their order}, tasks and algorithms in the order they first appear, dataset sizes ascending."""
    rows = list(by_name.values())
    tasks, algs = (list(dict.fromkeys(getattr(r, f) for r in rows)) for f in ('task', 'alg'))
    groups = {}
    for row in sorted(rows, key=lambda r: (tasks.index(r.task), algs.index(r.alg), r.num_trajs, r.run)):
        groups.setdefault(CellKey(row.task, row.alg, int(row.num_trajs)), []).append(row)
    return groups


def _run_means(runs: list) -> tuple[np.ndarray, np.ndarray]:
    """(y_N, set_N): mean return and expert set of every run."""
    return np.array([np.mean(r.alg_traj_returns) for r in runs]), np.array([int(r.dataset) for r in runs])


def cells_of(by_name: dict[str, Any], baselines: Mapping[str, Baseline]) -> dict[CellKey, Cell]:
    """{CellKey: Cell} with all statistics of the rows that `_checked` let through."""
    cells = {}
    for key, runs in _grouped(by_name).items():
        y_N, set_N = _run_means(runs)
        r_E = np.concatenate([np.asarray(r.alg_traj_returns, float) for r in runs])
        lo, hi = iqm_interval(y_N, set_N, derive_seed('iqm', *key))
        percent = 100 * float(baselines[key.task].score(y_N.mean()))
        cells[key] = Cell(
            key,
            runs,
            y_N,
            set_N,
            r_E.size,
            mean=float(y_N.mean()),
            margin=t_margin(sd(y_N), y_N.size),
            margin_sets=set_margin(y_N, set_N),
            sd_runs=sd(y_N),
            sd_episodes=sd(r_E),
            iqm=float(iqm(y_N)),
            iqm_lo=lo,
            iqm_hi=hi,
            length_mean=float(np.mean(np.concatenate([r.alg_traj_lengths for r in runs]))),
            percent_expert=percent,
        )
    return cells


def baselines_of(rows: list, tasks: list) -> dict[str, Baseline]:
    """{task: Baseline} from the task table; expert returns from the rows themselves for a task that it lacks."""
    table = {t.task: t for t in tasks}
    found = {}
    for task in dict.fromkeys(row.task for row in rows):
        t = table.get(task)
        expert = _finite(t.ex_traj_returns) if t else np.empty(0)
        if not expert.size:
            first_of_set = {int(r.dataset): r.ex_traj_returns for r in reversed(rows) if r.task == task}
            expert = _finite(np.concatenate([np.asarray(x, float).ravel() for x in first_of_set.values()]))
        random = _finite(t.random_returns) if t else np.empty(0)
        found[task] = Baseline(task, getattr(t, 'env', ''), *_moments(expert), *_moments(random))
    return found


def _finite(x: Any) -> np.ndarray:
    x = np.asarray([] if x is None else x, float).ravel()
    return x[np.isfinite(x)]


def _moments(x: Any) -> tuple[float, float, int]:
    return (float(x.mean()), sd(x), x.size) if x.size else (NAN, NAN, 0)


def missing_runs(rows: list, expected: list[str] | None = None) -> list[str]:
    """Names of runs that should be there: `expected`, or per task every algorithm × size × run index seen in it."""
    seen = {run_id(r) for r in rows}
    if expected is None:
        expected = []
        for task in dict.fromkeys(r.task for r in rows):
            algs, sizes, runs = (sorted({getattr(r, f) for r in rows if r.task == task}) for f in ('alg', 'num_trajs', 'run'))
            if len(expected) + len(algs) * len(sizes) * len(runs) > MAX_RUNS:
                raise UserError(f'the rows of the results span more than {MAX_RUNS} runs; expected those of one experiment')
            expected += [id_of(a, task, int(n), int(i)) for a in algs for n in sizes for i in runs]
    return [name for name in expected if name not in seen]


# --- ours against theirs ---------------------------------------------------------------------------------------------


def compare(cell: Cell, ref: Reference, between: Sets | None = None, between_from: str = '') -> tuple[Comparison, float, float]:
    """One cell against its reference, before the correction for the number of cells.

    Judged by the prediction for one expert set ('sets') where σ_b² is identifiable; else by Welch's t ('welch'), which takes
    runs on one set for independent. Without any variance: equal means are consistent, unequal ones go to the permutation test.
    """
    out = Comparison(cell.key, ref, cell.mean - ref.mean)
    if ref.y_M is not None:
        out.perm_p = permutation_p(cell.y_N, ref.y_M, derive_seed('perm', *cell.key)) if min(cell.y_N.size, ref.m) > 1 else NAN
        out.prob_improvement = prob_improvement(cell.y_N, ref.y_M)
    out.welch_p, se, df = welch(cell, ref)
    notes = ['one run on a side: t test with pooled variance'] if min(cell.y_N.size, ref.m) == 1 and math.isfinite(se) else []
    ours = sets_of(cell.y_N, cell.set_N)
    out.num_sets = ours.num_sets
    pred = predict_one_set(ours, ref.m, between, ref.sd)
    if pred:
        out.sd_within, out.sd_between, out.pred_df = pred.sd_within, pred.sd_between, pred.df
        out.between_from = f'{pred.num_sets} sets' + ('' if ours.num_sets > 1 else f' of {between_from}')
        half = float(stats.t.ppf(1 - LEVEL / 2, pred.df)) * pred.se
        out.pred_lo, out.pred_hi = cell.mean - half, cell.mean + half
        out.pred_p = float(2 * stats.t.sf(abs(out.diff) / pred.se, pred.df)) if pred.se > 0 else NAN
        if pred.num_sets == 2:
            notes.append('two expert sets: the between-set variance has one degree of freedom')
    if pred and math.isfinite(out.pred_p):
        out.p, out.judged_by, se, df = out.pred_p, 'sets', pred.se, pred.df
    elif math.isfinite(out.welch_p):
        out.p, out.judged_by = out.welch_p, 'welch'
    elif cell.y_N.size + ref.m < 3:
        notes.append('one run each: no test exists')
    elif np.isclose(cell.mean, ref.mean, rtol=1e-5):
        out.p, out.judged_by = 1.0, 'equal'
        notes.append('no variance on either side, equal means')
    else:
        out.p, out.judged_by = out.perm_p, 'permutation' if math.isfinite(out.perm_p) else 'none'
        notes.append('no variance on either side, means differ')
    out.detectable = detectable_difference(se, df)
    out.note = '; '.join(notes)
    return out, se, df


def analyze(
    rows: list,
    tasks: list,
    reference: Mapping[CellKey, Reference] | None = None,
    ref_baselines: dict[str, Baseline] | None = None,
    between: Iterable[tuple[str, list]] = (),
    expected: list[str] | None = None,
    title: str = '',
) -> Analysis:
    """The whole analysis of one results table.

    Args:
        rows, tasks: rows of the tables /results and /tasks.
        reference: {CellKey: Reference} from `read_reference`; shares of an expert's return are taken of ours.
        ref_baselines: {task: Baseline} from `read_reference_tasks`.
        between: [(name, rows)] of other results files with several expert sets, for the variance between sets.
        expected: names of all runs of the campaign; default: the grid that the rows span.
        title: what the pictures are headed with.
    """
    by_name = _checked(rows)
    baselines = baselines_of(list(by_name.values()), tasks)
    cells = cells_of(by_name, baselines)
    notes = []
    sources, of_cell = [], {}  # of_cell: for each cell, the file that has most expert sets of it
    for name, other_rows in between:
        sources.append({key: _run_means(runs) for key, runs in _grouped(_checked(other_rows)).items()})
        found = {key: (sets_of(*c), name) for key, c in sources[-1].items()}
        if not any(s.num_sets > 1 for s, _ in found.values()):
            raise UserError(
                f'{name}: every cell has one expert set, so the variance between sets cannot be estimated from it; '
                'sample several (training.datasets: 5 in the spec)'
            )
        of_cell |= {k: v for k, v in found.items() if k not in of_cell or v[0].num_sets > of_cell[k][0].num_sets}
    experts = {task: b.expert_mean for task, b in baselines.items()}
    published = {k: ref.in_returns(experts.get(k.task, NAN)) for k, ref in (reference or {}).items()}
    results = [compare(c, published[k], *of_cell.get(k, (None, ''))) for k, c in cells.items() if k in published]
    compared = [r[0] for r in results]
    for field, raw in (('p_holm', 'p'), ('welch_holm', 'welch_p'), ('perm_holm', 'perm_p')):
        for c, p in zip(compared, holm([getattr(c, raw) for c in compared]), strict=True):
            setattr(c, field, float(p))
    missing = missing_runs(list(by_name.values()), expected)
    analysis = Analysis(cells, baselines, {c.key: c for c in compared}, ref_baselines or {}, missing, notes, published, sources, title)
    family = sum(math.isfinite(c.p) for c in compared)
    ceilings = {p.key for p in pairs_of({k: (c.y_N, c.set_N) for k, c in cells.items()}, analysis.reference, analysis.scales) if p.ceiling}
    for c, se, df in results:
        if math.isfinite(c.p_holm):
            c.verdict = 'differs' if c.p_holm < LEVEL else 'ceiling' if c.key in ceilings else 'consistent'
            c.detectable_holm = detectable_difference(se, df, LEVEL / family)
            c.half_95, c.half_holm = (float(stats.t.isf(x / 2, df)) * se if se > 0 else NAN for x in (LEVEL, LEVEL / family))
            _in_scores(c, analysis.scales[c.key.task])
    if reference is not None:
        absent = [str(k) for k in cells if k not in reference]
        if absent:
            notes.append(f'the reference has no number for {len(absent)} of our {len(cells)} cells: {_some(absent)}')
    notes += [note] if (note := analysis.without_scores()) else []
    return analysis


def _in_scores(comp: Comparison, scale: Baseline) -> None:
    """Fill in what can be found, in units of (expert − random), and whether any return between random and expert would be rejected."""
    width = abs(scale.expert_mean - scale.random_mean)
    if math.isfinite(width) and width > 0:
        comp.detectable_score = comp.detectable_holm / width
        if math.isfinite(comp.half_holm):
            comp.rejectable = comp.half_holm < max(abs(comp.ref.mean - scale.random_mean), abs(scale.expert_mean - comp.ref.mean))


def _some(names: list[str], most: int = 4) -> str:
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


# --- the campaign behind the rows -----------------------------------------------------------------------------------


def rows_of_campaign(rows: list, attrs: Mapping[str, str], run_name: str | None = None) -> list:
    """The rows, if they belong to the campaign `run_name` (None: any). Raises UserError when the file holds another one."""
    found = attrs.get('run_name')
    if run_name not in (None, found):
        raise UserError(f"--run-name {run_name}: the results are those of '{found}'; name that one, or give another file")
    return rows


def heading(results: Any, reference_path: str | None = None) -> str:
    """What a page or a picture of these results is called: the campaign, whose experts, and what it stands beside."""
    folders = dict.fromkeys(os.path.dirname(t.expert_policy.partition('.h5')[0]) for t in results.tasks if t.expert_policy)
    parts = [str(results.attrs.get('run_name') or 'results')]
    parts += [f'experts: {", ".join(folders)}'] if any(folders) else []
    parts += [] if likeliest_actions(results.attrs) else ['sampled actions']
    return '; '.join(parts + ([f'reference: {reference_path}'] if reference_path else []))


def how_played(attrs: Mapping[str, str]) -> list[str]:
    """A note for results whose policies drew their actions; a reference and other files hold the likeliest, as in the paper."""
    return (
        []
        if likeliest_actions(attrs)
        else ['Played with sampled actions (eval_deterministic: false); the paper judges the likeliest ones.']
    )


def campaign_runs(spec_text: str) -> list[str] | None:
    """Names of all runs that a campaign's YAML asks for, or None when the text does not say it.

    Raises UserError when it asks for more than MAX_RUNS, which no experiment may.
    """
    try:
        spec = parse_yaml(spec_text, 'spec')
        training = spec['training']
        tasks = [x['name'] for x in spec['tasks']]
        algs = [name for x in training['algorithms'] for name, _ in sweep(x['name'], x.get('vary', {}))]
        sizes, runs = training['dataset_num_trajs'], training['runs']
        num = len(tasks) * len(algs) * len(sizes) * runs
        longest = max((len(f'{name}') for name in (*tasks, *algs, *sizes)), default=0)
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if not isinstance(num, int) or longest > MAX_ID:
        return None
    if num > MAX_RUNS:
        raise UserError(f"the attribute 'spec' of the results asks for {num} runs; expected at most {MAX_RUNS}")
    return [id_of(a, t, n, i) for t in tasks for a in algs for n in sizes for i in range(runs)]


def repeat_commands(cells: Iterable[CellKey], attrs: Mapping[str, str]) -> dict[CellKey, str]:
    """{CellKey: the command that repeats the runs of that cell}, into a folder of its own."""
    spec = re.search(r'[^\s\'"]+\.ya?ml', attrs.get('command', '') + attrs.get('merged_from', ''))
    changes = [c for c in re.findall(r'^# --set (.+)$', attrs.get('spec', ''), re.M) if not c.startswith('options.storagedir=')]
    drawn = [f'training.seed={attrs["drawn_seed"]}'] if 'drawn_seed' in attrs else []
    words = shlex.join(['options.storagedir=repeat', *changes, *drawn])
    head = as_typed(f'im_pipeline.py {spec.group() if spec else "SPEC.yaml"} all --set {words} --only')
    return {k: f'{head} alg={k.alg} task={k.task} num_trajs={k.num_trajs}' for k in cells}
