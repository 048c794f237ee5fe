"""The three stages on a real, tiny experiment: experts, training, evaluation, and the results file."""

import collections
import dataclasses
import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime

import numpy as np
import numpy.lib.recfunctions as rfn
import pytest
import tables
from pipeline_tools import (
    IM_PIPELINE,
    REPO,
    SPEC,
    children,
    environment,
    im_pipeline,
    lives,
    started_pipeline,
    wait_until,
    write_spec,
)

from policyopt.errors import RunFailed, UserError
from policyopt.evaluation import open_policy, sample_episodes
from policyopt.files import hdf5, results_file
from policyopt.files.hdf5 import set_attrs, write_h5
from policyopt.files.runfile import read_facts, read_run
from policyopt.files.training_log import read_log, read_root
from policyopt.pipeline import evaluate_stage, stages
from policyopt.pipeline.spec import load_spec
from policyopt.provenance import derive_seed
from policyopt.reporting.analysis import heading

TINY = """
run_name: tiny
tasks:
- name: cartpole
  env: CartPole-v0
  policy: expert_policies/classic/CartPole-v0.h5/snapshots/iter0000100
  cuts_off_on_success: false
  data_subsamp_freq: 10
training:
  full_dataset_num_trajs: 3
  dataset_num_trajs: [2]
  deterministic_expert: false
  runs: 2
  seed: 0
  datasets: 2
  algorithms:
  - name: bclone
    cmd: >
      python scripts/imitate_mj.py --mode bclone --env {env} --data {dataset} --limit_trajs {num_trajs}
      --data_subsamp_freq {data_subsamp_freq} --max_iter 21 --bclone_eval_freq 10 --log {out}
  - name: ga
    cmd: >
      python scripts/imitate_mj.py --mode ga --env {env} --data {dataset} --limit_trajs {num_trajs}
      --data_subsamp_freq {data_subsamp_freq} --favor_zero_expert_reward {cuts_off_on_success}
      --max_iter 2 --min_total_sa 300 --sim_batch_size 1 --log {out}
options:
  storagedir: {storage}
  eval_num_trajs: 4
"""
IDS = [f'alg={alg},task=cartpole,num_trajs=2,run={run}' for alg in ('bclone', 'ga') for run in (0, 1)]


def quiet(**options):
    return stages.How(verbosity=-1, **options)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A tiny experiment after stages 0 and 1, called as functions; tests copy it."""
    folder = tmp_path_factory.mktemp('trained')
    spec = load_spec(str(write_spec(folder, text=TINY)))
    stages.sample_trajs(spec, quiet())
    stages.train_runs(spec, quiet(jobs=2))
    return folder


@pytest.fixture
def tiny(trained, tmp_path):
    """(spec file, checkpoint folder) of an own copy of the trained experiment."""
    shutil.copytree(trained / 'store', tmp_path / 'store')
    return write_spec(tmp_path, text=TINY), tmp_path / 'store' / 'checkpoints'


def run_stage(path, stage, overrides=(), **options):
    """A stage within this process."""
    assert stages.run_stage(stage, str(path), list(overrides), False, quiet(**options)) == 0


def arrays(path):
    """{dataset: array} of an HDF5 file."""
    with tables.open_file(str(path)) as h5:
        return {n._v_pathname: n.read() for n in h5.walk_nodes('/') if not isinstance(n, tables.Group)}


def test_stage_0_prints_and_stores_expert_and_random_returns(tmp_path):
    path = write_spec(tmp_path, text=TINY)
    out, err = im_pipeline(path, '0')
    lines = out.splitlines()
    assert len(lines) == 3 and lines[0].startswith('cartpole: expert return ') and lines[2].startswith('cartpole: random return ')
    assert all(word in lines[0] for word in ('mean reward 1.0000', 'length', 'entropy', '3 trajectories in', 'trajs_cartpole_set0.h5'))
    assert err.splitlines()[-1] == f'next: python scripts/im_pipeline.py {path} 1_train'
    sets = [arrays(tmp_path / 'store' / 'trajs' / f'trajs_cartpole_set{k}.h5') for k in (0, 1)]
    assert all(s['/len_B'].dtype == np.int32 and len(s['/len_B']) == 3 for s in sets)
    assert not np.array_equal(sets[0]['/obs_B_T_Do'][:, 0], sets[1]['/obs_B_T_Do'][:, 0])
    random = arrays(tmp_path / 'store' / 'trajs' / 'random_cartpole.h5')
    assert len(random['/returns_B']) == 4 and random['/returns_B'].mean() < 100


def test_stage_0_is_a_function_of_the_seed(tiny, capsys):
    path, folder = tiny
    trajs = folder.parent / 'trajs'
    first = arrays(trajs / 'trajs_cartpole_set1.h5')
    os.remove(trajs / 'trajs_cartpole_set1.h5')
    run_stage(path, '0_sampletrajs', resume=True)
    out, err = capsys.readouterr()
    assert 'set0.h5: kept' in err and 'set1.h5' in out
    again = arrays(trajs / 'trajs_cartpole_set1.h5')
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_stage_0_overwrites_nothing(tiny):
    path, folder = tiny
    before = {p: p.stat().st_mtime_ns for p in folder.parent.rglob('*.h5')}
    with pytest.raises(UserError, match='trajs_cartpole_set0.h5: exists already.*--resume.*storagedir'):
        run_stage(path, '0')
    run_stage(path, '0', resume=True)
    assert {p: p.stat().st_mtime_ns for p in folder.parent.rglob('*.h5')} == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('tasks[0].env=CartPole-v1', "was sampled with env_name 'CartPole-v0', but .* now asks for 'CartPole-v1'"),
        ('training.deterministic_expert=true', "deterministic 'false'"),
    ],
)
def test_trajectories_of_another_experiment_are_not_taken_for_ours(tiny, change, message):
    path, _ = tiny
    for stage in ('0', '1'):
        with pytest.raises(UserError, match=message):
            run_stage(path, stage, [change], resume=True)


def test_more_trajectories_are_added_and_the_first_stay_to_the_bit(tiny):
    path, folder = tiny
    more, file = ['training.full_dataset_num_trajs=5'], folder.parent / 'trajs' / 'trajs_cartpole_set1.h5'
    before = arrays(file)
    for stage in ('1', '2'):
        with pytest.raises(UserError, match='holds 3 trajectories, but training.full_dataset_num_trajs is 5'):
            run_stage(path, stage, more, resume=True)
    short = f'{folder.parent}/trajs/trajs_cartpole_set0.h5: holds 3 trajectories, but training.full_dataset_num_trajs is 5; add more with: '
    add = f'python scripts/im_pipeline.py {path} 0_sampletrajs --resume --set {more[0]}\n'
    out, err = im_pipeline(path, '1', '--summary', '--set', *more)
    assert out.startswith('tiny: 0 of 2 trajectory files') and err == f'note: {short}{add}next: {add}'
    assert f'note: {short}{add}' in im_pipeline(path, '1', '-n', '--set', *more)[1]
    run_stage(path, '0', more, resume=True)
    assert im_pipeline(path, '1', '--summary', '--set', *more)[0].startswith('tiny: 2 of 2')
    after = arrays(file)
    assert len(after['/len_B']) == 5 and np.array_equal(after['/len_B'][:3], before['/len_B'])
    assert all(np.array_equal(after[n][:3, : before[n].shape[1]], before[n]) for n in ('/obs_B_T_Do', '/a_B_T_Da', '/r_B_T'))
    run_stage(path, '1', more, resume=True)
    with tables.open_file(str(file), 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        h5.root.obs_B_T_Do[0, 0, 0] += 1e-9
    content = file.read_bytes()
    with pytest.raises(RunFailed, match='its 5 trajectories come out with other bits here, so none can be added'):
        run_stage(path, '0', ['training.full_dataset_num_trajs=6'], resume=True)
    assert file.read_bytes() == content


def test_a_damaged_trajectory_file_is_refused_in_every_stage(tiny):
    path, folder = tiny
    trajs = folder.parent / 'trajs' / 'trajs_cartpole_set0.h5'
    content = trajs.read_bytes()
    for damaged in (content[: len(content) // 2], content[:-4000] + bytes(1000) + content[-3000:]):
        trajs.write_bytes(damaged)
        for stage in ('0', '1', '2'):
            with pytest.raises(UserError, match='trajs_cartpole_set0.h5'):
                run_stage(path, stage, resume=True)
    assert not (folder / 'results.h5').exists()


def test_a_missing_expert_is_named_before_anything_is_sampled(tmp_path):
    path = write_spec(tmp_path, text=TINY.replace('classic/CartPole-v0.h5', 'classic/Nobody.h5'))
    _, err = im_pipeline(path, '0', code=2)
    assert "tasks[0].policy: no file for 'expert_policies/classic/Nobody.h5/snapshots/iter0000100'; expected FILE.h5/snapshots/" in err
    for old, new in (('iter0000100', 'iter0000007'), ('CartPole-v0\n', 'CartPole-v7\n')):
        with pytest.raises(UserError, match=new.strip()):
            run_stage(write_spec(tmp_path, text=TINY.replace(old, new)), '0')
    assert not list((tmp_path / 'store').rglob('*.h5'))


def test_own_data_need_no_expert_policy(tmp_path):
    text = SPEC.replace(SPEC[SPEC.index('- name: mountaincar') : SPEC.index('training:')], '')
    text = text.replace('  policy: expert_policies/classic/CartPole-v0.h5/snapshots/iter0000100\n', '')
    path = write_spec(tmp_path, text=text)
    with pytest.raises(UserError, match=r"the key 'policy' is missing.*trajs_cartpole.h5, kept with --resume"):
        run_stage(path, '0')
    with pytest.raises(
        UserError, match="trajs_cartpole.h5: no such file; .* Put your recordings there, or give the task 'cartpole' a policy"
    ):
        run_stage(path, '1')
    (folder := tmp_path / 'store' / 'trajs').mkdir(parents=True)
    expert = REPO / 'expert_policies/classic/CartPole-v0.h5/snapshots/last'  # as our own vis_mj.py plays it, with a seed of its own
    words = f'{REPO}/scripts/vis_mj.py {expert} --eval_only --count 4 --deterministic --seed 1 --out trajs_cartpole.h5'
    subprocess.run([sys.executable, *words.split()], check=True, cwd=folder, env=environment())
    run_stage(path, '0', resume=True)
    run_stage(path, '1')


def test_training_makes_complete_runs_with_their_seeds(trained):
    spec = load_spec(str(trained / 'spec.yaml'))
    from policyopt.files.training_log import read_root

    folder = trained / 'store' / 'checkpoints'
    assert sorted(p.name for p in folder.glob('alg=*')) == sorted(f'{i}.h5' for i in IDS)
    for run in spec.runs(0):
        root = read_root(run.out)
        assert int(root['seed']) == run.seed == derive_seed(0, run.id)
        assert root['args']['data'] == spec.traj_path('cartpole', run.run)
    assert (folder / 'logs' / f'{IDS[0]}.txt').read_text().splitlines()[0] == spec.runs(0)[0].command.text


def test_evaluation_gives_one_row_per_run_readable_with_pytables_alone(tiny):
    path, folder = tiny
    out, err = im_pipeline(path, '2_eval', '-j', 2)
    assert 'cartpole' in out and f'results: {folder}/results.h5' in out
    assert err.splitlines()[-1] == f'next: python scripts/analyze_results.py {folder}/results.h5'
    with tables.open_file(str(folder / 'results.h5')) as h5:
        rows, tasks = h5.root.results.read(), h5.root.tasks.read()
        assert h5.root._v_attrs['spec'] == path.read_text() and h5.root._v_attrs['run_name'] == 'tiny'
        said = {k: str(h5.root._v_attrs[k]) for k in h5.root._v_attrs._v_attrnamesuser}
    assert 'im_pipeline.py' in said['command'] and said['machine'].endswith(' cores')
    roots = [read_root(str(folder / f'{i}.h5')) for i in IDS]
    assert said['training_git_hash'] in {r['git_hash'] for r in roots}
    assert (said['training_start'], said['training_end']) == (min(r['start_time'] for r in roots), max(r['end_time'] for r in roots))
    spans = [datetime.fromisoformat(r['end_time']) - datetime.fromisoformat(r['start_time']) for r in roots]
    assert float(said['training_seconds']) == round(sum(s.total_seconds() for s in spans))
    assert [(r['alg'], r['task'], r['num_trajs'], r['run'], r['dataset']) for r in rows] == [
        (alg, b'cartpole', 2, run, run) for alg in (b'bclone', b'ga') for run in (0, 1)
    ]
    assert rows['alg_traj_returns'].shape == rows['alg_traj_lengths'].shape == (4, 4)
    assert rows['ex_traj_returns'].shape == (4, 3)
    assert np.array_equal(rows['alg_traj_returns'], rows['alg_traj_lengths'])  # cartpole earns 1 a step
    assert all(r['seed'] == derive_seed(0, i) for r, i in zip(rows, IDS, strict=True))
    assert list(rows['snapshot'][2:]) == [b'iter0000001'] * 2
    last = [read_log(str(folder / f'{i}.h5'))['trueret'][-1] for i in IDS[2:]]
    assert np.isnan(rows['last_trueret'][:2]).all() and np.array_equal(rows['last_trueret'][2:], last)  # cloning plays nothing
    sets = [arrays(folder.parent / 'trajs' / f'trajs_cartpole_set{k}.h5')['/r_B_T'].sum(axis=1) for k in (0, 1)]
    assert np.array_equal(rows['ex_traj_returns'], [*sets, *sets])
    assert np.array_equal(tasks['ex_traj_returns'][0], np.concatenate(sets))
    assert tasks['random_returns'].shape == (1, 4) and tasks['expert_policy'][0].startswith(b'expert_policies/')


def test_times_of_other_programs_do_not_stop_an_evaluation(tmp_path):
    paths = [str(tmp_path / f'{i}.h5') for i in range(4)]
    good = {'start_time': '2026-01-01T10:00:00+00:00', 'end_time': '2026-01-01T10:01:00+00:00', 'git_hash': 'abc'}
    for path, attrs in zip(paths, (good, {}, good | {'end_time': 'yesterday'}, good | {'end_time': '2026-01-01T10:01:00'}), strict=True):
        with write_h5(path) as h5:
            set_attrs(h5.root, attrs)
    said = [read_facts(path) for path in paths]
    facts = evaluate_stage.training_facts(said)
    assert facts['training_seconds'] == '60' and facts['training_git_hash'] == 'abc' and 'training_host' not in facts
    assert 'training_start' not in evaluate_stage.training_facts(said[1:])


def test_the_number_of_jobs_changes_no_number_and_rows_are_those_of_the_policy(tiny):
    path, folder = tiny
    spec = load_spec(str(path))
    stages.evaluate_runs(spec, quiet(jobs=2))
    two = arrays(folder / 'results.h5')
    os.remove(folder / 'results.h5')
    stages.evaluate_runs(spec, quiet(jobs=1))
    one = arrays(folder / 'results.h5')
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    row = results_file.read_results(folder / 'results.h5').rows[3]
    policy = f'{folder}/{IDS[3]}.h5/snapshots/{row.snapshot}'
    trajs = sample_episodes(*open_policy(policy), 4, derive_seed(0, 'evaluate', IDS[3]), True)
    assert np.array_equal(trajs.returns, row.alg_traj_returns) and np.array_equal(trajs.lengths, row.alg_traj_lengths)


def test_evaluation_opens_and_hashes_each_run_file_once(tiny, monkeypatch):
    path, folder = tiny
    counts = collections.Counter()

    def count(name, original):
        def counted(file, *args, **options):
            counts[name, file] += 1
            return original(file, *args, **options)

        return counted

    for module, name in ((tables, 'open_file'), (hdf5, 'read_seal')):
        monkeypatch.setattr(module, name, count(name, getattr(module, name)))
    stages.evaluate_runs(load_spec(str(path)), quiet(jobs=1))
    assert [counts[name, f'{folder}/{i}.h5'] for name in ('open_file', 'read_seal') for i in IDS] == [1] * 8
    sha256 = [row.run_sha256 for row in results_file.read_results(folder / 'results.h5').rows]
    assert sha256 == [hashlib.sha256((folder / f'{i}.h5').read_bytes()).hexdigest() for i in IDS]


def test_evaluation_needs_every_run_and_says_which_are_missing(tiny):
    path, folder = tiny
    os.remove(folder / f'{IDS[1]}.h5')
    os.rename(folder / f'{IDS[2]}.h5', folder / f'{IDS[2]}.h5.part')
    _, err = im_pipeline(path, '2', code=2)
    assert '2 of 4 runs are missing' in err and f'{IDS[1]}.h5' in err and f'{IDS[2]}.h5' in err and IDS[0] not in err
    assert not (folder / 'results.h5').exists() and not (folder / 'evaluated').exists()
    run_stage(path, '2', only=['alg=ga', 'run=1'])
    assert len(results_file.read_results(folder / 'results.h5').rows) == 1


def test_evaluation_overwrites_nothing_and_resume_keeps_complete_results(tiny):
    path, folder = tiny
    run_stage(path, '2', jobs=1)
    before = (folder / 'results.h5').stat().st_mtime_ns
    with pytest.raises(UserError, match='results.h5: exists already, and results are never overwritten'):
        run_stage(path, '2')
    out, err = im_pipeline(path, 'all', '--resume')
    assert 'cartpole  bclone' in out and 'already evaluated' in err and '4 of 4 runs are done' in err
    assert (folder / 'results.h5').stat().st_mtime_ns == before
    (folder.parent / 'trajs' / 'trajs_cartpole_set0.h5').unlink()
    run_stage(path, '2', resume=True)  # what has been evaluated needs no trajectories any more
    run_stage(path, '2', resume=True, exclude=['alg=ga'])  # the rows of ga stay
    assert (folder / 'results.h5').stat().st_mtime_ns == before
    (folder / 'results.h5').unlink()
    with pytest.raises(UserError, match=r'set0.h5: no such file; .* Make them with: .* 0_sampletrajs --resume'):
        run_stage(path, '2', only=['run=1'])  # of the other set


def test_sampled_actions_go_into_a_file_of_their_own(tiny):
    path, folder = tiny
    sampled = ['options.eval_deterministic=false']
    run_stage(path, '2', only=['alg=bclone', 'run=0'])
    before = (folder / 'pipeline.yaml').read_bytes()
    for stage, dry in (('2', False), ('2', True), ('all', False)):
        with pytest.raises(UserError, match='was played with other actions than options.eval_deterministic: false asks for'):
            run_stage(path, stage, sampled, resume=True, dry_run=dry, only=['alg=bclone', 'run=0'])
    assert (folder / 'pipeline.yaml').read_bytes() == before  # refused before anything is written
    run_stage(path, '2', [*sampled, 'options.results_filename=sampled.h5'], only=['alg=bclone', 'run=0'])
    likeliest, drawn = (results_file.read_results(folder / name) for name in ('results.h5', 'sampled.h5'))
    assert likeliest.attrs['eval_deterministic'] == 'true' and drawn.attrs['eval_deterministic'] == 'false'
    assert 'sampled actions' in heading(drawn) and 'sampled' not in heading(likeliest)
    run = load_spec(str(path)).runs(0)[0]
    policy, seed = f'{run.out}/snapshots/{drawn.rows[0].snapshot}', derive_seed(0, 'evaluate', run.id)
    for found, deterministic in ((likeliest, True), (drawn, False)):
        played = sample_episodes(*open_policy(policy, 'CartPole-v0'), 4, seed, deterministic)
        assert np.array_equal(found.rows[0].alg_traj_returns, played.returns)
    assert not np.array_equal(likeliest.rows[0].alg_traj_returns, drawn.rows[0].alg_traj_returns)


def test_rows_of_one_kind_of_actions_are_neither_used_nor_lost_by_the_other(tiny):
    path, folder = tiny
    spec, sampled = load_spec(str(path)), load_spec(str(path), ['options.eval_deterministic=false', 'options.results_filename=s.h5'])
    run = spec.runs(0)[0]
    os.makedirs(folder / 'evaluated')
    job, snapshot = evaluate_stage.Evaluation(spec, run, 0), read_run(run.out).snapshot
    evaluate_stage._evaluate(job, snapshot)
    assert evaluate_stage._read_row(dataclasses.replace(job, spec=sampled)) is None
    stages.evaluate_runs(sampled, quiet(jobs=1, only=['alg=bclone', 'run=0']))
    assert evaluate_stage._read_row(job) is not None and not (folder / 'evaluated_sampled').exists()


def test_runs_on_different_numbers_of_expert_sets_are_evaluated_together(tiny):
    path, folder = tiny
    run_stage(path, '2', ['options.results_filename=one.h5'], only=['alg=bclone', 'run=0'])
    run_stage(path, '2', ['options.results_filename=two.h5'])
    one, two = (results_file.read_results(folder / f'{name}.h5').tasks[0] for name in ('one', 'two'))
    assert np.array_equal(one.ex_traj_returns, two.ex_traj_returns) and len(one.ex_traj_returns) == 6


def test_rows_evaluated_before_an_interruption_are_used_again(tiny, capsys):
    path, folder = tiny
    spec = load_spec(str(path))
    os.makedirs(folder / 'evaluated')
    for run in spec.runs(0)[:3]:
        evaluate_stage._evaluate(evaluate_stage.Evaluation(spec, run, 0), read_run(run.out, spec.algorithm(run.alg).eval).snapshot)
    run_stage(path, '2', resume=True)
    assert (
        '3 of 4 runs were evaluated before' in capsys.readouterr().err and len(results_file.read_results(folder / 'results.h5').rows) == 4
    )
    assert not (folder / 'evaluated').exists()


def test_a_row_of_another_run_file_is_not_used_again(tiny):
    path, folder = tiny
    spec = load_spec(str(path))
    run = spec.runs(0)[0]
    job, snapshot = evaluate_stage.Evaluation(spec, run, 0), read_run(run.out).snapshot
    os.makedirs(folder / 'evaluated')
    evaluate_stage._evaluate(job, snapshot)
    assert evaluate_stage._read_row(job) is not None
    five = load_spec(str(path), ['options.eval_num_trajs=5'])
    assert evaluate_stage._read_row(dataclasses.replace(job, spec=five)) is None
    shutil.copy(folder / f'{IDS[1]}.h5', run.out)
    assert evaluate_stage._read_row(job) is None


@pytest.mark.slow
def test_a_killed_evaluation_leaves_no_workers_and_goes_on(tiny):
    path, folder = tiny
    path.write_text(path.read_text().replace('eval_num_trajs: 4', 'eval_num_trajs: 4000'))
    for p in (folder.parent / 'trajs').glob('random_*'):
        p.unlink()
    with started_pipeline(path, '2', '-j', 2) as pipeline:
        wait_until(lambda: (folder / 'evaluated').exists())
        workers = wait_until(lambda: children(pipeline.pid))
        os.kill(pipeline.pid, signal.SIGKILL)
        pipeline.wait()
    wait_until(lambda: not any(map(lives, workers)))
    assert not (folder / 'results.h5').exists()
    path.write_text(path.read_text().replace('4000', '4'))
    for p in (folder.parent / 'trajs').glob('random_*'):
        p.unlink()
    im_pipeline(path, '2', '--resume')
    assert len(results_file.read_results(folder / 'results.h5').rows) == 4


def test_a_second_evaluation_at_the_same_time_is_refused(tiny):
    path, folder = tiny
    from policyopt.pipeline import locks

    lock = locks.acquire(str(folder / 'locks' / '2_eval.lock'))
    _, err = im_pipeline(path, '2', code=1)
    lock.release()
    assert f'2_eval is being worked on by process {os.getpid()}' in err
    assert not (folder / 'results.h5').exists()


def fake_log(path, valacc, **attrs):
    with write_h5(str(path)) as h5:
        log = np.array([(i * 10, v) for i, v in enumerate(valacc)], dtype=[('iter', np.int32), ('valacc', np.float32)])
        h5.create_table('/', 'log', obj=log)
        h5.root._v_attrs['args'] = '{}'
        for i in range(len(valacc)):
            h5.create_group('/snapshots', f'iter{i * 10:07d}', createparents=True)
    return str(path)


def test_the_snapshot_with_the_best_valacc_is_chosen_and_nan_is_ignored(tmp_path):
    path = fake_log(tmp_path / 'a.h5', [-3.0, np.nan, -1.0, -1.0, -2.0])
    assert read_run(path, 'best_valacc').name == 'iter0000020'
    assert read_run(path, 'last').name == 'iter0000040'
    assert read_run(fake_log(tmp_path / 'c.h5', [0.5, 0.1]), 'best_valacc').name == 'iter0000000'
    with pytest.raises(UserError, match="no snapshot has a number in the column 'valacc'"):
        read_run(fake_log(tmp_path / 'b.h5', [np.nan] * 3), 'best_valacc')


def test_best_valacc_without_that_column_says_what_to_do(tiny):
    _, folder = tiny
    with pytest.raises(UserError, match="in the column 'valacc'.*Use eval: last"):
        read_run(str(folder / f'{IDS[2]}.h5'), 'best_valacc')


def test_results_without_the_return_of_the_last_batch_are_read(tmp_path):
    path = str(tmp_path / 'results.h5')
    a_results_file(path)
    with tables.open_file(path, 'a') as h5:
        old = h5.root.results.read()
        h5.remove_node('/results')
        h5.create_table('/', 'results', obj=rfn.drop_fields(old, 'last_trueret'))
        del h5.root._v_attrs['content_sha256']
    back = results_file.read_results(path).rows
    assert len(back) == 2 and math.isnan(back[1].last_trueret) and back[1].num_trajs == 4


def a_results_file(path):
    row = results_file.ResultRow('ga', 'x', 4, 0, 7, 'iter0000300', 0, np.ones(3), np.full(3, 2), np.arange(5.0), np.arange(5))
    task = results_file.TaskRow('x', 'Env-v0', '', np.ones(3), np.full(3, 2), np.zeros(5), np.ones(5, int))
    results_file.write_results(path, [row, row], [task], {'run_name': 'r', 'versions': {'numpy': '1'}})
    return row, task


def test_results_survive_writing_and_reading(tmp_path):
    path = str(tmp_path / 'results.h5')
    row, task = a_results_file(path)
    back = results_file.read_results(path)
    for field in ('alg', 'task', 'num_trajs', 'run', 'seed', 'snapshot', 'dataset'):
        assert getattr(back.rows[1], field) == getattr(row, field) and type(getattr(back.rows[1], field)) is type(getattr(row, field))
    assert np.array_equal(back.rows[0].alg_traj_returns, row.alg_traj_returns) and back.rows[0].alg_traj_lengths.dtype == np.int64
    assert back.tasks[0].env == 'Env-v0' and back.tasks[0].expert_policy == '' and back.attrs['run_name'] == 'r'
    assert math.isnan(back.rows[0].last_trueret)


def test_a_damaged_or_foreign_results_file_is_named(tmp_path, trained):
    path = tmp_path / 'results.h5'
    a_results_file(str(path))
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    with pytest.raises(UserError, match='results.h5: .*truncated'):
        results_file.read_results(str(path))
    at = content.index(np.arange(5.0).tobytes())
    path.write_bytes(content[:at] + b'\x01' + content[at + 1 :])
    with pytest.raises(UserError, match='damaged'):
        results_file.read_results(str(path))
    with pytest.raises(UserError, match='holds no table /results'):
        results_file.read_results(str(trained / 'store' / 'checkpoints' / f'{IDS[0]}.h5'))


def test_summary_and_progress_look_and_touch_nothing(tiny):
    path, folder = tiny
    before = {p: p.stat().st_mtime_ns for p in folder.parent.rglob('*')}
    out, err = im_pipeline(path, 'all', '--summary')
    assert out.splitlines()[0] == f'tiny: 2 of 2 trajectory files in {folder.parent}/trajs'
    assert out.splitlines()[-2].split() == ['all', '4', '0', '0', '0', '4'] and 'not evaluated yet' in out
    assert err == f'next: python scripts/im_pipeline.py {path} 2_eval\n'
    assert {p: p.stat().st_mtime_ns for p in folder.parent.rglob('*')} == before


def test_the_stage_is_checked(tiny):
    path, _ = tiny
    _, err = im_pipeline(path, '1_trian', code=2)
    assert "stage '1_trian': expected 0_sampletrajs" in err and "Did you mean '1_train'" in err


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_sentence_and_resume_completes(tiny, small_disk):
    path = write_spec(small_disk, text=TINY)
    ballast = small_disk / 'ballast'
    codes = []
    for free_kb in (0, 8, 50, 120, 300, 700, 1500, 3500):
        ballast.unlink(missing_ok=True)
        disk = os.statvfs(small_disk)
        ballast.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - 1024 * free_kb)))
        command = [sys.executable, IM_PIPELINE, path, 'all', '--resume', '-j', '2']
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert 'Traceback' not in done.stderr
        assert done.returncode == 0 or 'No space left on device' in done.stderr
        codes.append(done.returncode)
    assert codes[0] == 1 and codes[-1] == 0
    reference, folder = tiny
    run_stage(reference, '2')
    ours, theirs = (results_file.read_results(f / 'results.h5').rows for f in (small_disk / 'store' / 'checkpoints', folder))
    assert all(np.array_equal(a.alg_traj_returns, b.alg_traj_returns) and a.seed == b.seed for a, b in zip(ours, theirs, strict=True))
