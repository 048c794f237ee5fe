"""Statistics of a results table: its cells with their intervals, and every cell next to a published one.

A cell is (task, algorithm, dataset size). `Analysis.read` reads files; `Analysis` itself does not: its rows and tasks are objects with
the columns of the tables /results and /tasks as attributes. Symbols are those of `statistics`; E counts episodes.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from policyopt.errors import UserError, printable
from policyopt.files.names import MAX_ID, MAX_RUNS, id_of, sweep
from policyopt.files.results_file import read_other_sets, read_results, takes_most_likely_actions
from policyopt.files.yamlfile import parse_yaml
from policyopt.provenance import derive_seed
from policyopt.reporting import statistics
from policyopt.reporting.reference import CEILING, Baseline, CellKey, Reference, at_ceiling, read_reference, read_reference_tasks
from policyopt.reporting.statistics import LEVEL, NAN, Difference, Sets, sd
from policyopt.shipped import as_typed, here_or_shipped

MARGINS = {'': 0.10, 'ga': 0.05}  # {beginning of an algorithm's name: margin as a score}; declared before the runs


class Cell:
    """One cell with its statistics; margins are NaN if there is only one run.

    `margin` treats runs as independent; `margin_sets` is over expert sets, NaN if there is only one set.
    """

    def __init__(self, key: CellKey, rows: list, baseline: Baseline):
        self.key, self.rows = key, rows
        self.y_N, self.set_N = _run_means(rows)
        self.sets = Sets(self.y_N, self.set_N)
        r_E = np.concatenate([np.asarray(r.alg_traj_returns, float) for r in rows])
        self.episodes = r_E.size
        self.mean = float(self.y_N.mean())
        self.sd_runs, self.sd_episodes = sd(self.y_N), sd(r_E)
        self.margin, self.margin_sets = statistics.t_margin(self.sd_runs, self.y_N.size), self.sets.margin
        self.length_mean = float(np.mean(np.concatenate([r.alg_traj_lengths for r in rows])))
        self.percent_expert = 100 * float(baseline.score(self.mean))

    @property
    def half_width(self) -> float:
        """Half width of the 95% interval to show: over expert sets if there are several, else over runs."""
        return self.margin_sets if math.isfinite(self.margin_sets) else self.margin


class Comparison:
    """One of our cells against the reference; `p_holm`, corrected for the number of cells, decides whether it differs.

    If σ_b² is identifiable, the cell is judged by `one_set`, the prediction for one expert set ('sets'); else by Welch's t ('welch'),
    which treats runs on one set as independent. Without any variance, equal means count as equal, and unequal means are judged by the
    permutation test. `test` is the test that `judged_by` names.
    """

    p_holm = NAN
    half_holm = NAN  # half width of the interval of `test` at the level of Holm's first step
    verdict = 'too few data'

    def __init__(self, cell: Cell, ref: Reference, scale: float, margin: float, between: Sets | None = None, between_from: str = ''):
        """scale: (expert − random); a difference divided by it is a score. margin: the margin of the verdict, as a score."""
        self.cell, self.ref, self.scale, self.margin = cell, ref, scale, margin
        n, m = cell.y_N.size, ref.m
        self.welch = self.test = statistics.welch(cell, ref)
        self.pred = statistics.predict_one_set(cell.sets, m, between, ref.sd)
        self.one_set = Difference(self.welch.diff, self.pred.se, self.pred.df)
        source = '' if cell.sets.num_sets > 1 else f' of {between_from}'
        self.between_from = f'{self.pred.num_sets} sets{source}' if self.pred.num_sets else ''
        self.perm_p = self.prob_improvement = NAN
        if ref.y_M is not None:
            self.perm_p = statistics.permutation_p(cell.y_N, ref.y_M, derive_seed('perm', *cell.key)) if min(n, m) > 1 else NAN
            self.prob_improvement = statistics.prob_improvement(cell.y_N, ref.y_M)
        notes = ['one run on a side: t test with pooled variance'] if min(n, m) == 1 and math.isfinite(self.welch.se) else []
        notes += ['two expert sets: the between-set variance has one degree of freedom'] if self.pred.num_sets == 2 else []
        self.p, self.judged_by = NAN, 'none'
        if math.isfinite(self.one_set.p):
            self.test, self.p, self.judged_by = self.one_set, self.one_set.p, 'sets'
        elif math.isfinite(self.welch.p):
            self.p, self.judged_by = self.welch.p, 'welch'
        elif n + m < 3:
            notes.append('one run each: no test exists')
        elif np.isclose(cell.mean, ref.mean, rtol=1e-5):
            self.p, self.judged_by = 1.0, 'equal'
            notes.append('no variance on either side, equal means')
        else:
            self.p, self.judged_by = self.perm_p, 'permutation' if math.isfinite(self.perm_p) else 'none'
            notes.append('no variance on either side, means differ')
        self.note = '; '.join(notes)

    @property
    def differs(self) -> bool:
        return self.p_holm < LEVEL

    @property
    def marked_verdict(self) -> str:
        return self.verdict + '*' * (self.judged_by == 'welch' and self.differs)

    @property
    def predicted(self) -> tuple[float, float]:
        """The 95% interval for the mean of one expert set of as many runs as the reference's."""
        half = self.one_set.half_width(1 - LEVEL)
        return self.cell.mean - half, self.cell.mean + half

    @property
    def estimate(self) -> tuple[float, float, float]:
        """The score difference with the ends of its 90% interval, not corrected for other cells; NaN if σ_b² is unknown."""
        half = {'sets': self.test.half_width(0.9) / self.scale, 'equal': 0.0}.get(self.judged_by, NAN)
        score = self.test.diff / self.scale
        return score, score - half, score + half


def run_id(row: Any) -> str:
    """The name of a run, as its file has it."""
    return id_of(row.alg, row.task, int(row.num_trajs), int(row.run))


def _grouped(rows: list) -> dict[CellKey, list]:
    """{CellKey: runs in their order}, tasks and algorithms in the order they first appear, dataset sizes ascending.

    Raises UserError for rows from which no statistic can be computed.
    """
    names = set()
    for row in rows:
        name = run_id(row)
        if name in names:
            raise UserError(f'{name}: appears twice in the results; give every experiment its own file')
        names.add(name)
        r_E = np.asarray(row.alg_traj_returns, float)
        if not r_E.size:
            raise UserError(f'{name}: has no evaluation episodes; evaluate that run again')
        bad = np.flatnonzero(~np.isfinite(r_E))
        if bad.size:
            raise UserError(
                f'{name}: return {r_E[bad[0]]} in evaluation episode {bad[0]} ({bad.size} of {r_E.size} are not finite); '
                'train that run again or take it out of the results'
            )
    if not rows:
        raise UserError('the results hold no runs; evaluate an experiment first (stage 2_eval)')
    tasks, algs = (list(dict.fromkeys(getattr(r, f) for r in rows)) for f in ('task', 'alg'))
    groups = {}
    for row in sorted(rows, key=lambda r: (tasks.index(r.task), algs.index(r.alg), r.num_trajs, r.run)):
        groups.setdefault(CellKey(row.task, row.alg, int(row.num_trajs)), []).append(row)
    return groups


def _run_means(runs: list) -> tuple[np.ndarray, np.ndarray]:
    """(y_N, set_N): mean return and expert set of every run."""
    return np.array([np.mean(r.alg_traj_returns) for r in runs]), np.array([int(r.dataset) for r in runs])


def baselines_of(rows: list, tasks: list) -> dict[str, Baseline]:
    """{task: Baseline} from the task table; a task that is not in the table gets its expert returns from the rows."""
    table = {t.task: t for t in tasks}
    found = {}
    for task in dict.fromkeys(row.task for row in rows):
        t = table.get(task)
        expert = _moments(getattr(t, 'ex_traj_returns', None))
        if not expert[2]:
            first_of_set = {int(r.dataset): r.ex_traj_returns for r in reversed(rows) if r.task == task}
            expert = _moments(np.concatenate([np.asarray(x, float).ravel() for x in first_of_set.values()]))
        found[task] = Baseline(task, getattr(t, 'env', ''), *expert, *_moments(getattr(t, 'random_returns', None)))
    return found


def _moments(returns: Any) -> tuple[float, float, int]:
    """(mean, standard deviation, number) of the finite returns."""
    x = np.asarray([] if returns is None else returns, float).ravel()
    x = x[np.isfinite(x)]
    return (float(x.mean()), sd(x), x.size) if x.size else (NAN, NAN, 0)


def missing_runs(rows: list, expected: list[str] | None = None) -> list[str]:
    """Names of missing runs; expected: all names; default: per task every algorithm × size × run index seen in it."""
    seen = {run_id(r) for r in rows}
    if expected is None:
        expected = []
        for task in dict.fromkeys(r.task for r in rows):
            algs, sizes, runs = (sorted({getattr(r, f) for r in rows if r.task == task}) for f in ('alg', 'num_trajs', 'run'))
            if len(expected) + len(algs) * len(sizes) * len(runs) > MAX_RUNS:
                raise UserError(f'the rows of the results span more than {MAX_RUNS} runs; expected those of one experiment')
            expected += [id_of(a, task, int(n), int(i)) for a in algs for n in sizes for i in runs]
    return [name for name in expected if name not in seen]


def begins(start: str, alg: str) -> bool:
    """Whether an algorithm's name begins with `start`, in whole words."""
    return not start or bool(re.match(rf'{re.escape(start)}(?![A-Za-z])', alg))


def margin_of(alg: str, margins: Mapping[str, float]) -> float:
    """The margin of an algorithm: that of the longest key of `margins` that begins its name, in whole words; '' begins every name."""
    return margins[max((start for start in margins if begins(start, alg)), key=len)]


class Analysis:
    """Everything that the tables, the pictures and the report show of one results table.

    Args:
        rows, tasks: rows of the tables /results and /tasks.
        reference: {CellKey: Reference} from `read_reference`; shares of an expert's return are taken of ours.
        ref_baselines: {task: Baseline} from `read_reference_tasks`.
        between: [(name, rows)] of other results files with several expert sets, for the variance between sets.
        expected: names of all runs of the experiment; default: the grid that the rows span.
        title: what the pictures are headed with.
        margins: {beginning of an algorithm's name: margin} of the verdicts, as a score; '' is that of all others.
        attrs: root attributes of the results.
    """

    def __init__(
        self,
        rows: list,
        tasks: list,
        reference: Mapping[CellKey, Reference] | None = None,
        ref_baselines: dict[str, Baseline] | None = None,
        between: Sequence[tuple[str, list]] = (),
        expected: list[str] | None = None,
        title: str = '',
        margins: Mapping[str, float] = MARGINS,
        attrs: Mapping[str, str] | None = None,
    ):
        self.title, self.margins, self.attrs, self.ref_baselines = title, margins, attrs or {}, ref_baselines or {}
        groups = _grouped(rows)
        self.baselines = baselines_of(rows, tasks)
        self.cells = {key: Cell(key, runs, self.baselines[key.task]) for key, runs in groups.items()}
        self.between = [name for name, _ in between]  # names of the files that give the variance between expert sets
        self.sources, of_cell = [], {}  # of_cell: {cell: (Sets, name) of the file with the most expert sets}
        for name, other_rows in between:
            self.sources.append({key: _run_means(runs) for key, runs in _grouped(other_rows).items()})
            found = {key: (Sets(*c), name) for key, c in self.sources[-1].items()}
            if not any(s.num_sets > 1 for s, _ in found.values()):
                raise UserError(
                    f'{name}: every cell has one expert set, so the variance between sets cannot be estimated from it; '
                    'sample several (training.datasets: 5 in the spec)'
                )
            of_cell |= {k: v for k, v in found.items() if k not in of_cell or v[0].num_sets > of_cell[k][0].num_sets}
        experts = {task: b.expert_mean for task, b in self.baselines.items()}
        self.reference = {key: ref.in_returns(experts.get(key.task, NAN)) for key, ref in (reference or {}).items()}
        self.comparisons: dict[CellKey, Comparison] = {}
        for key, cell in self.cells.items():
            if ref := self.reference.get(key):
                scale, margin = abs(self.scales[key.task].width), margin_of(key.alg, margins)
                self.comparisons[key] = Comparison(cell, ref, scale, margin, *of_cell.get(key, (None, '')))
        self._judge()
        self.missing = missing_runs(rows, expected)
        absent = [str(key) for key in self.cells if key not in self.reference] if reference is not None else []
        self.notes = [f'the reference has no number for {len(absent)} of our {len(self.cells)} cells: {some_of(absent)}'] if absent else []
        self.notes += [note] if (note := self.without_scores()) else []

    def _judge(self) -> None:
        """Correct every p value for the number of cells, and set the verdicts; this needs all cells."""
        comps = list(self.comparisons.values())
        family = sum(math.isfinite(c.p) for c in comps)
        for c, p_holm in zip(comps, statistics.holm([c.p for c in comps]), strict=True):
            c.p_holm = float(p_holm)
            if math.isfinite(c.p_holm):
                c.half_holm = c.test.half_width(1 - LEVEL / family)
                score = self.scales[c.cell.key.task].score
                same = 2 * CEILING <= c.margin and at_ceiling(score(c.cell.y_N), score(c.ref.runs))
                c.verdict = statistics.verdict_of(*((0.0, 0.0) if same else c.estimate[1:]), c.margin, c.differs, c.test.diff)
                c.note = '; '.join(filter(None, [c.note, 'at the ceiling' * same]))

    @classmethod
    def read(
        cls, path: str, reference: str | None = None, between: Sequence[str] | None = None, margins: Mapping[str, float] = MARGINS
    ) -> Any:
        """The analysis of a results file.

        Args:
            path: the results file.
            reference: CSV of published results; tasks.csv next to it is the scale of scores.
            between: results files with several expert sets; default: those that options.between_sets of the stored YAML names.

        Raises UserError for files that are missing, damaged, of another experiment, or evaluated the other way.
        """
        results = read_results(path)
        attrs = results.attrs
        named = [here_or_shipped(f) for f in between_sets(attrs.get('spec', ''))] if between is None else between
        absent = [f for f in named if between is None and not os.path.isfile(f)]
        analysis = cls(
            results.rows,
            results.tasks,
            reference=read_reference(reference) if reference else None,
            ref_baselines=read_reference_tasks(reference) if reference else None,
            between=read_other_sets([f for f in named if f not in absent], path, results),
            expected=experiment_runs(attrs.get('spec', '')),
            title=heading(results, reference),
            margins=margins,
            attrs=attrs,
        )
        if absent:
            analysis.notes.insert(0, f'options.between_sets names {printable(some_of(absent))}: no such file')
        if not takes_most_likely_actions(attrs):
            analysis.notes.insert(0, 'Played with sampled actions (eval_deterministic: false); the paper judges the most likely ones.')
        return analysis

    @property
    def scales(self) -> dict[str, Baseline]:
        """{task: Baseline} for scores: the reference's, or ours if the reference has none of the task."""
        return {task: self.ref_baselines.get(task, b) for task, b in self.baselines.items()}

    def without_scores(self) -> str:
        """Why returns of some tasks cannot be normalised, and what to do, as a sentence; empty when all can."""
        tasks = [t for t, b in self.baselines.items() if math.isnan(b.width)]
        unmeasured = [t for t in tasks if not self.baselines[t].random_episodes]
        if unmeasured:
            return (
                f'no scores for {", ".join(unmeasured)}: the results hold no random-policy returns; evaluate the experiment again '
                '(stage 2_eval of im_pipeline.py measures and stores them)'
            )
        return f'no scores for {", ".join(tasks)}: expert and random policy have the same return there' if tasks else ''

    def of_sets(self) -> str:
        """A sentence that names the source of the variance between expert sets; empty without a reference."""
        comps = self.comparisons.values()
        if not comps:
            return ''
        own = max(np.unique(c.set_N).size for c in self.cells.values())
        files = [f'these results ({own} sets)'] * (own > 1) + [printable(os.path.basename(f)) for f in self.between]
        unknown = sum(c.judged_by in ('welch', 'permutation', 'none') for c in comps)
        if not files:
            return 'Variance between expert sets: none used. Name results with several sets: --between-set F'
        known = f'; unknown for {unknown} of {len(comps)} cells' if unknown else ''
        return f'Variance between expert sets: from {", ".join(files)}{known}'


def some_of(names: Sequence[str], most: int = 4) -> str:
    """The first names of a list, for a sentence."""
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def heading(results: Any, reference_path: str | None = None) -> str:
    """The title of a page or figure: the experiment, whose experts, and the results it is compared with."""
    folders = dict.fromkeys(os.path.dirname(t.expert_policy.partition('.h5')[0]) for t in results.tasks if t.expert_policy)
    parts = [str(results.attrs.get('run_name') or 'results')]
    parts += [f'experts: {", ".join(folders)}'] if any(folders) else []
    parts += [] if takes_most_likely_actions(results.attrs) else ['sampled actions']
    return '; '.join(parts + ([f'reference: {reference_path}'] if reference_path else []))


def between_sets(spec_text: str) -> list[str]:
    """The results files with several expert sets that an experiment's YAML names; [] when the text does not say it."""
    try:
        found = parse_yaml(spec_text, 'spec')['options'].get('between_sets') or []
    except (UserError, KeyError, TypeError, AttributeError):
        return []
    return [f for f in found if isinstance(f, str)] if isinstance(found, list) else []


def experiment_runs(spec_text: str) -> list[str] | None:
    """Names of all runs that an experiment's YAML asks for, or None when the text does not say it.

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
