"""Training through the real command lines: what a run writes, that a seed decides it, and that it can be stopped at any time."""

import contextlib
import io
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import types

import numpy as np
import pytest
import tables
from command_tools import REPO, run_command, script_env
from training_tools import CLONING, EXPERT, RUNS, command, differences, needs_avx512, run, run_until
from training_tools import folder as folder

from policyopt import elementwise, evaluation
from policyopt.files.training_log import read_log, read_root, read_snapshot, snapshot_names
from policyopt.files.trajectory_file import load_trajs
from policyopt.pipeline import estimate
from policyopt.pipeline.command import Command
from policyopt.training import Eta

POLICY_STEP = ['dx', 'dl', 'kl', 'gnorm', 'bt']
VF_STEP = ['vf_dl', 'vf_kl', 'vf_gnorm', 'vf_bt']
IMITATION = ['iter', 'trueret', 'iret', 'avglen', 'ntrajs', 'nsa', 'ent', 'vf_r2', 'tdvf_r2', *POLICY_STEP]
AVERAGES_AND_TIMES = ['avgr', 'avgunregr', 'avgpreg', 'tsamp', 'tadv', 'tstep', 'ttotal']
CLONED = ['iter', 'bcloss', 'valloss', 'valacc', 'trueret', 'avgr', 'avglen', 'ent']
COLUMNS = {
    'bclone': [*CLONED, 'ttotal'],
    'dagger': [*CLONED, 'round', 'beta', 'nlabels', 'tsamp', 'ttotal'],
    'ga': [*IMITATION, *VF_STEP, 'rloss', 'racc', 'raccpi', 'raccex', 'rkl', 'rbt', *AVERAGES_AND_TIMES],
    'gail': [*IMITATION, *VF_STEP, 'rloss', 'racc', 'raccpi', 'raccex', 'rkl', 'rbt', *AVERAGES_AND_TIMES],
    'l2ball': [*IMITATION, *VF_STEP, 'l2', *AVERAGES_AND_TIMES, 'reward_bound'],
    'simplex': [*IMITATION, *VF_STEP, 'vmin', *AVERAGES_AND_TIMES, 'reward_bound'],
    'airl': [*IMITATION, *VF_STEP, 'rloss', 'racc', 'raccpi', 'raccex', 'rkl', 'rbt', *AVERAGES_AND_TIMES],
    'rl': ['iter', 'ret', 'avglen', 'nsa', 'ent', 'vf_r2', 'tdvf_r2', *POLICY_STEP, *VF_STEP, 'tsamp', 'tadv', 'tstep', 'ttotal'],
}
INT_COLUMNS = {'iter', 'avglen', 'ntrajs', 'nsa', 'bt', 'vf_bt', 'rbt', 'round', 'nlabels'}


@pytest.fixture(scope='module')
def finished(folder):
    """A function that gives the file of an undisturbed run, made once for all tests."""

    def file_of(name):
        path = folder / f'{name}.h5'
        if not path.exists():
            run(name, folder, '--log', path.name)
        return path

    return file_of


# ---- what a run writes


@pytest.mark.parametrize('name', RUNS)
def test_every_algorithm_writes_the_columns_and_files_of_2016(name, finished):
    path = finished(name)
    log = read_log(path)
    assert list(log.dtype.names) == COLUMNS[name]
    assert {c: str(log.dtype[c]) for c in log.dtype.names} == {c: 'int32' if c in INT_COLUMNS else 'float32' for c in COLUMNS[name]}
    last, every = (1500, 150) if name in CLONING else (30, 10)
    np.testing.assert_array_equal(log['iter'], np.arange(last + 1))
    assert snapshot_names(path) == [f'iter{i:07d}' for i in range(0, last + 1, every)]
    assert read_snapshot(f'{path}/snapshots/last').status == 'verified'
    root = read_root(path)
    assert set(root) >= {'args', 'seed', 'command', 'git_hash', 'versions', 'host', 'start_time', 'end_time', 'wall_time'}
    assert root['seed'] == '3' and root['args']['env_name'] == 'CartPole-v0' and 'torch' in root['versions']
    assert not list(path.parent.glob(f'{path.name}.*')), 'a part file is left'


def test_the_log_of_a_sampled_run_makes_sense(finished):
    log = read_log(finished('ga'))
    assert (np.diff(log['nsa']) >= 150).all() and (np.diff(log['ntrajs']) >= 1).all()
    assert (log['kl'] <= 0.02 + 1e-6).all() and (log['kl'] >= 0).all()
    assert abs(log['rloss'][0] - 1.385) < 0.01 and np.isnan(log['rkl']).all() and (log['rbt'] == 0).all()
    np.testing.assert_allclose(log['racc'], (log['raccpi'] + log['raccex']) / 2, rtol=1e-5)
    assert log['trueret'][-5:].mean() > log['trueret'][:5].mean()


def test_the_log_of_cloning_holds_nan_between_validations(finished):
    log = read_log(finished('bclone'))
    at = log['iter'] % 150 == 0
    for column in ('valloss', 'valacc'):
        assert np.isfinite(log[column][at]).all() and np.isnan(log[column][~at]).all()
    np.testing.assert_array_equal(log['valacc'][at], -log['valloss'][at])
    assert all(np.isnan(log[c]).all() for c in ('trueret', 'avgr', 'ent')) and (log['avglen'] == -1).all()
    assert log['valloss'][at][-1] < log['valloss'][at][0]


# ---- a seed decides a run


@pytest.mark.parametrize('name', ['ga', pytest.param('bclone', marks=pytest.mark.slow), pytest.param('rl', marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_file_and_another_one_another(name, folder):
    few = ('--max_iter', 151 if name == 'bclone' else 4)
    files = {}
    for log, seed in (('same1', 3), ('same2', 3), ('other', 4)):
        files[log] = folder / f'{name}_{log}.h5'
        run(name, folder, *few, '--seed', seed, '--log', files[log].name)
    assert differences(files['same1'], files['same2']) == []
    differing = differences(files['same1'], files['other'])
    assert '/@seed' in differing and any('/out/' in d for d in differing), differing


def test_a_run_continued_on_another_kind_of_processor_says_so(folder):
    needs_avx512()
    assert run_until('ga', folder, 11, signal.SIGTERM, '--log', 'moved.h5') == 75
    first = read_root(folder / 'moved.h5.part')['numerics']
    done = run('ga', folder, '--log', 'moved.h5', '--resume', env=elementwise.WITHOUT_AVX512, fresh=True)
    said = [line for line in done.stdout.splitlines() if 'equal to the bit' in line]
    assert len(said) == 1 and first in said[0] and 'X86_V3' in said[0]
    assert read_root(folder / 'moved.h5')['numerics'].startswith(first + '; numpy X86_V3')


def test_a_drawn_seed_and_the_number_of_iterations_are_found_again_by_resume(folder):
    unseeded = [a for a in RUNS['ga'] if a not in ('--seed', '3')]
    assert run_until(unseeded, folder, 3, signal.SIGTERM, '--log', 'drawn.h5') == 75
    seed = read_root(folder / 'drawn.h5.part')['seed']
    unsaid = [a for a in unseeded if a not in ('--max_iter', '31')]
    assert 'continuing drawn.h5.part' in run(unsaid, folder, '--log', 'drawn.h5', '--resume').stdout
    assert read_root(folder / 'drawn.h5')['seed'] == seed and len(read_log(folder / 'drawn.h5')) == 31


def test_iterations_that_are_not_said_are_a_million_for_the_trainer_and_for_the_estimate(folder):
    unsaid = [a for a in RUNS['ga'] if a not in ('--max_iter', '31')]
    assert run_until(unsaid, folder, 3, signal.SIGTERM, '--log', 'endless.h5') == 75
    assert read_root(folder / 'endless.h5.part')['args']['max_iter'] == 1000000
    assert estimate.max_iter(types.SimpleNamespace(id='endless', command=Command(shlex.join(map(str, unsaid))))) == 1000000


# ---- stopping and continuing


SLOW = [pytest.param(n, marks=[pytest.mark.slow] if n in ('l2ball', 'simplex') else []) for n in RUNS]


@pytest.mark.parametrize('name', SLOW)
def test_a_stopped_and_a_killed_run_continue_bit_for_bit(name, finished, folder):
    """SIGTERM, then kill -9, then to the end: the file is that of the undisturbed run."""
    scale = 50 if name in CLONING else 1
    log = f'{name}_disturbed.h5'
    assert run_until(name, folder, 5 * scale, signal.SIGTERM, '--log', log) == 75
    stopped_at = len(read_log(folder / f'{log}.part'))
    assert 5 * scale < stopped_at <= 30 * scale and not (folder / log).exists()
    shutil.copy(folder / f'{log}.part', folder / f'{name}_stopped.h5.part')
    assert run_until(name, folder, stopped_at + 1, signal.SIGKILL, '--log', log, '--resume') == signal.SIGKILL
    assert not (folder / log).exists()
    done = run(name, folder, '--log', log, '--resume')
    assert f'continuing {log}.part at iteration' in done.stdout
    assert differences(finished(name), folder / log) == []
    assert not (folder / f'{log}.part').exists()


def test_an_unfinished_run_may_be_made_longer(finished, folder):
    """Its file is that of a run which was started with as many iterations."""
    assert run_until('ga', folder, 3, signal.SIGTERM, '--max_iter', 25, '--log', 'longer.h5') == 75
    done = run('ga', folder, '--max_iter', 31, '--log', 'longer.h5', '--resume')
    assert re.search(r'continuing longer\.h5\.part at iteration \d+ of 31\n', done.stdout)
    assert differences(finished('ga'), folder / 'longer.h5') == []
    root = read_root(folder / 'longer.h5')
    assert root['args']['max_iter'] == 31
    assert re.search('--max_iter 25 .*; .* --max_iter 31 .*--resume', root['command'])


@pytest.mark.slow
def test_sigusr1_stops_like_sigterm(folder):
    """Slurm sends it ahead of a time limit."""
    assert run_until('ga', folder, 3, signal.SIGUSR1, '--log', 'usr1.h5') == 75
    assert len(read_log(folder / 'usr1.h5.part')) > 3


@pytest.fixture(scope='module')
def part_file(folder):
    """The part file of a stopped run of ga."""
    path = folder / 'unfinished.h5.part'
    if not path.exists():
        assert run_until('ga', folder, 3, signal.SIGTERM, '--log', 'unfinished.h5') == 75
    return path


def flip_a_weight(path):
    with tables.open_file(path, 'a') as h5:
        h5.get_node('/checkpoint/GibbsPolicy/out/AffineLayer/W')[0, 0] += 1e-9


def drop_the_checksum(path):
    flip_a_weight(path)
    with tables.open_file(path, 'a') as h5:
        del h5.root._v_attrs.content_sha256


FOREIGN = {
    'another option': (None, ('--reward_lr', '0.02'), r'was started with --reward_lr 0\.01, not 0\.02'),
    'fewer iterations than it has done': (None, ('--max_iter', 1), 'iterations already, more than --max_iter 1'),
    'other data': (None, ('--data', 'others.h5'), 'was started with other data than --data others.h5; give the same'),
    'a changed value': (flip_a_weight, (), 'damaged'),
    'a changed value without checksum': (drop_the_checksum, (), 'holds no state to continue from'),
    'half a file': (lambda p: p.write_bytes(p.read_bytes()[:5000]), (), 'not a readable HDF5 file'),
    'a finished run': (lambda p: shutil.copy(EXPERT, p), (), 'holds no state to continue from'),
}


@pytest.mark.parametrize('case', FOREIGN)
def test_a_corrupt_or_foreign_checkpoint_is_never_used(case, part_file, folder, tmp_path):
    damage, options, expected = FOREIGN[case]
    shutil.copy(part_file, tmp_path / 'x.h5.part')
    shutil.copy(folder / 'trajs.h5', tmp_path)
    with tables.open_file(tmp_path / 'trajs.h5') as h5, tables.open_file(tmp_path / 'others.h5', 'w') as other:
        for node in h5.root:
            other.create_array('/', node.name, obj=node.read() + (1e-6 if node.name == 'obs_B_T_Do' else 0))
    if damage:
        damage(tmp_path / 'x.h5.part')
    before = (tmp_path / 'x.h5.part').read_bytes()
    done = run('ga', tmp_path, *options, '--log', 'x.h5', '--resume', rc=2)
    assert re.fullmatch(rf'imitate_mj: error: x\.h5\.part: .*{expected}.*\n', done.stderr), done.stderr
    assert (tmp_path / 'x.h5.part').read_bytes() == before and not (tmp_path / 'x.h5').exists()


def test_a_finished_run_is_left_alone(finished, folder):
    path = finished('ga')
    before = path.read_bytes(), path.stat().st_mtime_ns
    for harmless in ((), ('--max_iter', 1), ('--print_freq', 7)):
        assert 'is complete already' in run('ga', folder, '--log', path.name, '--resume', *harmless).stdout
    for other, expected in (
        (('--reward_lr', '0.02'), '--reward_lr 0.01, not 0.02'),
        (('--seed', 77), '--seed '),
        (('--mode', 'gail'), '--mode '),
    ):
        said = run('ga', folder, '--log', path.name, '--resume', *other, rc=2).stderr
        assert f'error: {path.name}: was started with {expected}' in said
    assert 'exists already' in run('ga', folder, '--log', path.name, rc=2).stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_an_unfinished_run_is_not_started_over(part_file, folder):
    before = part_file.read_bytes()
    assert 'continue it with --resume' in run('ga', folder, '--log', 'unfinished.h5', rc=2).stderr
    assert part_file.read_bytes() == before


# ---- how long it takes


def test_a_terminal_shows_the_time_that_is_left_and_stdout_stays_a_table(folder):
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command('ga', '--max_iter', 7), cwd=folder, env=script_env(), stdout=subprocess.PIPE, stderr=child, text=True
    )
    os.close(child)
    shown = b''
    with contextlib.suppress(OSError):  # the end, as Linux has it
        while some := os.read(parent, 4096):
            shown += some
    os.close(parent)
    table = [line.split() for line in process.communicate(timeout=60)[0].splitlines()]
    assert re.match(rb'\r\x1b\[Kiteration 1 of 7, elapsed 0:00:\d\d, ETA 0:00:\d\d\r\x1b\[K', shown) and shown.endswith(b'\r\x1b[K')
    header = next(i for i, row in enumerate(table) if row[0] == 'iter')
    assert [row[0] for row in table[header + 1 : header + 8]] == list('0123456')
    assert {len(row) for row in table[header : header + 8]} == {len(table[header])}


def test_elsewhere_the_time_that_is_left_is_a_line_now_and_then():
    seconds, out = iter(range(0, 1000, 4)), io.StringIO()
    eta = Eta(100, out, lambda: next(seconds))
    for iteration in range(20, 40):
        eta.update(iteration)
    eta.clear()
    assert out.getvalue().splitlines() == [
        'iteration 21 of 100, elapsed 0:00:08, ETA 0:05:12',
        'iteration 36 of 100, elapsed 0:01:08, ETA 0:04:12',
    ]


# ---- options


def test_no_vf_uses_the_mean_of_each_time_step(folder):
    run('ga', folder, '--no_vf', 1, '--max_iter', 4, '--log', 'no_vf.h5')
    log = read_log(folder / 'no_vf.h5')
    assert list(log.dtype.names) == [c for c in COLUMNS['ga'] if c not in VF_STEP]
    np.testing.assert_array_equal(log['vf_r2'], log['tdvf_r2'])


@pytest.mark.parametrize('name', ['ga', pytest.param('bclone', marks=pytest.mark.slow)])
def test_float32_follows_float64_over_a_first_step(name, folder):
    found = {}
    for dtype in ('float64', 'float32'):
        log = f'{name}_{dtype}.h5'
        run(name, folder, '--max_iter', 1, '--dtype', dtype, '--log', log)
        found[dtype] = read_snapshot(f'{folder / log}/snapshots/last').variables, read_log(folder / log)
    (v64, log64), (v32, log32) = found['float64'], found['float32']
    for variable, value in v64.items():
        np.testing.assert_allclose(v32[variable], value, rtol=1e-4, atol=1e-4 * np.abs(value).max() + 1e-12, err_msg=variable)
    for column in set(log64.dtype.names) - {'tsamp', 'tadv', 'tstep', 'ttotal', 'vf_r2'}:
        np.testing.assert_allclose(log32[column], log64[column], rtol=2e-3, atol=1e-4, err_msg=column)


# ---- playing


def test_evaluation_prints_returns_and_lengths(run_script):
    done = run_script('vis_mj.py', f'{EXPERT}/snapshots/last', '--eval_only', '--count', 5, '--seed', 1)
    assert re.fullmatch(r'return: 200\.0000 \(sd 0\.0000\)\nlength: 200\.00 \(sd 0\.00\)\nmedian return: 200\.0000\n', done.stdout)
    short = run_script('vis_mj.py', f'{EXPERT}/snapshots/last', '--eval_only', '--count', 2, '--max_traj_len', 7, '--env', 'CartPole-v1')
    assert re.fullmatch(r'seed: \d+\nreturn: 7\.0000 \(sd 0\.0000\)\nlength: 7\.00 \(sd 0\.00\)\nmedian return: 7\.0000\n', short.stdout)


def test_experts_are_trained_where_they_are_missing_and_only_played_where_they_are_there(finished, folder):
    """As after an interruption: one expert is finished, one has a part file, one is not begun."""
    experts = folder / 'experts'
    experts.mkdir()
    options = '--max_iter 31 --min_total_sa 150 --sim_batch_size 1 --save_freq 10 --seed 3'
    code = (
        'import sys; from tools.experts import gen_classic_policies as g\n'
        f"experts = dict.fromkeys(['CartPole-v0', 'CartPole-v1', 'MountainCar-v0'], '{options}')\n"
        "sys.exit(g.run_main('gen', lambda argv: g.train_experts('gen', '', experts, list(experts), argv), ['experts', *sys.argv[1:]]))"
    )
    script = folder / 'generate.py'
    script.write_text(code)
    begun = ['run_rl_mj.py', *options.split(), '--env_name', 'CartPole-v1', '--log', 'experts/CartPole-v1.h5']
    assert run_until(begun, folder, 5, signal.SIGTERM) == 75
    there = experts / 'CartPole-v0.h5'
    shutil.copy(finished('rl'), there)  # with all its snapshots, which are not ours to drop
    before = there.read_bytes()
    done = run_command(script, cwd=folder)
    assert 'experts/CartPole-v0.h5: is there already' in done.stdout and 'continuing experts/CartPole-v1.h5.part' in done.stdout
    assert len(re.findall('(?m)^return: ', done.stdout)) == 3
    assert there.read_bytes() == before
    assert [snapshot_names(experts / f'{t}.h5') for t in ('CartPole-v1', 'MountainCar-v0')] == [['iter0000030']] * 2
    assert 'experts/CartPole-v0.h5: is there already, with seed 3, not 5' in run_command(script, '--seed', '5', cwd=folder, rc=2).stderr


@pytest.mark.mujoco
def test_a_policy_and_data_of_another_task_of_the_same_size_are_said_to_be(run_script):
    pytest.importorskip('mujoco')
    cheetah = f'{REPO}/expert_policies/modern/HalfCheetah-v1.h5/snapshots/last'
    play = ('vis_mj.py', cheetah, '--seed', 1, '--count', 1, '--max_traj_len', 20)
    said = run_script(*play, '--out', 'cheetah.h5', '--env_name', 'legacy/Walker2d-v1').stderr
    assert said == f"warning: {cheetah} comes from env 'legacy/HalfCheetah-v1' and is used for 'legacy/Walker2d-v1'\n"
    assert run_script(*play, '--eval_only', '--env_name', 'HalfCheetah-v4').stderr == ''
    clone = ('imitate_mj.py', '--mode', 'bclone', '--data', 'cheetah.h5', '--limit_trajs', 1, '--data_subsamp_freq', 1, '--max_iter', 2)
    said = run_script(*clone, '--seed', 1, '--log', 'clone.h5', '--env_name', 'legacy/HalfCheetah-v1').stderr
    assert "warning: cheetah.h5 comes from env 'legacy/Walker2d-v1' and is used for 'legacy/HalfCheetah-v1'\n" in said


def test_saved_trajectories_are_those_asked_for(folder):
    trajs = load_trajs(folder / 'trajs.h5')
    assert trajs.lengths.tolist() == [200, 200, 200] and trajs.a.stacked.dtype == np.int64


@pytest.mark.parametrize('deterministic', [True, False])
def test_an_animation_shows_the_episodes_that_an_evaluation_plays(deterministic):
    pytest.importorskip('pygame', reason='drawing MountainCar needs pygame')
    policy, mdp = evaluation.open_policy(str(EXPERT).replace('CartPole', 'MountainCar') + '/snapshots/last')
    expected = evaluation.sample_episodes(policy, mdp, 2, 5, deterministic)
    num = int(expected.lengths.sum())
    drawn = [shown for _, shown in evaluation.frames(policy, mdp, num, 5, deterministic)]
    shown = [s for i, s in enumerate(drawn) if i == 0 or s is not drawn[i - 1]]
    assert [(s.ret, s.length, s.over) for s in shown] == [(*pair, True) for pair in zip(expected.returns, expected.lengths, strict=True)]


def test_an_animation_needs_no_screen(run_script, tmp_path):
    pytest.importorskip('pygame', reason='drawing CartPole needs pygame')
    from PIL import Image

    options = ('--frames', 25, '--seed', 1, '--max_traj_len', 10)
    no_screen = {'DISPLAY': '', 'WAYLAND_DISPLAY': '', 'SDL_VIDEODRIVER': 'dummy'}
    first = run_script('vis_mj.py', f'{EXPERT}/snapshots/last', '--gif', 'mine.gif', *options, env=no_screen)
    said = ['return: 10.0000 in 10 steps'] * 2 + ['return: 5.0000 in 5 steps so far (stopped at --frames 25)']
    assert first.stdout.splitlines() == [*said, 'animation: mine.gif (25 pictures; --frames N for another number)'] and first.stderr == ''
    done = run_script('vis_mj.py', f'{EXPERT}/snapshots/last', *options, env=no_screen)
    assert 'animation: play.gif' in done.stdout
    for name in ('mine.gif', 'play.gif'):
        with Image.open(tmp_path / name) as image:
            assert image.n_frames > 1 and min(image.size) > 50
