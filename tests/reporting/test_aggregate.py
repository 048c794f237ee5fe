"""The answer over the whole table: recomputed by loops of its own, put to tables that do differ, and printed first everywhere."""

import copy
import csv
import dataclasses
import math

import numpy as np
import pytest
from conftest import REPO
from results_tools import analyze, cell_rows, small_results, task_row
from scipy import stats

from policyopt.files.results_file import read_results
from policyopt.reporting.analysis import MARGINS
from policyopt.reporting.reference import Baseline, CellKey, Reference
from policyopt.reporting.statistics import Sets
from policyopt.reporting.tables import text_report
from policyopt.reproduction.aggregate import Aggregate, Between, Pair, Row, bootstrap, pooled_between
from policyopt.reproduction.negative_controls import SHIFT, shifted, swapped
from policyopt.reproduction.report import sections, verdicts
from policyopt.reproduction.study import Study

PAPER = REPO / 'results' / 'paper' / 'results_per_run.csv'
CLASSIC = REPO / 'results' / 'classic-2016-experts'
SCALES = {'cartpole': Baseline('cartpole', '', 1.0, 0.0, 9, 0.0, 0.0, 9), 'acrobot': Baseline('acrobot', '', 1.0, 0.0, 9, 0.0, 0.0, 9)}
SIZES = (1, 4)


@pytest.fixture(scope='module')
def classic():
    """The shipped table of 336 runs beside the paper, with the variance between sets of the five sets."""
    return Study.read(str(CLASSIC / 'results.h5'), str(PAPER), [str(CLASSIC / 'five_sets.h5')])


# --- the same numbers by loops of their own -----------------------------------------------------------------------------


def by_hand(alg, sizes=(1, 4, 7, 10), tasks=('cartpole', 'mountaincar', 'acrobot')):
    """(difference, standard error, degrees of freedom) of one algorithm, from the CSV files, in plain loops."""
    scale = {row['task']: row for row in csv.DictReader(open(PAPER.parent / 'tasks.csv'))}

    def score(task, y):
        random = float(scale[task]['random_return_mean'])
        return (float(y) - random) / (float(scale[task]['expert_return_mean']) - random)

    def cells(results):
        found = {}
        for row in results.rows:
            mean = sum(float(r) for r in row.alg_traj_returns) / len(row.alg_traj_returns)
            found.setdefault((row.task, row.alg, int(row.num_trajs)), {}).setdefault(int(row.dataset), []).append(score(row.task, mean))
        return found

    ours, five = (cells(read_results(str(CLASSIC / f'{name}.h5'))) for name in ('results', 'five_sets'))
    paper = {}
    for row in csv.DictReader(open(PAPER)):
        if row['experiment'] == 'classic':
            paper.setdefault((row['task'], row['alg'], int(row['num_trajs'])), []).append(score(row['task'], row['return_mean']))
    raw = {}
    for task in tasks:
        measured = [five[task, alg, n] for n in (1, 4, 7, 10) if (task, alg, n) in five]
        if measured:
            z = [sum(sum(c[s]) / 3 for c in measured) / len(measured) for s in range(5)]
            spread = sum((v - sum(z) / 5) ** 2 for v in z) / 4
            noise = sum(sum((y - sum(c[s]) / 3) ** 2 for s in range(5) for y in c[s]) / 10 / 3 for c in measured) / len(measured) ** 2
            raw[task] = (spread - noise, spread, all(abs(y - 1) <= 0.02 for c in measured for s in c.values() for y in s))
    pool = [v for v in raw.values() if not v[2]]
    diff = variance = bottom = 0.0
    least, num = math.inf, len(tasks) * len(sizes)
    for task in tasks:
        if task in raw:
            var, spread, ceiling = raw[task]
            f = 4
            if not ceiling:
                f0 = min(4, 4 * len(pool) - 4)
                mean = [sum(v[i] for v in pool) / len(pool) for i in (0, 1)]
                var, spread, f = (4 * var + f0 * mean[0]) / (4 + f0), (4 * spread + f0 * mean[1]) / (4 + f0), 4 + f0
            part = [2 * max(0.0, var) * (len(sizes) / num) ** 2, 2 * spread * (len(sizes) / num) ** 2]
            variance, bottom, least = variance + part[0], bottom + part[1] ** 2 / f, min(least, f)
        for n in sizes:
            y, x = ours[task, alg, n][0], paper[task, alg, n]
            diff += (sum(y) / len(y) - sum(x) / len(x)) / num
            for runs in (y, x):
                mean = sum(runs) / len(runs)
                part = sum((v - mean) ** 2 for v in runs) / (len(runs) - 1) / len(runs) / num**2
                variance, bottom = variance + part, bottom + part**2 / (len(runs) - 1)
    return diff, math.sqrt(variance), max(variance**2 / bottom, least if raw else 1.0)


@pytest.mark.parametrize('alg', ['bclone', 'ga', 'fem', 'simplex'])
def test_rows_are_those_of_plain_loops_over_the_shipped_files(classic, alg):
    row = next(r for r in classic.aggregate.algs if r.alg == alg)
    diff, se, df = by_hand(alg)
    assert (row.diff, row.se, row.df) == pytest.approx((diff, se, df), abs=1e-9, rel=1e-9)
    for level in (0.90, 0.95):
        half = se * stats.t.ppf((1 + level) / 2, df)
        assert row.interval(level) == pytest.approx((diff - half, diff + half), abs=1e-9)
    assert row.tost_p == pytest.approx(max(stats.t.sf((row.margin + d) / se, df) for d in (diff, -diff)), abs=1e-9)
    assert row.p == pytest.approx(2 * stats.t.sf(abs(diff) / se, df), abs=1e-9)


def test_the_numbers_that_the_documents_rest_on(classic):
    """The numbers that the documents quote."""
    rows = {r.alg: r for r in classic.aggregate.algs}
    assert {a: round(r.diff, 3) for a, r in rows.items()} == {'bclone': 0.007, 'ga': 0.010, 'fem': 0.045, 'simplex': 0.090}
    assert (rows['ga'].verdict, rows['ga'].sets) == ('same within 0.05', 'measured') and rows['ga'].interval(0.9)[1] < 0.05
    assert {rows[a].verdict for a in ('bclone', 'fem', 'simplex')} == {'too few data'}
    assert {rows[a].sets for a in ('fem', 'simplex')} == {'runs'}
    whole = classic.aggregate.whole
    assert (whole.num_cells, whole.num_ceiling) == (48, 12) and whole.p > 0.05
    assert (whole.failed, whole.num_runs, whole.ref_failed, whole.ref_runs) == (4, 336, 16, 336)
    assert [(r.alg, r.num_cells, r.num_ceiling) for r in classic.aggregate.free] == [(a, 8, 0) for a in ('ga', 'fem', 'simplex')]
    assert sum('at the ceiling' in c.note for c in classic.comparisons.values()) == 12


# --- the model ----------------------------------------------------------------------------------------------------------


def reference_of(x):
    return Reference(float(x.mean()), float(np.std(x, ddof=1)) if x.size > 1 else math.nan, x.size, x)


def pair(y, x, sets=None, alg='ga', task='cartpole', size=4):
    y, x = np.asarray(y, float), np.asarray(x, float)
    sets = np.zeros(y.size, int) if sets is None else np.asarray(sets)
    return Pair(CellKey(task, alg, size), y, sets, reference_of(x))


def test_variance_is_pooled_over_the_tasks_of_one_algorithm_only():
    def cells(alg, task, effects):
        return {CellKey(task, alg, n): (np.repeat(effects, 2) + np.tile([-0.1, 0.1], 5), np.repeat(np.arange(5), 2)) for n in SIZES}

    wide, narrow = np.array([-0.4, -0.2, 0, 0.2, 0.4]), np.array([-0.04, -0.02, 0, 0.02, 0.04])
    source = cells('ga', 'cartpole', wide) | cells('ga', 'acrobot', narrow) | cells('fem', 'acrobot', narrow)
    found = pooled_between([source], [(a, t) for a in ('ga', 'fem', 'simplex') for t in ('cartpole', 'acrobot', 'pong')])
    noise = 0.02 / 2 / 2  # MS_w / n / K
    one, two = np.var(wide, ddof=1) - noise, np.var(narrow, ddof=1) - noise
    pool = (one + two) / 2
    assert found['ga', 'cartpole'].var == pytest.approx((one + pool) / 2) and found['ga', 'cartpole'].df == 8
    assert found['ga', 'acrobot'].var == pytest.approx((two + pool) / 2)
    assert found['ga', 'pong'].var == pytest.approx(pool) and found['ga', 'pong'].df == 4
    assert found['fem', 'acrobot'].var == max(0, two) and ('simplex', 'acrobot') not in found


def test_of_several_files_that_with_most_sets_counts():
    """Files of one base seed share sets, which must not be counted twice."""

    def cells(effects):
        return {CellKey('cartpole', 'ga', 4): (np.repeat(effects, 2) * 1.0, np.repeat(np.arange(len(effects)), 2))}

    one, two = np.array([0.0, 0.3, 0.1]), np.array([0.2, 0.5, 0.4, 0.1, 0.3])
    for sources in ([cells(one), cells(two)], [cells(two), cells(one)]):
        found = pooled_between(sources, [('ga', 'cartpole')])['ga', 'cartpole']
        assert (found.var, found.df) == (pytest.approx(np.var(two, ddof=1)), 4)


def test_many_sets_of_ours_leave_the_references_one_set():
    p = pair(np.repeat([0.2, 0.4, 0.6, 0.8], 2), [0.5, 0.5], sets=np.repeat(np.arange(4), 2))
    row = Row([p], {p.block: Between(0.09, 0.09, 3)}, 'ga')
    assert row.se**2 == pytest.approx(0.09 * (1 / 4 + 1)) and row.df == 3


def test_single_runs_are_judged_by_the_spread_of_tasks_or_cells():
    def rows(tasks):
        pairs = [pair([y], [0.5], task=t, size=n) for t, ys in tasks.items() for n, y in enumerate(ys)]
        return Row(pairs, {}, 'bclone'), [p.diff for p in pairs]

    apart, d_K = rows({'a': (0.3, 0.31), 'b': (0.45, 0.44), 'c': (0.1, 0.11)})
    assert (apart.sets, apart.df) == ('tasks', 2)
    assert apart.p == pytest.approx(stats.ttest_1samp(np.reshape(d_K, (3, 2)).mean(axis=1), 0).pvalue)
    few, d_K = rows({'a': (0.1, 0.12), 'b': (0.11, 0.1)})
    assert (few.sets, few.df) == ('cells', 3) and few.p == pytest.approx(stats.ttest_1samp(d_K, 0).pvalue) and few.verdict == 'too few data'


@pytest.mark.parametrize(
    'case, tau_T, sigma_T, sizes_T, least, most',
    [
        ('cells that differ by luck of their own', (0, 0, 0, 0), (0.2,) * 4, (4, 4, 4, 4), 0.88, 0.92),
        ('cells that share their task’s luck', (0.2,) * 4, (0.1,) * 4, (4, 4, 4, 4), 0.88, 0.92),
        ('three tasks', (0.1,) * 3, (0.2,) * 3, (4, 4, 4), 0.88, 0.92),
        ('tasks with few cells', (0.1,) * 4, (0.2,) * 4, (4, 4, 3, 2), 0.87, 0.92),
        ('tasks that vary unequally', (0.02, 0.05, 0.1, 0.3), (0.05, 0.05, 0.1, 0.1), (4, 4, 4, 4), 0.88, 1.0),
    ],
    ids=lambda x: x.replace('’', '') if isinstance(x, str) else '',
)
def test_the_interval_of_single_runs_covers(case, tau_T, sigma_T, sizes_T, least, most):
    """The 90% interval of whole tables of single runs holds the true mean difference in about 90% of them."""
    rng = np.random.default_rng(0)
    hits, num, truth = 0, 1000, -0.1
    for _ in range(num):
        pairs = []
        for t, (tau, sigma, size) in enumerate(zip(tau_T, sigma_T, sizes_T, strict=True)):
            d_K = truth + tau * rng.normal() + sigma * rng.normal(size=size)
            pairs += [pair([0.5 + d], [0.5], task=str(t), size=n) for n, d in enumerate(d_K)]
        low, high = Row(pairs, {}, 'bclone').interval(0.9)
        hits += low <= truth <= high
    assert least <= hits / num <= most, hits / num


def test_the_interval_covers_and_equivalence_is_not_claimed_at_the_margin():
    rng = np.random.default_rng(0)
    hits, claims, num = [], [], 150
    for _ in range(num):
        truth, tau = MARGINS['ga'], {'cartpole': 0.03, 'acrobot': 0.06}
        source, ours, ref = {}, {}, {}
        for task, t in tau.items():
            five, mine, theirs = rng.normal(0, t, 5), rng.normal(0, t), rng.normal(0, t)
            for n in SIZES:
                key = CellKey(task, 'ga', n)
                source[key] = (five.repeat(3) + rng.normal(0, 0.05, 15), np.arange(5).repeat(3))
                ours[key] = (truth + mine + rng.normal(0, 0.05, 7), np.zeros(7, int))
                x = theirs + rng.normal(0, 0.05, 7)
                ref[key] = Reference(float(x.mean()), float(np.std(x, ddof=1)), 7, x)
        pairs = [Pair(k, *ours[k], r) for k, r in ref.items()]
        row = Row(pairs, pooled_between([source], [('ga', t) for t in tau]), 'ga')
        lo, hi = row.interval(0.90)
        hits.append(lo <= truth <= hi)
        claims.append(row.verdict.startswith('same'))
    assert 0.84 < np.mean(hits) < 0.99 and np.mean(claims) < 0.1


def test_margins_of_a_cell_are_over_sets_where_there_are_several():
    y, sets = np.repeat([10.0, 50, 90, 20, 40], 3) + np.tile([-1, 0, 1], 5), np.repeat(np.arange(5), 3)
    lo, hi = stats.t.interval(0.95, 4, 42, stats.sem([10, 50, 90, 20, 40]))
    assert Sets(y, sets).margin == pytest.approx((hi - lo) / 2) and math.isnan(Sets(y, sets * 0).margin)
    cell = analyze(cell_rows(y, sets), [task_row()]).cells[CellKey('cartpole', 'ga', 4)]
    assert cell.half_width == cell.margin_sets > cell.margin


def test_failed_runs_are_counted_by_our_own_expert_sets_only():
    """Sets of another file may be those of other experts."""
    ref = {CellKey('cartpole', 'ga', 4): Reference(190, 5, 4, np.array([185.0, 20, 195, 190]))}
    others = [('other.h5', cell_rows([20, 20, 20, 20], [0, 0, 1, 1]))]
    for sets, expected in (([0, 0, 0, 0], []), ([0, 1, 1, 1], ['0, 2'])):
        found = analyze(cell_rows([200, 20, 20, 200], sets), [task_row()], reference=ref, between=others)
        (table,) = (s.table for s in sections(found) if s.title == 'Failed runs')
        assert table.lines == [['ga', 'cartpole', '2 of 4', '1 of 4', *expected]]


def test_failed_runs_say_whether_they_earned_more_with_sampled_actions():
    rows = [
        dataclasses.replace(row, last_trueret=y) for row, y in zip(cell_rows([20, 21, 19, 200]), (150, 20, math.nan, 200.0), strict=True)
    ]
    ref = {CellKey('cartpole', 'ga', 4): Reference(190, 5, 4, np.array([185.0, 190, 195, 190]))}

    def said(some):
        return next(s.sentences[0] for s in sections(analyze(some, [task_row()], reference=ref)) if s.title == 'Failed runs')

    assert said(rows).startswith('3 of 4 runs get') and said(rows).endswith(
        'Of 2 of ours whose last batch is known, 1 got more in it, with sampled actions.'
    )
    assert said(cell_rows([20, 21, 19, 200])).endswith('reference: 0 of 4.')


# --- negative controls ---------------------------------------------------------------------------------------------------


def verdict(pairs, a, alg):
    return Row(pairs, a.between, alg)


def test_a_shift_is_found_at_the_stated_rate_and_no_shift_is_not(classic):
    """The rates of the report, against campaigns simulated here: a shift of .15 in GAIL, none in GAIL, .15 in cloning."""
    stated = {(c.alg, c.ref_alg, round(c.truth, 2)): c for c in classic.controls if c.alg == c.ref_alg}
    assert stated['ga', 'ga', SHIFT].found > 0.95 and stated['ga', 'ga', SHIFT].same == 0
    assert all(c.found < 0.1 for key, c in stated.items() if key[2] == 0)
    assert stated['fem', 'fem', SHIFT].found > 0.9 and stated['simplex', 'simplex', SHIFT].found > 0.8
    for alg, truth in (('ga', SHIFT), ('ga', 0.0), ('bclone', SHIFT)):
        pairs = [p for p in classic.aggregate.pairs if p.key.alg == alg]
        rng = np.random.default_rng(1)
        found = []
        for _ in range(60):
            luck = {(t, side): rng.normal(0, math.sqrt(classic.aggregate.between[alg, t].var)) for t in SCALES_OF for side in (0, 1)}
            new = []
            for p in pairs:
                sides = enumerate((p.y_N, p.ref.y_M))
                y, x = ((rng.choice(v, v.size) - v.mean()) * math.sqrt(7 / 6) + luck[p.key.task, s] for s, v in sides)
                new.append(dataclasses.replace(p, y_N=y + truth, ref=reference_of(x)))
            found.append(verdict(new, classic.aggregate, alg).p < 0.05)
        assert abs(np.mean(found) - stated[alg, alg, round(truth, 2)].found) < 0.17


def test_campaigns_of_single_runs_hold_the_variance_between_sets():
    """One run a set beside one run: all variance is between sets, so a normal approximation with the row's own error must agree."""
    analysis = Study.read(str(REPO / 'results' / 'modern' / 'bclone_five_sets.h5'), str(PAPER), [])
    (row,) = analysis.aggregate.algs
    bound = stats.t.isf(0.025, row.df) * row.se
    for c in analysis.controls:
        assert c.found == pytest.approx(stats.norm.sf(bound, c.truth, row.se) + stats.norm.cdf(-bound, c.truth, row.se), abs=0.07)
        assert c.same < 0.6


SCALES_OF = ('cartpole', 'mountaincar', 'acrobot')


def test_swapped_algorithms_are_told_apart_where_the_report_says_so(classic):
    a = classic.aggregate
    for c in (c for c in classic.controls if c.alg != c.ref_alg):
        row = verdict(swapped(a.pairs, c.alg, c.ref_alg), a, c.alg)
        assert c.truth == pytest.approx(row.diff) and (c.verdict_now == 'found') == (row.p < 0.05)
    found = {(c.alg, c.ref_alg) for c in classic.controls if c.alg != c.ref_alg and c.verdict_now == 'found'}
    assert {('ga', 'bclone'), ('bclone', 'ga'), ('fem', 'simplex'), ('ga', 'simplex')} <= found
    assert ('fem', 'ga') not in found and ('simplex', 'fem') not in found  # the paper's fem beside our simplex: +.02


def test_a_shifted_table_is_called_worse_and_never_the_same(classic):
    a = classic.aggregate
    moved = Aggregate(
        {p.key: (p.y_N - (SHIFT if p.key.alg == 'ga' else 0), p.set_N) for p in a.pairs},
        {p.key: p.ref for p in a.pairs},
        dict.fromkeys(SCALES_OF, SCALES['cartpole']),
        [{p.key: (p.y_N, p.set_N) for p in a.pairs}],
    )
    del moved.between  # only one set there: nothing measured
    assert {r.sets for r in moved.algs} == {'runs'} and {r.verdict for r in moved.algs} == {'too few data'}
    ga = Row(shifted([p for p in a.pairs if p.key.alg == 'ga'], -SHIFT), a.between, 'ga')
    assert (ga.verdict, round(ga.diff, 3)) == ('worse', -0.140)
    other = copy.copy(a)
    other.algs = [ga, *(r for r in a.algs if r.alg != 'ga')]
    said = ' '.join(verdicts(other))
    assert said.startswith('Worse: ga -0.140 [')
    ga.diff = 0.14
    assert ga.verdict == 'better'
    ga.margin = 0.9
    assert ga.verdict == 'same within 0.90'


def test_single_runs_beside_single_runs_have_no_bootstrap_interval():
    """Drawing one run of one is the run itself: an interval without width would look like certainty."""
    one, two = pair([100.0], [110.0]), pair([100.0, 120.0], [110.0])
    assert np.isnan(bootstrap([one], 0)[0][1:]).all() and bootstrap([one], 0)[0][0] == 0.0
    assert np.isfinite(bootstrap([one, two], 0)).all()


# --- where it is shown -----------------------------------------------------------------------------------------------------


def test_the_answer_comes_first_everywhere(tmp_path, run_script):
    small_results(tmp_path / 'results.h5', datasets=3)
    args = ['results.h5', '--reference', PAPER, '--markdown', 'r.md', '--html', 'r.html', '--csv', 'r.csv']
    out = run_script('analyze_results.py', *args, '--study').stdout
    page, md = (tmp_path / 'r.html').read_text(), (tmp_path / 'r.md').read_text()
    for text, first_cell in ((out, 'cartpole (CartPole-v0)'), (md, '### cartpole'), (page, '<h3>cartpole')):
        assert 0 <= text.index('Does it reproduce?') < text.index('Failed runs') < text.index(first_cell)
    assert 'ref failed' in run_script('analyze_results.py', *args[:3]).stdout.splitlines()[1]
    assert 'ref failed' not in run_script('analyze_results.py', 'results.h5').stdout
    rows = list(csv.DictReader(open(tmp_path / 'r_aggregate.csv')))
    assert [(r['alg'], r['task']) for r in rows][:2] == [('bclone', ''), ('ga', '')] and rows[-1]['cells'] == '4'
    assert {r['sets'] for r in rows} == {'measured'}


def test_several_between_files_flow_in(tmp_path, run_script):
    small_results(tmp_path / 'one.h5')
    small_results(tmp_path / 'three.h5', datasets=3)
    small_results(tmp_path / 'two.h5', datasets=2)
    text = run_script('analyze_results.py', 'one.h5', '--reference', PAPER, '--between-set', 'two.h5', 'three.h5', '--csv', 'c.csv').stdout
    assert '†' not in text
    with open(tmp_path / 'c_cells.csv', newline='') as f:
        assert {c['between_from'] for c in csv.DictReader(f)} == {'', '3 sets of three.h5'}


def test_without_a_scale_the_answer_is_missing_and_nothing_breaks():
    key = CellKey('cartpole', 'ga', 4)
    ref = {key: Reference(150.0, 3.0, 7, np.linspace(145, 155, 7))}
    analysis = analyze(cell_rows([100, 110, 105]), [task_row(random=None)], reference=ref)
    assert analysis.aggregate is None and sections(analysis) == [] and 'cartpole' in text_report(analysis, 2)


def test_the_answer_is_the_same_every_time_and_quick(classic):
    again = Aggregate({k: (c.y_N, c.set_N) for k, c in classic.cells.items()}, classic.reference, classic.scales, classic.sources)
    for one, other in zip([again.whole, *again.algs], [classic.aggregate.whole, *classic.aggregate.algs], strict=True):
        assert repr(vars(one)) == repr(vars(other))
