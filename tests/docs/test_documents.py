"""The numbers in the pages of results/ are those of the shipped files, and figures show what they say."""

import csv
import dataclasses
import math
import os
import re
import subprocess

import numpy as np
import pytest
import scipy.stats
from conftest import REPO
from results_tools import analyze, cell_rows, task_row

from policyopt.errors import UserError
from policyopt.files.training_log import TrainingLog
from policyopt.reporting import figures
from policyopt.reporting.reference import CellKey, Reference
from policyopt.reproduction.aggregate import Pair, Row
from policyopt.reproduction.figures import KINDS
from tools.results.documents import Blocks, agreement_table, comparison_table, curve_table, fill, run_table
from tools.results.reward_shift import decision
from tools.results.robustness_checks import beside as beside_other
from tools.results.robustness_checks import checks, run_by_run
from tools.results.words import verdict

KEY = CellKey('cartpole', 'ga', 4)


def test_pages_say_what_the_shipped_files_give(run_script):
    assert 'agree' in run_script('../tools/results/make_results.py', '--check').stdout


def test_every_number_of_a_changed_page_is_noticed():
    text = (REPO / 'results' / 'classic.md').read_text()
    blocks = re.findall(r'<!-- begin: ([^ ]+) -->', text)
    assert len(blocks) >= 5 and fill(text, lambda name: 'x', 'd.md').count('\nx\n') == len(blocks)
    stale = '<!-- begin: a -->\n1\n<!-- end: a -->\n'
    assert fill(stale, {'a': '2'}.__getitem__, 'd.md') == stale.replace('1', '2')
    for wrong, said in (
        ('<!-- begin: b -->\n<!-- end: b -->', "d.md: nothing is known of the block 'b'"),
        ('<!-- begin: a -->\n', '1 blocks begin'),
    ):
        with pytest.raises(UserError, match=said):
            fill(wrong, {'a': '2'}.__getitem__, 'd.md')


def test_every_picture_and_link_of_the_pages_is_there():
    for page in (REPO / 'results').glob('*.md'):
        for target in re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text(encoding='utf-8')):
            assert (page.parent / target).exists(), f'{page.name}: {target}'


def test_every_shipped_picture_is_on_a_page():
    pages = ' '.join(p.read_text(encoding='utf-8') for p in (REPO / 'results').glob('*.md'))
    unseen = [p.name for p in (REPO / 'results').rglob('*.png') if f'{p.relative_to(REPO / "results").as_posix()})' not in pages]
    assert not unseen


def test_the_table_of_single_runs_tells_falls_from_bad_policies():
    """Three of four episodes at 200, one that ends at once."""
    row = dataclasses.replace(
        cell_rows([155])[0], alg_traj_returns=np.array([200.0, 200, 200, 20]), alg_traj_lengths=np.array([200, 200, 200, 20])
    )
    ref = {KEY: Reference(200.0, float('nan'), 1, np.array([200.0]))}
    lines = comparison_table(analyze([row], [task_row()], reference=ref)).splitlines()
    assert lines[0].startswith("| task | algorithm | trajectories | return | paper's | end early (expert) | score |")
    assert lines[2] == '| cartpole | GAIL | 4 | 155.0 | 200.0 | 25% (0%) | 0.75 | 1.00 | −0.250 |'


def test_a_table_of_runs_has_every_run_the_best_first():
    lines = run_table(analyze(cell_rows([155, 200, 20.44]), [task_row()], reference={})).splitlines()
    assert lines[2] == '| GAIL | 4 | 125.1 | – | 200.0, 155.0, 20.4 | – |'


def test_agreement_counts_failed_runs_and_says_three_words():
    """Two of four runs of ours return what the random policy does, one of the paper's three."""
    lines = agreement_table(beside([20, 20, 200, 200], [20, 200, 200])).splitlines()
    assert lines[2].split(' | ')[3:] == ['2 of 4', '1 of 3', 'too few data |'] and lines[2].startswith('| GAIL | 1 | −0.167 [')


def row_with(**values):
    """A Row of one cell with other values in its fields."""
    row = Row([Pair(KEY, np.zeros(2), np.zeros(2), Reference(0.0, 1.0, 2))], {})
    vars(row).update(values)
    return row


@pytest.mark.parametrize(
    ('diff', 'se', 'sets', 'said'),
    [
        (0.01, 0.01, 'measured', 'same within 0.10'),
        (0.05, 0.01, 'measured', 'same within 0.10'),  # the 95% interval leaves out zero too
        (0.30, 0.05, 'measured', 'better'),
        (-0.30, 0.05, 'measured', 'worse'),
        (0.09, 0.05, 'measured', 'no worse by 0.10'),
        (-0.09, 0.05, 'measured', 'too few data'),
        (0.01, 0.01, 'runs', 'too few data'),
        (-0.30, 0.05, 'runs', 'too few data'),
        (-0.30, 0.05, 'tasks', 'worse'),
        (0.01, math.nan, 'cells', 'too few data'),
    ],
)
def test_a_verdict_is_never_more_than_its_interval_allows(diff, se, sets, said):
    assert verdict(row_with(diff=diff, se=se, df=30.0, sets=sets, margin=0.10, num_cells=4, num_ceiling=0)) == said


def test_a_cell_at_the_ceiling_is_the_same():
    row = row_with(diff=0.0, se=0.0, df=1.0, sets='runs', margin=0.05, num_cells=4, num_ceiling=4)
    assert verdict(row) == 'same within 0.05'


def test_a_table_of_curves_has_a_line_per_log_in_the_order_of_their_sizes(tmp_path):
    for size in (11, 4):
        log = TrainingLog(str(tmp_path / f'alg=ga,task=hopper,num_trajs={size},run=0.h5'), {'args': '{}'})
        for i in range(3):
            log.append([('iter', i, int), ('trueret', 10.0 * size + i, float), ('ttotal', 1800.0 * (i + 1), float)])
        log.finish({})
    lines = curve_table(str(tmp_path)).splitlines()[2:]
    assert lines == ['| hopper | GAIL | 4 | 3 | 42 | 1.50 |', '| hopper | GAIL | 11 | 3 | 112 | 1.50 |']


def test_blocks_know_their_names_only():
    blocks = Blocks('results', {'quickstart/results': []}, 'results/paper/results_per_run.csv', {'quickstart/results': None})
    for name in ('no/file:cells', 'quickstart/results:cells/said', 'quickstart/results:answer', 'quickstart/results:beside/no', 'claims'):
        with pytest.raises(KeyError):
            blocks.make(name)
    for name, said in (
        ('quickstart/results:checks', 'needs published results'),
        ('no:baselines', 'needs results/no/tasks.csv'),
        ('no:curves', 'needs logs in results/no'),
    ):
        with pytest.raises(UserError, match=f"d.md: the block '{name}': {said}"):
            fill(f'<!-- begin: {name} -->\n<!-- end: {name} -->', blocks.make, 'd.md')


def test_the_measured_experts_have_500_episodes():
    for folder in ('classic', 'classic-2016-experts'):
        rows = {r['task']: r for r in csv.DictReader(open(REPO / 'results' / folder / 'tasks.csv'))}
        assert {r['expert_episodes'] for r in rows.values()} == {'500'} and -82 < float(rows['acrobot']['expert_return_mean']) < -80


# --- preregistered tests ----------------------------------------------------------------------------------------------


def git(*args):
    return subprocess.run(['git', '-C', str(REPO), *args], capture_output=True, text=True, env=os.environ | {'TZ': 'UTC'})


@pytest.mark.skipif(git('cat-file', '-e', '6ecfe05').returncode != 0, reason='not a clone with its history')
def test_statements_were_committed_when_the_table_says():
    for row in csv.DictReader(open(REPO / 'results' / 'preregistration.csv')):
        found = git('show', '-s', '--date=format-local:%Y-%m-%dT%H:%M:%S', '--format=%cd', row['commit'])
        assert found.stdout.strip() == row['committed'], row


# --- robustness checks ------------------------------------------------------------------------------------------------


def over_sets(means_of_sets, ref):
    """Cells of one run on each of several expert sets, and single runs of the reference: {size: means}, {size: mean}."""
    rows = [row for size, ys in means_of_sets.items() for row in cell_rows(ys, range(len(ys)), num_trajs=size)]
    return analyze(
        rows, [task_row()], reference={KEY._replace(num_trajs=size): Reference(y, float('nan'), 1, None) for size, y in ref.items()}
    )


def test_robustness_checks_leave_out_the_first_set_and_the_cell_furthest_off():
    """Random 20, expert 200: 90 points are half of the way."""
    found = dict(checks(over_sets({1: [20, 110, 110, 110], 4: [110, 110, 110, 110.0]}, {1: 110, 4: 200})))
    assert list(found) == ['all cells', 'without the first expert set', 'without cartpole with 4 trajectories']
    assert [round(row.diff, 4) for row in found.values()] == [-0.3125, -0.25, -0.125]
    assert [row.num_cells for row in found.values()] == [2, 2, 1]


def test_the_same_sets_in_two_files_are_compared_set_by_set():
    """A gain of a tenth of the way on the first set and of two tenths on the second, both with their mean over two sizes."""
    before, after = ({1: [110, 128], 4: [110, 128.0]}, {1: [146, 182], 4: [110, 146.0]})
    ref = {1: 110, 4: 110}
    said = beside_other(over_sets(after, ref), over_sets(before, ref))
    half = 12.706 * 0.05  # t with one degree of freedom
    known = f'[{0.15 - half:+.3f}, {0.15 + half:+.3f}] (95% interval) over 2 pairs'
    assert said.startswith(f'Mean difference +0.150 {known} of task and expert set.') and said.endswith('By task: cartpole +0.150.')
    other = over_sets(before, ref)
    for cell in other.cells.values():
        cell.rows[0] = dataclasses.replace(cell.rows[0], ex_traj_returns=np.array([150.0, 200, 200]))
    said = beside_other(over_sets(after, ref), other)  # the first set is another one there
    assert 'over 1 pairs' in said and said.endswith('Left out: 1 sets that differ between the two (cartpole).')
    with pytest.raises(UserError, match='no cell with an expert set in common'):
        beside_other(over_sets({1: [110, 128]}, {1: 110}), over_sets({4: [110, 128]}, {4: 110}))


def test_the_same_runs_in_two_files_are_compared_run_by_run():
    """Runs that differ far more from each other than from their twins: the twins decide."""

    def means(ys):
        return analyze(cell_rows(ys), [task_row()], reference={})

    before, gain = np.array([30.0, 190, 100, 60]), np.array([1.8, -1.8, 1.8, 0.36])
    assert run_by_run(means(before), means(before)) == ['GAIL: 0.000 [0.000, 0.000] over 4 pairs of runs, within 0.02.']
    half = scipy.stats.t.ppf(0.95, 3) * scipy.stats.sem(gain / 180)
    said = run_by_run(means(before + gain), means(before))
    assert said == [f'GAIL: +0.003 [{0.003 - half:+.3f}, {0.003 + half:+.3f}] over 4 pairs of runs, within 0.02.']
    assert 'not shown to be within 0.02' in run_by_run(means(before + 10 * gain), means(before))[0]
    assert run_by_run(means(before), means(before[:1])) == []


# --- the figures of a comparison ------------------------------------------------------------------------------------------


def beside(ours, theirs, **kwargs):
    theirs = np.asarray(theirs, float)
    ref = {KEY: Reference(float(theirs.mean()), float(np.std(theirs, ddof=1)), theirs.size, theirs)}
    return analyze(cell_rows(ours), [task_row()], reference=ref, **kwargs)


def test_a_forest_has_a_row_per_algorithm_with_the_interval_that_decides():
    analysis = beside([180, 185, 190, 187], [170, 175, 180, 172], title='mine; reference: results/paper/results_per_run.csv')
    fig = figures.results_figure(analysis, 'forest', KINDS)
    row, ax = analysis.aggregate.algs[0], fig.axes[0]
    drawn = [tuple(line.get_xdata()) for line in ax.get_lines()]
    assert row.interval(0.95) in drawn and row.interval(0.9) in drawn
    assert [t.get_text() for t in ax.get_yticklabels()] == ['GAIL (2016)'] and fig.get_suptitle() == ''
    assert any(t.get_text().startswith('+') and '[' in t.get_text() for t in ax.texts)  # its numbers
    assert {line.get_markerfacecolor() for line in ax.get_lines() if line.get_marker() == 'D'} == {'white'}  # one set: not measured
    band = next(p for p in ax.patches)
    assert (band.get_x(), band.get_width()) == (-0.05, 0.1)


def test_axes_of_cells_that_agree_span_a_quarter_of_the_way_to_the_expert():
    ax = figures.results_figure(beside([199, 200, 199.5], [199.2, 200, 199]), 'reproduction').axes[0]
    lo, hi = ax.get_ylim()
    assert hi - lo > 0.25 * 180


def test_failed_runs_are_crosses_and_algorithms_stand_on_the_axis():
    ax = figures.results_figure(beside([199, 20, 21, 200], [199.2, 20, 199]), 'reproduction').axes[0]
    crosses = [line for line in ax.get_lines() if line.get_marker() == 'x']
    assert sorted(y for line in crosses for y in line.get_ydata()) == [20, 20, 21]
    assert 'ga' in [t.get_text() for t in ax.texts]


def test_legends_lie_within_narrow_figures_too():
    rows = [dataclasses.replace(row, alg=alg) for row in cell_rows([199, 20, 21, 200]) for alg in ('fem', 'simplex')]
    ref = {KEY._replace(alg=alg): Reference(170, 90, 4, np.array([199.2, 20, 199, 200])) for alg in ('fem', 'simplex')}
    fig = figures.results_figure(analyze(rows, [task_row()], reference=ref), 'reproduction')
    fig.canvas.draw()
    box = fig.legends[0].get_window_extent()
    assert fig.bbox.x0 <= box.x0 < box.x1 <= fig.bbox.x1 and len(fig.legends) == 1


def test_figure_1_has_the_reference_as_a_thin_line_and_profiles_show_both_sides():
    analysis = beside([150, 160, 155, 158], [120, 130, 125, 128])
    ax = figures.results_figure(analysis, 'figure1').axes[0]
    thin = [line for line in ax.get_lines() if line.get_linewidth() < 1 and len(line.get_ydata())]
    assert thin[0].get_ydata()[0] == pytest.approx((125.75 - 20) / 180)
    assert len(thin[0].get_ydata()) == 1 and thin[0].get_marker() == '.'  # a line through one point would not be seen
    in_legend, ours, published = figures.results_figure(analysis, 'profile', KINDS).axes[0].get_lines()
    assert (in_legend.get_label(), published.get_label()) == ('ours', 'published')
    half = np.argmin(np.abs(ours.get_xdata() - (157 - 20) / 180))
    assert (ours.get_ydata()[half], published.get_ydata()[half]) == (0.5, 0)


def test_the_shift_of_the_reward_is_judged_as_stated_before_its_runs():
    def judged(other, running):
        return decision(np.array(other), np.array(running), 1000.0)

    assert judged([-100.0, -200.0], [-300.0, -250.0]) == 'yes'
    assert judged([-240.0, -240.0], [-250.0, -250.0]) == 'too few data', 'less than 0.05 of the scale'
    assert judged([400.0, -260.0], [-300.0, -250.0]) == 'too few data', 'one run below one with the running bound'
    assert judged([-300.0, -400.0], [-300.0, -250.0]) == 'no'
    assert judged([900.0], [-300.0]) == 'not tested'
