"""Statistics against closed forms and scipy, and the table's command line on results files as stage 2 writes them."""

import csv
import html
import itertools
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, script_env
from hypothesis import given
from hypothesis import strategies as st
from results_tools import ATTRS, cell_rows, result_row, small_results, task_row, write_csv
from scipy import stats
from tables import open_file

from policyopt.errors import UserError
from policyopt.files.results_file import read_results, write_results
from policyopt.reporting import tables
from policyopt.reporting.analysis import Analysis, experiment_runs, margin_of, repeat_commands
from policyopt.reporting.reference import CellKey, Reference, read_reference, read_reference_tasks
from policyopt.reporting.statistics import (
    Sets,
    holm,
    permutation_p,
    predict_one_set,
    prob_improvement,
    t_margin,
    verdict_of,
    welch,
)
from policyopt.reproduction.report import AGGREGATE_COLUMNS

PAPER = REPO / 'results' / 'paper' / 'results_per_run.csv'
KEY = CellKey('cartpole', 'ga', 4)
returns = st.lists(st.floats(-300, 300).map(lambda x: round(x, 3)), min_size=2, max_size=9)


def table(*cells, **kwargs):
    """The analysis of these rows, with the task table of cartpole."""
    return Analysis([row for rows in cells for row in rows], [task_row()], **kwargs)


def reference_of(ys):
    ys = np.asarray(ys, float)
    return Reference(float(ys.mean()), float(np.std(ys, ddof=1)) if ys.size > 1 else math.nan, ys.size, ys)


# --- one cell -------------------------------------------------------------------------------------------------------


@given(returns)
def test_mean_and_margin_are_the_t_interval_of_scipy(ys):
    cell = table(cell_rows(ys)).cells[KEY]
    y_N = np.array(ys)
    assert cell.mean == pytest.approx(y_N.mean(), abs=1e-9)
    if np.ptp(y_N) > 1e-6:
        lo, hi = stats.t.interval(0.95, y_N.size - 1, y_N.mean(), stats.sem(y_N))
        assert (cell.mean - cell.margin, cell.mean + cell.margin) == pytest.approx((lo, hi), rel=1e-9, abs=1e-9)


def test_sd_is_over_all_episodes_and_percent_of_expert_is_normalised():
    cell = table(cell_rows([100, 120])).cells[KEY]
    assert cell.sd_episodes == pytest.approx(np.std([99, 101, 119, 121], ddof=1)) and cell.episodes == 4
    assert cell.percent_expert == pytest.approx(100 * (110 - 20) / (200 - 20))


def test_one_run_has_no_intervals_and_no_zero_division():
    cell = table(cell_rows([100])).cells[KEY]
    assert cell.mean == 100 and math.isnan(cell.margin)
    assert ' 100.0 ' in tables.text_report(table(cell_rows([100])), 2)


def test_order_of_cells_is_that_of_the_results_and_sizes_ascend():
    rows = cell_rows([1, 2], num_trajs=10, alg='fem') + cell_rows([1, 2], num_trajs=4, alg='fem') + cell_rows([1, 2], alg='bclone')
    assert [(k.alg, k.num_trajs) for k in table(rows).cells] == [('fem', 4), ('fem', 10), ('bclone', 4)]


# --- tests ----------------------------------------------------------------------------------------------------------


@given(returns, returns)
def test_welch_is_that_of_scipy(xs, ys):
    cell = table(cell_rows(xs)).cells[KEY]
    if min(np.ptp(xs), np.ptp(ys)) < 1e-3:
        return
    found = welch(cell, reference_of(ys))
    expected = stats.ttest_ind(xs, ys, equal_var=False)
    assert (found.p, found.df) == (pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12), pytest.approx(expected.df, rel=1e-6))
    assert abs(found.diff) / found.se == pytest.approx(abs(expected.statistic), rel=1e-6, abs=1e-9)


def test_one_reference_run_is_judged_with_the_variance_of_the_other_side():
    cell = table(cell_rows([10, 12, 14, 16])).cells[KEY]
    found = welch(cell, Reference(20.0, math.nan, 1, np.array([20.0])))
    s = np.std([10, 12, 14, 16], ddof=1)
    assert (found.se, found.df) == (pytest.approx(s * math.sqrt(1 + 1 / 4)), 3)
    assert found.p == pytest.approx(2 * stats.t.sf((20 - 13) / found.se, 3))


def test_permutation_test_equals_brute_force():
    x, y = np.array([3.0, 5.0, 9.0]), np.array([1.0, 2.0, 4.5, 2.5])
    both, seen = np.concatenate([x, y]), x.mean() - y.mean()
    diffs = [both[list(c)].mean() - np.delete(both, c).mean() for c in itertools.combinations(range(7), 3)]
    one_sided = min(np.mean(np.array(diffs) >= seen - 1e-12), np.mean(np.array(diffs) <= seen + 1e-12))
    assert permutation_p(x, y, seed=0) == pytest.approx(min(1, 2 * one_sided))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_probability_of_improvement_is_the_mann_whitney_statistic(xs, ys):
    assert prob_improvement(xs, ys) == pytest.approx(stats.mannwhitneyu(xs, ys).statistic / (len(xs) * len(ys)))


def test_holm_by_hand_and_nan_is_no_hypothesis():
    assert holm([0.01, 0.04, math.nan, 0.03, 0.005]) == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(ps):
    p, adjusted = np.array(ps), holm(ps)
    assert np.all(adjusted >= p - 1e-15) and np.all(adjusted <= np.minimum(1, len(p) * p) + 1e-15)
    assert np.all(np.diff(adjusted[np.argsort(p, kind='stable')]) >= 0)


# --- expert sets ----------------------------------------------------------------------------------------------------


def test_mean_squares_are_those_of_the_analysis_of_variance():
    groups = [[1.0, 2.0, 4.0], [5.0, 9.0], [2.0, 2.5, 3.0, 8.0]]
    y_N = np.concatenate(groups)
    s = Sets(y_N, [0, 0, 0, 1, 1, 2, 2, 2, 2])
    assert s.ms_between / (s.ss_within / s.df_within) == pytest.approx(stats.f_oneway(*groups).statistic)
    assert s.n0 == pytest.approx((9 - (9 + 4 + 16) / 9) / 2) and s.sum_sq == pytest.approx((9 + 4 + 16) / 81)


def test_prediction_for_equal_sets_of_m_runs_is_exact():
    rng = np.random.default_rng(3)
    set_N = np.repeat(np.arange(5), 7)
    s = Sets(rng.normal(0, 5, 5)[set_N] + rng.normal(0, 1, 35), set_N)
    p = predict_one_set(s, 7)
    assert (p.se**2, p.df) == (pytest.approx(s.ms_between * (1 + 1 / 5) / 7), pytest.approx(4))
    assert p.sd_between**2 == pytest.approx((s.ms_between - p.sd_within**2) / 7)


@pytest.mark.parametrize('m', [1, 7])
def test_prediction_with_unequal_sets_follows_the_formula(m):
    y_N, set_N = np.array([1.0, 9, 6, 8, 17, 12, 11, 15, 10]), [0, 0, 0, 1, 1, 2, 2, 2, 2]
    s = Sets(y_N, set_N)
    ms_w, c_b = s.ss_within / 6, (1 + s.sum_sq) / s.n0
    c_w = 1 / m + 1 / 9 - c_b
    v = c_b * s.ms_between + c_w * ms_w
    df = v**2 / ((c_b * s.ms_between) ** 2 / 2 + (c_w * ms_w) ** 2 / 6)
    p = predict_one_set(s, m)
    assert p.sd_between > 0 and (df > 2) == (m == 1)  # 7 runs a set, but 3 in ours: c_w < 0, and df stops at D − 1
    assert (p.se**2, p.df) == (pytest.approx(v), pytest.approx(max(2, df)))


def test_between_variance_is_floored_at_zero():
    s = Sets([1.0, 9, 2, 8, 1, 9], [0, 0, 1, 1, 2, 2])
    p = predict_one_set(s, 7)
    assert p.sd_between == 0 and p.df == 3
    assert p.se**2 == pytest.approx(s.ss_within / 3 * (1 / 7 + 1 / 6))


def test_the_references_runs_count_as_within_set_variance():
    s = Sets([200.0] * 6, [0, 0, 1, 1, 2, 2])
    p = predict_one_set(s, 7, ref_sd=0.7)
    assert (p.sd_within**2, p.df) == (pytest.approx(6 * 0.7**2 / 9), 9)


def test_one_run_per_set_still_predicts_one_run():
    p = predict_one_set(Sets([1.0, 2, 3, 4], [0, 1, 2, 3]), 1)
    assert (p.se**2, p.df) == (pytest.approx(np.var([1, 2, 3, 4], ddof=1) * (1 + 1 / 4)), 3)


def test_one_set_identifies_nothing_and_another_file_supplies_it():
    ours, other = Sets([1.0, 2, 3], [0, 0, 0]), Sets([1.0, 2, 11, 12, 21, 22], [0, 0, 1, 1, 2, 2])
    assert predict_one_set(ours, 7).num_sets == predict_one_set(ours, 7, ours).num_sets == 0
    p = predict_one_set(ours, 7, other)
    ms_w = (ours.ss_within + other.ss_within) / (2 + 3)
    # each of the two means, ours and the paper's, depends on which set was drawn
    assert p.se**2 == pytest.approx(2 * (other.ms_between - ms_w) / 2 + ms_w * (1 / 7 + 1 / 3))


def simulated(num, sd_between, seed):
    """(our runs, their sets, the reference's runs): 5 sets of 3 runs against one set of 7, equal in truth."""
    rng = np.random.default_rng(seed)
    set_N = np.repeat(np.arange(5), 3)
    for _ in range(num):
        yield rng.normal(0, sd_between, 5)[set_N] + rng.normal(0, 1, 15), set_N, rng.normal(0, sd_between) + rng.normal(0, 1, 7)


@pytest.mark.parametrize('sd_between', [0, 0.5, 2])
def test_interval_for_one_set_covers_95_percent(sd_between):
    hits = []
    for y_N, set_N, y_M in simulated(400, sd_between, seed=1):
        p = predict_one_set(Sets(y_N, set_N), 7, ref_sd=float(np.std(y_M, ddof=1)))
        hits.append(abs(y_M.mean() - y_N.mean()) <= stats.t.ppf(0.975, p.df) * p.se)
    assert 0.9 <= np.mean(hits) <= 1


def test_welch_is_too_strict_where_sets_differ_and_the_verdict_is_not():
    welch_says, we_say = [], []
    for y_N, set_N, y_M in simulated(60, 2.0, seed=2):
        c = table(cell_rows(y_N, set_N), reference={KEY: reference_of(y_M)}).comparisons[KEY]
        assert c.judged_by == 'sets' and c.between_from == '5 sets'
        welch_says.append(c.welch.p < 0.05)
        we_say.append(c.differs)
        low, high = c.predicted
        assert (low <= c.ref.mean <= high) == (not c.differs)  # one cell: Holm changes nothing
    assert np.mean(welch_says) > 0.4 and np.mean(we_say) < 0.15


# --- the table ------------------------------------------------------------------------------------------------------


def test_a_cell_without_variance_is_judged_without_dividing_by_zero():
    same = table(cell_rows([200] * 7), reference={KEY: reference_of([200] * 7)}).comparisons[KEY]
    other = table(cell_rows([200] * 7), reference={KEY: reference_of([150] * 7)}).comparisons[KEY]
    sets = table(cell_rows([200] * 7, range(7)), reference={KEY: reference_of([200] * 7)}).comparisons[KEY]
    assert (same.verdict, same.judged_by, same.p) == ('same within 0.05', 'equal', 1)
    assert (other.verdict, other.judged_by) == ('better', 'permutation') and other.p == pytest.approx(2 / math.comb(14, 7))
    assert (sets.verdict, sets.judged_by) == ('same within 0.05', 'equal')


def test_one_run_against_one_run_is_too_few_data():
    c = table(cell_rows([200]), reference={KEY: Reference(150.0, math.nan, 1, np.array([150.0]))}).comparisons[KEY]
    assert c.verdict == 'too few data' and c.test.diff == 50 and c.note


def test_verdicts_are_corrected_over_the_table():
    def cells(num):
        rows = [cell_rows([10, 11, 12, 13], num_trajs=n) for n in range(1, num + 1)]
        ref = {CellKey('cartpole', 'ga', n): reference_of([12, 12.5, 14, 14.5] if n == 1 else [10, 11, 12, 13]) for n in range(1, num + 1)}
        return table(*rows, reference=ref).comparisons[CellKey('cartpole', 'ga', 1)]

    alone, among = cells(1), cells(10)
    assert alone.p == among.p and alone.p_holm == alone.p and among.p_holm == pytest.approx(min(1, 10 * alone.p))
    assert among.half_holm > alone.half_holm == alone.test.half_width(0.95) == among.test.half_width(0.95)


def test_the_paper_next_to_itself_differs_in_none_of_its_48_classic_cells():
    paper = read_reference(PAPER)
    classic = {k: r for k, r in paper.items() if k.task in ('cartpole', 'mountaincar', 'acrobot')}
    rows = [row for k, r in classic.items() for row in cell_rows(r.y_M, **k._asdict())]
    analysis = Analysis(rows, [], reference=paper)
    assert len(analysis.comparisons) == 48 and {c.verdict for c in analysis.comparisons.values()} == {'too few data'}  # no scale
    assert classic[CellKey('cartpole', 'ga', 1)].mean == 200 and {r.m for r in classic.values()} == {7}
    assert read_reference_tasks(PAPER)['acrobot'].expert_mean == -75.25


def test_a_margin_over_n_runs_gives_the_standard_deviation_back(tmp_path):
    ys = [81.4, 68.8, 42.7, 112.8, 57.4, 94.4, 46.1]
    margin = t_margin(np.std(ys, ddof=1), 7)
    path = write_csv(
        tmp_path / 'r.csv', ['task', 'alg', 'num_trajs', 'return_mean', 'margin95', 'runs'], [['cartpole', 'ga', 4, np.mean(ys), margin, 7]]
    )
    ref = read_reference(path)[KEY]
    assert (ref.mean, ref.sd, ref.m, ref.y_M) == (pytest.approx(np.mean(ys)), pytest.approx(np.std(ys, ddof=1)), 7, None)
    c = table(cell_rows([60, 70, 80]), reference={KEY: ref}).comparisons[KEY]
    assert c.welch.p == pytest.approx(stats.ttest_ind([60, 70, 80], ys, equal_var=False).pvalue)
    assert math.isnan(c.perm_p) and math.isnan(c.prob_improvement)


def test_published_shares_of_an_expert_are_taken_of_our_expert(tmp_path):
    columns = ['task', 'alg', 'num_trajs', 'expert_ratio', 'margin95', 'runs']
    rows = [['cartpole', 'ga', 4, 0.9, 0.1, 5], ['elsewhere', 'ga', 4, 1, 0.1, 5]]
    ref = read_reference(write_csv(tmp_path / 'r.csv', columns, rows))
    in_returns = Reference(0.9 * 200, ref[KEY].sd * 200, 5)
    of_ours, given = (table(cell_rows([160, 170, 195]), reference=x).comparisons[KEY] for x in (ref, {KEY: in_returns}))
    assert (of_ours.test.diff, of_ours.welch.p, of_ours.p_holm, of_ours.ref.mean) == (given.test.diff, given.welch.p, given.p_holm, 180)
    assert of_ours.test.diff == pytest.approx(-5) and of_ours.judged_by == 'welch'
    rows = [['cartpole', 'ga', 4, y, i] for i, y in enumerate([1, 0.5])]
    runs = read_reference(write_csv(tmp_path / 'runs.csv', [*columns[:4], 'run'], rows))
    assert runs[KEY].in_returns(-10).y_M.tolist() == [-10, -5] and runs[KEY].in_returns(-10).sd == pytest.approx(np.sqrt(12.5))


def test_a_mean_without_a_margin_counts_as_one_run(tmp_path):
    columns = ['task', 'alg', 'num_trajs', 'return_mean', 'margin95', 'runs']
    ref = read_reference(write_csv(tmp_path / 'r.csv', columns, [['cartpole', 'ga', 4, 70, '', 5]]))[KEY]
    assert (ref.mean, ref.m) == (70, 1) and math.isnan(ref.sd)
    assert 'one run on a side' in table(cell_rows([60, 70, 80]), reference={KEY: ref}).comparisons[KEY].note


def test_missing_runs_are_named_from_the_spec_or_from_the_grid():
    rows = cell_rows([1, 2, 3], alg='ga') + cell_rows([1, 2], alg='bclone')
    assert Analysis(rows, []).missing == ['alg=bclone,task=cartpole,num_trajs=4,run=2']
    spec = 'tasks: [{name: cartpole}]\ntraining: {algorithms: [{name: ga}], dataset_num_trajs: [4, 7], runs: 3}'
    expected = experiment_runs(spec)
    assert Analysis(cell_rows([1, 2, 3]), [], expected=expected).missing == [f'alg=ga,task=cartpole,num_trajs=7,run={i}' for i in range(3)]
    assert experiment_runs('') is None and experiment_runs('a: [') is None


def test_the_command_that_repeats_a_cell_keeps_what_the_campaign_changed():
    spec = '# a/b.yaml with\n# --set options.storagedir=/x\n# --set training.runs=2\ntasks: []'
    attrs = {'command': 'im_pipeline.py a/b.yaml all --set x', 'spec': spec}
    assert repeat_commands([KEY], attrs)[KEY] == (
        'python scripts/im_pipeline.py a/b.yaml all --set options.storagedir=repeat training.runs=2 --only alg=ga task=cartpole num_trajs=4'
    )
    assert ' SPEC.yaml all --set options.storagedir=repeat --only ' in repeat_commands([KEY], {})[KEY]
    drawn = repeat_commands([KEY], {'drawn_seed': '7'})[KEY]
    assert ' all --set options.storagedir=repeat training.seed=7 --only ' in drawn


def test_nan_duplicates_and_nothing_are_refused_by_name():
    with pytest.raises(UserError, match='alg=ga,task=cartpole,num_trajs=4,run=1: return nan in evaluation episode 1'):
        table(cell_rows([1.0]), [result_row([1.0, np.nan, 2.0], run=1)])
    with pytest.raises(UserError, match='run=0: appears twice'):
        table(cell_rows([1.0]), cell_rows([2.0]))
    with pytest.raises(UserError, match='no runs'):
        table([])


def test_scores_are_undefined_without_a_random_policy_or_where_it_equals_the_expert():
    for random in (None, 200.0):
        analysis = Analysis(cell_rows([100, 110]), [task_row(random=random)])
        assert math.isnan(analysis.cells[KEY].percent_expert)
    assert 'no scores for cartpole: the results hold no random-policy' in Analysis(cell_rows([1, 2]), []).notes[0]


@pytest.mark.parametrize(
    'text, said',
    [
        ('', "no column 'task'"),
        ('task,alg,num_traj,run,return_mean\n', "no column 'num_trajs'. Did you mean 'num_traj'?"),
        ('task,alg,num_trajs,return_mean\n', "no column 'run'"),
        ('task,alg,num_trajs,run,return_mean\n', 'holds no rows'),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,four,0,1\n', 'line 2: .*four'),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,nan\n', "line 2: return_mean is 'nan'"),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,1\ncartpole,ga,4,0,2\n', 'line 3: .*run=0 appears twice'),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4\n', 'line 2: has fewer fields than the 5 columns'),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,1,2\n', 'line 2: has more fields than the 5 columns'),
        ('task,alg,num_trajs,run,run,return_mean\ncartpole,ga,4,0,0,1\n', "has two columns 'run'"),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,1e308\n', r"line 2: return_mean is '1e308'"),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,1_0,0,1\n', "line 2: num_trajs is '1_0'; expected a whole number from 0"),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,-1,0,1\n', "line 2: num_trajs is '-1'; expected a whole number"),
        ('task,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,\u0661\n', "line 2: return_mean is '\u0661'; expected a number"),
        ('task,alg,num_trajs,return_mean,margin95,runs\ncartpole,ga,4,1,-2,7\n', "line 2: margin95 is '-2'; expected a number from 0"),
        ('task,alg,num_trajs,return_mean,margin95,runs\ncartpole,ga,4,1,2,0\n', "line 2: runs is '0'; expected a whole number from 1"),
        ('task,alg,num_trajs,expert_ratio,margin95,runs\ncartpole,ga,4,inf,,5\n', "line 2: expert_ratio is 'inf'"),
        ('task,alg,num_trajs,ratio,margin95,runs\ncartpole,ga,4,1,,5\n', "no column 'return_mean'.*or expert_ratio"),
    ],
)
def test_a_wrong_reference_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / 'ref.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_reference(path)


def test_a_byte_order_mark_is_no_part_of_a_column(tmp_path):
    (tmp_path / 'ref.csv').write_text('\ufefftask,alg,num_trajs,run,return_mean\ncartpole,ga,4,0,1\n', encoding='utf-8')
    assert list(read_reference(tmp_path / 'ref.csv')) == [KEY]


@pytest.mark.parametrize('row', ['a,1,2,nan,3,4', 'a,1,2,inf,3,4', 'a,1,2,x,3,4'])
def test_a_wrong_table_of_tasks_is_refused_with_its_line(tmp_path, row):
    columns = 'task,expert_return_mean,expert_return_std,expert_episodes,random_return_mean,random_return_std'
    (tmp_path / 'tasks.csv').write_text(f'{columns}\n{row}\n')
    with pytest.raises(UserError, match=r"tasks.csv: line 2: expert_episodes is '\w+'; expected a whole number from 0"):
        read_reference_tasks(tmp_path / 'ref.csv')


def test_returns_that_are_no_list_of_episodes_are_refused(tmp_path):
    path = small_results(tmp_path / 'r.h5')
    with open_file(path, 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        table = h5.root.results.read()
        flat = np.empty(len(table), [(n, 'f8') if n == 'alg_traj_returns' else (n, *table.dtype.fields[n][:1]) for n in table.dtype.names])
        for n in table.dtype.names:
            flat[n] = table[n][:, 0] if n == 'alg_traj_returns' else table[n]
        h5.remove_node('/results')
        h5.create_table('/', 'results', obj=flat)
    with pytest.raises(UserError, match=r"/results: the column 'alg_traj_returns' holds float64; expected a list of numbers in each row"):
        read_results(path)


@pytest.mark.parametrize(('key', 'value'), [('num_trajs', -5), ('run', -1), ('alg', '')])
def test_a_row_of_no_run_is_refused(key, value, tmp_path):
    path = small_results(tmp_path / 'r.h5')
    with open_file(path, 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        column = h5.root.results.read(field=key)
        column[1] = value
        h5.root.results.modify_column(column=column, colname=key)
    with pytest.raises(UserError, match=f'row 1 of /results has {key} {value!r}; the file is damaged'):
        read_results(path)


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_output_fits_a_screen_and_names_what_it_wrote(tmp_path, run_script):
    small_results(tmp_path / 'results.h5', drop=[('ga', 4, 2)])
    args = ['results.h5', '--reference', PAPER, '--csv', 'r.csv', '--latex', 'r.tex', '--markdown', 'r.md', '--html', 'r.html']
    done = run_script('analyze_results.py', *args)
    lines = done.stdout.splitlines()
    assert not done.stderr and len(lines) <= 25 and max(map(len, lines)) <= 100
    assert lines[0].startswith('Variance between expert sets: none used.')
    assert lines[-2] == 'wrote r.csv, r_cells.csv, r_aggregate.csv, r.tex, r.md, r.html' and '--study' in lines[-1]
    assert '1 run is missing: alg=ga,task=cartpole,num_trajs=4,run=2' in done.stdout
    widths = [max(map(len, run_script('analyze_results.py', *args[:3], '-v', v).stdout.splitlines())) for v in (0, 1, 2)]
    assert widths[0] < widths[1] < widths[2]
    details = run_script('analyze_results.py', *args[:3], '--study').stdout
    assert details == run_script('analyze_results.py', *args[:3], '-v', 2).stdout
    assert 'expert 200.0 (sd 0.0, 3 episodes), random 20.0 (sd 0.0, 4 episodes)' in details and 'Single cells, 4:' in details
    assert 'A verdict judges ours − reference.' in details and 'Negative controls' in details
    assert r'\begin{tabular}{llrr}' in (tmp_path / 'r.tex').read_text() and '| bclone | 1 |' in (tmp_path / 'r.md').read_text()


def test_a_long_table_is_cut_to_the_screen(tmp_path, run_script):
    rows = [row for n in range(30) for row in cell_rows([100, 101], alg=f'alg{n}')]
    write_results(str(tmp_path / 'r.h5'), rows, [task_row()], {'run_name': 'many'})
    lines = run_script('analyze_results.py', 'r.h5').stdout.splitlines()
    assert len(lines) == 25 and lines[-3] == '… 10 more lines: -v 1' and 'alg19' in lines[-4]


def test_the_help_fits_a_terminal():
    command = [sys.executable, str(REPO / 'scripts' / 'analyze_results.py'), '--help']
    lines = subprocess.run(command, env=script_env(COLUMNS='100'), capture_output=True, text=True, check=True).stdout.splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) < 60


def columns_of(path):
    with open(path, newline='') as f:
        rows = list(csv.DictReader(f))
    return list(rows[0]), rows


def test_csv_files_have_their_documented_columns_and_serve_as_references(tmp_path, run_script):
    small_results(tmp_path / 'results.h5', datasets=3)
    run_script('analyze_results.py', 'results.h5', '--csv', 'r.csv', '--reference', PAPER)
    found = {name: columns_of(tmp_path / f'r{name}.csv') for name in ('', '_cells', '_aggregate')}
    told = (REPO / 'docs' / 'pipelines.md').read_text().partition('## The CSV tables')[2]
    for name, columns in {'': tables.RUN_COLUMNS, '_cells': tables.CELL_COLUMNS, '_aggregate': AGGREGATE_COLUMNS}.items():
        assert found[name][0] == [c.csv_name for c in columns if c.csv_name]
        undocumented = [c.csv_name for c in columns if c.csv_name and f'| `{c.csv_name}` | {c.meaning} |' not in told]
        assert not undocumented, f'docs/pipelines.md, The CSV tables: {undocumented}'
    runs, cells = found[''][1], found['_cells'][1]
    assert len(runs) == 12 and [c['alg'] for c in cells] == ['expert', 'random', 'bclone', 'bclone', 'ga', 'ga']
    ga = cells[-1]
    assert (float(ga['return_mean']), float(ga['margin95'])) == (199, pytest.approx(t_margin(1, 3)))
    assert ga['command'].endswith('pipelines/small.yaml all --set options.storagedir=repeat --only alg=ga task=cartpole num_trajs=4')
    for ref in ('r.csv', 'r_cells.csv'):
        out = run_script('analyze_results.py', 'results.h5', '--reference', ref, '-v', 1).stdout
        assert 'Single cells, 4: ' in out and '0.000' in out


def test_a_column_has_one_name_everywhere(tmp_path, run_script):
    """Headings are the names of the CSV files with spaces; what is only for reading is made of columns that the CSV files have too."""
    for columns in (tables.RUN_COLUMNS, tables.CELL_COLUMNS, AGGREGATE_COLUMNS):
        names = [c.csv_name for c in columns if c.csv_name]
        assert len(set(names)) == len(names)
        assert all(c.title == c.csv_name.replace('_', ' ') for c in columns if c.csv_name)
    small_results(tmp_path / 'results.h5', datasets=3)
    run_script('analyze_results.py', 'results.h5', '--reference', PAPER, '--html', 'r.html', '--markdown', 'r.md', '-v', 2)
    page, text = (tmp_path / 'r.html').read_text(), (tmp_path / 'r.md').read_text()
    for column in (c for c in tables.CELL_COLUMNS if c.level <= 2):
        meaning = html.escape(column.meaning)
        assert f' {column.title} |' in text and f'title="{meaning}">{html.escape(column.title)}</th>' in page
    assert 'setting of the sweep' not in page


def test_margins_are_those_of_the_longest_beginning_of_a_name(tmp_path, run_script):
    margins = {'': 0.1, 'ga': 0.05, 'gail': 0.02}
    assert [margin_of(alg, margins) for alg in ('bclone', 'ga', 'ga+x=1', 'gail')] == [0.1, 0.05, 0.05, 0.02]
    assert [margin_of(alg, {'': 0.1, 'ga': 0.05}) for alg in ('gail', 'ga_entreg-3')] == [0.1, 0.05]
    ours, theirs = cell_rows([199, 200, 201, 198], [0, 0, 1, 1]), reference_of([199, 200, 199, 200])
    for margin in (0.1, 0.01):
        c = table(ours, reference={KEY: theirs}, margins={'': margin}).comparisons[KEY]
        half = stats.t.isf(0.05, c.test.df) * c.test.se / 180
        assert c.estimate == pytest.approx((c.test.diff / 180, c.test.diff / 180 - half, c.test.diff / 180 + half))
        assert (c.verdict == 'same within 0.10') == (margin == 0.1 and half < 0.1)
    small_results(tmp_path / 'results.h5', datasets=3)
    out = run_script('analyze_results.py', 'results.h5', '--reference', PAPER, '--margin', '0.9', 'ga=0.8').stdout
    assert 'within 0.80' in out or 'worse by 0.80' in out
    for wrong in ('x', 'ga=2', '0'):
        err = run_script('analyze_results.py', 'results.h5', '--reference', PAPER, '--margin', wrong, rc=2).stderr
        assert f'--margin {wrong}: ' in err and 'expected a number between 0 and 1' in err


@pytest.mark.parametrize(
    'low, high, differs, expected',
    [
        (-0.04, 0.04, False, 'same within 0.05'),
        (0.01, 0.04, True, 'same within 0.05'),
        (0.01, 0.2, True, 'better'),
        (-0.2, -0.01, True, 'worse'),
        (-0.04, 0.2, False, 'no worse by 0.05'),
        (-0.06, 0.2, False, 'too few data'),
        (math.nan, math.nan, False, 'too few data'),
        (math.nan, math.nan, True, 'better'),
    ],
)
def test_an_interval_gives_one_verdict_in_words(low, high, differs, expected):
    assert verdict_of(low, high, 0.05, differs, -0.1 if low < -0.1 else 0.1) == expected


def test_sets_of_another_file_judge_a_file_with_one_set(tmp_path, run_script):
    small_results(tmp_path / 'one.h5')
    small_results(tmp_path / 'three.h5', datasets=3)
    alone = run_script('analyze_results.py', 'one.h5', '--reference', PAPER).stdout
    assert alone.startswith('Variance between expert sets: none used.')
    helped = run_script('analyze_results.py', 'one.h5', '--reference', PAPER, '--between-set', 'three.h5', '--csv', 'c.csv').stdout
    assert helped.splitlines()[0] == 'Variance between expert sets: from three.h5'
    with open(tmp_path / 'c_cells.csv', newline='') as f:
        assert {c['between_from'] for c in csv.DictReader(f)} == {'', '3 sets of three.h5'}


def test_the_yaml_in_the_results_names_files_with_several_sets(tmp_path, run_script):
    def results_of(names):
        return small_results(tmp_path / 'one.h5', spec=f'{ATTRS["spec"]}\noptions: {{between_sets: [{names}]}}')

    small_results(tmp_path / 'three.h5', datasets=3)
    results_of('three.h5')
    named = run_script('analyze_results.py', 'one.h5', '--reference', PAPER).stdout
    assert named.splitlines()[0] == 'Variance between expert sets: from three.h5'
    assert named == run_script('analyze_results.py', 'one.h5', '--reference', PAPER, '--between-set', 'three.h5').stdout
    assert Analysis.read(str(tmp_path / 'one.h5'), str(PAPER), between=[]).of_sets().startswith('Variance between expert sets: none used.')
    results_of('"no\\e.h5", three.h5')
    out = run_script('analyze_results.py', 'one.h5', '--reference', PAPER).stdout
    assert r'options.between_sets names no\x1b.h5: no such file' in out and 'from three.h5' in out
    results_of('{}')
    assert 'none used' in run_script('analyze_results.py', 'one.h5', '--reference', PAPER).stdout


def test_the_html_report_needs_no_other_file(tmp_path, run_script):
    small_results(tmp_path / 'results.h5', drop=[('bclone', 1, 0)])
    run_script('analyze_results.py', 'results.h5', '--reference', PAPER, '--html', 'r.html')
    page = (tmp_path / 'r.html').read_text()
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', page)) == len(re.findall('<img', page)) == 4
    assert not re.search(r'https?://|<script|<link|url\(', page)
    for said in (
        'Results of small',
        'git_hash',
        'numpy: 2',
        'alg=bclone,task=cartpole,num_trajs=1,run=0',
        '--only alg=ga task=cartpole',
        'dataset_num_trajs',
    ):
        assert said in page, said


def test_output_is_the_same_every_time_and_a_foreign_task_is_only_a_remark(tmp_path, run_script):
    small_results(tmp_path / 'results.h5')
    foreign = write_csv(tmp_path / 'f.csv', ['task', 'alg', 'num_trajs', 'run', 'return_mean'], [['pong', 'ga', 4, 0, 1]])
    first, second = (run_script('analyze_results.py', 'results.h5', '--reference', foreign).stdout for _ in range(2))
    assert first == second and 'the reference has no number for 4 of our 4 cells' in first.replace('\n ', '')


BAD = {
    'missing file': (['no.h5'], 'no such file'),
    'truncated file': (['cut.h5'], 'not a readable HDF5 file'),
    'not HDF5': (['f.csv'], 'not a readable HDF5 file'),
    'nan returns': (['nan.h5'], 'alg=ga,task=cartpole,num_trajs=1,run=2: return nan'),
    'no reference': (['results.h5', '--reference', 'no.csv'], 'no such file'),
    'binary reference': (['results.h5', '--reference', 'results.h5'], 'cannot be read as CSV'),
    'between sets of one set': (['results.h5', '--reference', str(PAPER), '--between-set', 'results.h5'], 'one expert set'),
    'between sets otherwise played': (
        ['results.h5', '--between-set', 'drawn.h5'],
        'drawn.h5: was played with sampled actions, results.h5 with',
    ),
    'no such folder': (['results.h5', '--csv', 'no/r.csv'], "the folder '.*no' for a table does not exist"),
    'unknown verbosity': (['results.h5', '--verbosity', '5'], 'invalid choice'),
}


@pytest.mark.parametrize('args, said', BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_sentence_and_exit_code_2(args, said, tmp_path, run_script):
    small_results(tmp_path / 'results.h5')
    small_results(tmp_path / 'nan.h5', nan_in=('ga', 1, 2))
    small_results(tmp_path / 'drawn.h5', datasets=3, eval_deterministic='false')
    (tmp_path / 'cut.h5').write_bytes((tmp_path / 'results.h5').read_bytes()[:3000])
    (tmp_path / 'f.csv').write_text('a,b\n')
    before = sorted(p.name for p in tmp_path.iterdir())
    done = run_script('analyze_results.py', *args, *([] if '--csv' in args else ['--csv', 'out.csv']), rc=2)
    assert re.search(said, done.stderr) and 'Traceback' not in done.stderr and not done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith('analyze_results: error: ')]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
