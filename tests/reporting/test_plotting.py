"""Pictures and learning curves: what is drawn is what the numbers say, from finished, running, partial and damaged files."""

import math
import re

import numpy as np
import pytest
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st
from results_tools import analyze, cell_rows, small_results, task_row

from policyopt.algorithms import ALGORITHMS, label_of
from policyopt.errors import UserError
from policyopt.files.training_log import TrainingLog
from policyopt.files.trajectory_file import save_trajs
from policyopt.reporting import curves, figures
from policyopt.reporting.reference import CellKey, Reference, read_reference
from policyopt.reproduction.figures import KINDS
from policyopt.trajectories import TrajBatch

PAPER = REPO / 'results' / 'paper' / 'results_per_run.csv'
PNG = b'\x89PNG\r\n'


def two_tasks(**kwargs):
    """bclone and ga on two tasks; mountaincar lacks bclone at size 4."""
    rows = [r for n, y in ((1, 60), (4, 150)) for r in cell_rows([y, y + 10], alg='bclone', num_trajs=n)]
    rows += [r for n, y in ((1, 190), (4, 196)) for r in cell_rows([y, y + 4], alg='ga', num_trajs=n)]
    rows += cell_rows([-150, -130], alg='bclone', task='mountaincar', num_trajs=1)
    rows += [r for n in (1, 4) for r in cell_rows([-101, -99], alg='ga', task='mountaincar', num_trajs=n)]
    return analyze(rows, [task_row(), task_row('mountaincar', -98, -200)], **kwargs)


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines()}


# --- results --------------------------------------------------------------------------------------------------------


def test_figure1_draws_normalised_means_with_a_panel_per_task():
    fig = figures.results_figure(two_tasks(), 'figure1')
    first, second = (ax for ax in fig.axes if ax.get_visible())
    assert (first.get_title(), second.get_title()) == ('cartpole', 'mountaincar')
    assert lines_of(first)['behavioural cloning'].get_ydata() == pytest.approx([(65 - 20) / 180, (155 - 20) / 180])
    assert lines_of(second)['GAIL (2016)'].get_ydata() == pytest.approx([100 / 102] * 2)
    assert len(lines_of(second)['behavioural cloning'].get_ydata()) == 1
    assert lines_of(first)['expert'].get_ydata()[0] == 1 and lines_of(first)['random policy'].get_ydata()[0] == 0
    assert list(first.get_xticks()) == [1, 4] and first.get_xlabel() == 'expert trajectories' and fig.get_suptitle() == ''


def bands(analysis):
    """Lowest and highest return of the first band of a raw picture, over both dataset sizes."""
    y = figures.results_figure(analysis, 'raw').axes[0].collections[0].get_paths()[0].vertices[:, 1]
    return y.min(), y.max()


def two_sizes(ys_1, ys_4):
    return analyze([r for n, ys in ((1, ys_1), (4, ys_4)) for r in cell_rows(ys, num_trajs=n)], [task_row()])


def test_bands_are_the_95_percent_interval_over_runs():
    analysis = two_sizes([100, 120, 110, 130, 102, 118, 111, 129], [150, 155, 160, 158, 151, 154, 159, 157])
    one, four = (analysis.cells[CellKey('cartpole', 'ga', n)] for n in (1, 4))
    assert bands(analysis) == pytest.approx((one.mean - one.margin, four.mean + four.margin))


def test_bands_of_too_few_runs_are_their_range():
    assert bands(two_sizes([100, 120], [150, 160, 155])) == pytest.approx((100, 160))


def test_bands_end_at_the_best_run():
    """The 95% interval of six runs at the expert and one that failed reaches far above the expert."""
    analysis = two_sizes([200, 200, 200, 200, 200, 200, 20], [200] * 7)
    cell = analysis.cells[CellKey('cartpole', 'ga', 1)]
    assert cell.mean + cell.margin > 220
    assert bands(analysis) == pytest.approx((cell.mean - cell.margin, 200))


def test_raw_picture_works_without_random_returns_and_figure1_says_how_to_get_them():
    analysis = analyze(cell_rows([100, 110]), [task_row(random=None)])
    figures.results_figure(analysis, 'raw')
    with pytest.raises(UserError, match='no random-policy returns; evaluate the experiment again .*2_eval.*--kind raw'):
        figures.results_figure(analysis, 'figure1')


def test_reproduction_shows_both_sides_and_shades_what_differs():
    far = Reference(20.0, 1.0, 7, np.array([19.0, 20, 21, 20, 20, 19, 21]))
    ours = analyze(cell_rows([198, 199, 200, 199]), [task_row()], reference={CellKey('cartpole', 'ga', 4): far})
    ax = figures.results_figure(ours, 'reproduction').axes[0]
    handles, labels = ax.get_legend_handles_labels()
    assert {'published (open)', 'ours, GAIL (2016)', 'differs (5%, Holm)', 'expert'} <= set(labels)
    means = [line.get_ydata()[0] for line in ax.get_lines() if line.get_marker() == figures.styles_of(['ga'])['ga']['marker']]
    assert means == pytest.approx([199, 20])
    with pytest.raises(UserError, match='needs --reference'):
        figures.results_figure(two_tasks(), 'reproduction')


def test_one_run_and_one_size_are_drawn_too():
    analysis = analyze(cell_rows([100]), [task_row()], reference={CellKey('cartpole', 'ga', 4): Reference(90.0, math.nan, 1)})
    for kind in KINDS:
        assert figures.png_bytes(figures.results_figure(analysis, kind, KINDS)).startswith(PNG)


@given(st.lists(st.sampled_from(['ga', 'bclone', 'fem', 'simplex', 'x', 'y', 'z', 'w', 'v', 'u']), unique=True, min_size=1))
def test_an_algorithm_keeps_its_colour_and_eight_are_told_apart(names):
    style = figures.styles_of(names)
    assert list(style) == names and all(style[n] == figures.styles_of([n])[n] for n in names if n in ALGORITHMS)
    if len(names) <= 8:
        assert len({s['color'] for s in style.values()}) == len({s['marker'] for s in style.values()}) == len(names)
    more = figures.styles_of([*names, *(f'run {i}' for i in range(20))]).values()
    assert len({(s['color'], s['linestyle']) for s in more}) == len(more)


def test_pictures_are_written_by_the_command_in_every_format(tmp_path, run_script):
    small_results(tmp_path / 'results.h5', drop=[('ga', 4, 1), ('bclone', 4, 0), ('bclone', 4, 1), ('bclone', 4, 2)])
    done = run_script('plot_results.py', 'results.h5')
    assert done.stdout.splitlines()[-1] == 'wrote results_figure1.png' and not done.stderr
    assert (tmp_path / 'results_figure1.png').read_bytes().startswith(PNG)
    for name, kind, magic in (('a.pdf', 'raw', b'%PDF'), ('a.svg', 'reproduction', b'<?xml')):
        seen = set()
        for _ in range(2):
            run_script('plot_results.py', 'results.h5', '--kind', kind, '--reference', PAPER, '-o', name)
            seen.add((tmp_path / name).read_bytes())
        assert len(seen) == 1 and seen.pop().startswith(magic), 'not the same file for the same data'


@pytest.mark.parametrize(
    'args, said',
    [
        (['no.h5'], 'no such file'),
        (['results.h5', '-o', 'a.gif'], "a.gif: cannot write a picture of the kind 'gif'; expected a name that ends in .png, .pdf, .svg"),
        (['results.h5', '-o', 'no/a.png'], 'does not exist'),
        (['results.h5', '--kind', 'reproduction'], 'needs --reference'),
        (['results.h5'], 'no random-policy returns'),
        (['results.h5', '--kind', 'pie'], 'invalid choice'),
    ],
)
def test_pictures_that_cannot_be_are_refused(args, said, tmp_path, run_script):
    small_results(tmp_path / 'results.h5', random=None)
    done = run_script('plot_results.py', *args, rc=2)
    assert said in done.stderr and 'Traceback' not in done.stderr and [p.name for p in tmp_path.iterdir()] == ['results.h5']


# --- learning curves ------------------------------------------------------------------------------------------------


def write_log(path, num=30, running=False, level=0.0, columns=('trueret', 'vf_r2', 'racc')):
    """A training log as the trainers write it; unfinished it ends in .part."""
    log = TrainingLog(str(path), {'args': '{}'})
    values = {
        'trueret': lambda i: level + i,
        'vf_r2': lambda i: i - 10.0,
        'racc': lambda i: None if i % 10 else i / num,
        'ret': lambda i: 7.0,
    }
    for i in range(num):
        log.append([('iter', i, int), *((c, values[c](i), float) for c in columns)])
    log.save({}) if running else log.finish({})
    return f'{path}.part' if running else str(path)


def run_path(folder, alg, run, task='cartpole', num_trajs=4):
    return folder / f'alg={alg},task={task},num_trajs={num_trajs},run={run}.h5'


def test_columns_drop_nan_rows_floor_vf_r2_and_find_ret_for_trueret(tmp_path):
    log = curves.Log(write_log(tmp_path / 'a.h5'))
    i, x = log.column('racc')
    assert i.tolist() == [0, 10, 20] and x == pytest.approx([0, 1 / 3, 2 / 3])
    assert log.column('vf_r2')[1].min() == 0 and log.column('vf_r2')[1].max() == 19 and log.column('kl') is None
    rl = curves.Log(write_log(tmp_path / 'b.h5', columns=('ret',)))
    assert rl.column('trueret')[1].tolist() == [7] * 30


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=30), st.integers(1, 40))
def test_smoothing_is_the_mean_of_the_last_rows(xs, window):
    expected = [np.mean(xs[max(0, t + 1 - window) : t + 1]) for t in range(len(xs))]
    assert curves.smoothed(np.array(xs), window) == pytest.approx(expected, abs=1e-8)


def test_band_spans_the_runs_that_have_come_that_far(tmp_path):
    logs = curves.read_logs([write_log(tmp_path / 'a.h5'), write_log(tmp_path / 'b.h5', num=10, running=True, level=4)])
    iter_T, mean_T, lo_T, hi_T = curves.band(logs, 'trueret')
    assert iter_T.tolist() == list(range(30))
    assert (lo_T[5], mean_T[5], hi_T[5]) == (5, 7, 9) and (lo_T[20], mean_T[20], hi_T[20]) == (20, 20, 20)


def test_groups_are_named_by_algorithm_and_by_what_else_differs(tmp_path):
    paths = [write_log(run_path(tmp_path, alg, run)) for alg in ('ga', 'fem') for run in (0, 1)]
    assert {k: len(v) for k, v in curves.groups_of(curves.read_logs(paths)).items()} == {'ga': 2, 'fem': 2}
    paths.append(write_log(run_path(tmp_path, 'ga', 0, num_trajs=1)))
    assert list(curves.groups_of(curves.read_logs(paths))) == ['ga, 1 trajectories', 'ga, 4 trajectories', 'fem, 4 trajectories']
    with pytest.raises(UserError, match='--group needs names'):
        curves.groups_of(curves.read_logs([write_log(tmp_path / 'x.h5')]))


def test_figure_has_a_subplot_per_field_and_a_line_per_log_or_group(tmp_path):
    logs = curves.read_logs([write_log(run_path(tmp_path, alg, run)) for alg in ('ga', 'fem') for run in (0, 1)])
    axes = curves.curves_figure(logs, ['trueret', 'racc'])
    assert [a.get_title() for a in axes.axes] == ['true return', 'discriminator accuracy'] and len(axes.axes[0].get_lines()) == 4
    grouped = curves.curves_figure(logs, ['trueret'], group=True, smooth=3).axes[0]
    assert [line.get_label() for line in grouped.get_lines()] == ['GAIL (2016)', label_of('fem')]


def test_groups_have_a_panel_per_task_and_a_level_of_their_own(tmp_path):
    paths = [write_log(run_path(tmp_path, 'ga', 0, task, size)) for task in ('hopper', 'ant') for size in (11, 4)]
    fig = curves.curves_figure(
        curves.read_logs(paths), ['trueret'], group=True, levels=lambda log: {'paper': float(log.parts['num_trajs'])}
    )
    assert [ax.get_title() for ax in fig.axes] == ['hopper', 'ant']
    colour = {label: line.get_color() for label, line in lines_of(fig.axes[0]).items()}
    dotted = {
        line.get_color(): line.get_ydata()[0] for line in fig.axes[0].get_lines() if line.get_linestyle() == ':' and len(line.get_ydata())
    }
    assert dotted[colour['4 trajectories']] == 4 and dotted[colour['11 trajectories']] == 11
    paths += [write_log(run_path(tmp_path, 'fem', 0, 'hopper', 4))]
    titles = [title for title, _, _ in curves.panels_of(curves.read_logs(paths), ['trueret'], group=True)]
    assert titles == ['hopper, 4 trajectories', 'hopper, 11 trajectories', 'ant, 4 trajectories', 'ant, 11 trajectories']


def test_showlog_prints_last_rows_and_draws_running_campaigns(tmp_path, run_script):
    write_log(run_path(tmp_path, 'ga', 0))
    write_log(run_path(tmp_path, 'ga', 1), num=12, running=True)
    names = sorted(p.name for p in tmp_path.iterdir())
    done = run_script('showlog.py', *names, '--group', '--smooth', '5', '--plotfile', 'c.png', '--fields', 'trueret,vf_r2,kll')
    head, first, second, last = done.stdout.splitlines()
    assert head.split() == ['log', 'iter', 'trueret', 'vf_r2'] and first.split()[1:] == ['29', '29', '19']
    assert '(running)' in second and second.split()[2:] == ['11', '11', '1'] and last == 'wrote c.png'
    assert 'no log has kll: skipped' in done.stderr and (tmp_path / 'c.png').read_bytes().startswith(PNG)


def test_showlog_without_a_screen_says_so_and_still_prints(tmp_path, run_script):
    path = write_log(tmp_path / 'a.h5')
    done = run_script('showlog.py', path, '--range_end', '9')
    assert done.stdout.splitlines()[-1].split()[:3] == ['a', '9', '9'] and '--plotfile' in done.stderr
    assert not run_script('showlog.py', path, '--noplot', '--fields', 'trueret').stderr


def test_cloning_logs_show_their_own_fields(tmp_path, run_script):
    log = TrainingLog(str(tmp_path / 'b.h5'), {'args': '{}'})
    for i in range(20):
        val = 1.0 / (i + 1) if i % 10 == 0 else None
        log.append([('iter', i, int), ('bcloss', 1.0, float), ('valloss', val, float), ('trueret', None, float), ('avglen', -1, int)])
    log.finish({})
    done = run_script('showlog.py', 'b.h5', '--plotfile', 'b.svg')
    assert done.stdout.splitlines()[0].split() == ['log', 'iter', 'bcloss', 'valloss']
    assert 'no numbers in trueret, avglen: skipped' in done.stderr


@pytest.mark.parametrize(('valacc', 'said'), [(-2.0, 'validation log-likelihood'), (-0.5, '−squared error of validation actions')])
def test_valacc_is_called_what_it_is(valacc, said, tmp_path, run_script):
    log = TrainingLog(str(tmp_path / 'c.h5'), {'args': '{}'})
    log.append([('iter', 0, int), ('valloss', 2.0, float), ('valacc', valacc, float)])
    log.finish({})
    done = run_script('showlog.py', 'c.h5', '--fields', 'valacc', '--plotfile', 'c.svg')
    assert f'valacc: {said}' in done.stderr
    assert curves.meaning_of(curves.read_logs([str(tmp_path / 'c.h5')]), 'valacc') == said


def test_legacy_expert_logs_are_drawn(legacy_dir, tmp_path, run_script):
    run_script('showlog.py', *sorted(legacy_dir.rglob('*.h5')), '--plotfile', 'l.png', '--range_end', '40')
    assert (tmp_path / 'l.png').read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    'args, said',
    [
        (['no.h5'], 'no.h5: no such file; expected a training log'),
        (['cut.h5'], 'cut.h5: not a readable HDF5 file'),
        (['results.h5'], 'results.h5: is no training log'),
        (['a.h5', './a.h5'], './a.h5: given twice'),
        (['a.h5', '--fields', 'x,y'], '--fields x,y: none of them has numbers in these logs; they have iter, trueret, vf_r2, racc'),
        (['a.h5', '--smooth', '0'], '--smooth 0: give 1 or more'),
        (['a.h5', '--plotfile', 'c.bmp'], "c.bmp: cannot write a picture of the kind 'bmp'"),
        (['a.h5', '--range_end', '-1'], 'a.h5: has no row up to iteration -1'),
        (['a.h5', '--group', '--plotfile', 'c.png'], 'a.h5: --group needs names as the pipeline gives them'),
    ],
)
def test_showlog_refuses_in_one_sentence(args, said, tmp_path, run_script):
    path = write_log(tmp_path / 'a.h5')
    (tmp_path / 'cut.h5').write_bytes(open(path, 'rb').read()[:2500])
    small_results(tmp_path / 'results.h5')
    done = run_script('showlog.py', *args, rc=2)
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.h5', 'cut.h5', 'results.h5']


# --- saved trajectories ---------------------------------------------------------------------------------------------


def test_saved_returns_are_printed(tmp_path, run_script):
    trajs = TrajBatch(np.zeros((5, 2)), np.zeros((5, 0)), np.zeros((5, 1), int), np.array([1.0, 1, 1, 2, 3]), np.array([3, 2]))
    save_trajs(str(tmp_path / 't.h5'), trajs, {'env': 'CartPole-v0'})
    out = run_script('print_saved_returns.py', 't.h5', '--each').stdout
    assert re.search(r'2 trajectories\n +returns  4 \(sd 1, lowest 3, highest 5\)\n +lengths  2\.5 \(sd 0\.5,', out)
    assert out.splitlines()[-1].split() == ['1', 'return', '5', 'length', '2']
    for bad in ('no.h5', 'cut.h5'):
        (tmp_path / 'cut.h5').write_bytes((tmp_path / 't.h5').read_bytes()[:1000])
        assert f'print_saved_returns: error: {bad}: ' in run_script('print_saved_returns.py', bad, rc=2).stderr


def test_the_papers_own_numbers_make_its_figure():
    paper = read_reference(PAPER)
    rows = [r for k, ref in paper.items() if k.task == 'hopper' for r in cell_rows(ref.y_M, **k._asdict())]
    fig = figures.results_figure(analyze(rows, [task_row('hopper', 3571.38, 14.47)]), 'figure1')
    ga = lines_of(fig.axes[0])['GAIL (2016)']
    assert len(ga.get_ydata()) == 4 and np.all(np.abs(ga.get_ydata() - 1) < 0.05)
