"""A campaign grows: results get the rows that are missing, keep the others to the bit, and say what is out of date."""

import os
import shutil

import numpy as np
import pytest
import tables
from pipeline_tools import im_pipeline
from test_stages import IDS, arrays, tiny, trained  # noqa: F401
from test_stages import run_stage as in_this_process

from policyopt.errors import UserError
from policyopt.files import results_file
from policyopt.pipeline import stages


def run_stage(path, stage, overrides=(), **options):
    """A stage in this process, without workers, which take longer to start than to play."""
    in_this_process(path, stage, overrides, **{'jobs': 1} | options)


def same(a, b):
    """Whether two rows are equal to the bit."""
    values = [[np.asarray(getattr(row, f)).tobytes() for f in row.__dataclass_fields__] for row in (a, b)]
    return values[0] == values[1]


def rows_of(folder):
    return {
        f'alg={r.alg},task={r.task},num_trajs={r.num_trajs},run={r.run}': r for r in results_file.read_results(folder / 'results.h5').rows
    }


def test_rows_are_added_and_the_file_is_that_of_one_evaluation(tiny, capsys):  # noqa: F811
    path, folder = tiny
    run_stage(path, '2', only=['alg=ga', 'run=1'])
    first = rows_of(folder)[IDS[3]]
    with pytest.raises(UserError, match='never overwritten; move it away, or add to it with --resume'):
        run_stage(path, '2')
    out, err = im_pipeline(path, '2', '--summary')
    assert f'results: 1 of 4 runs in {folder}/results.h5' in out and err.endswith('2_eval --resume\n') and 'stale' not in err
    os.rename(folder / f'{IDS[3]}.h5', folder.parent / 'elsewhere.h5')  # what has a row needs no file
    run_stage(path, '2', resume=True, only=['alg=ga'])
    assert list(rows_of(folder)) == [IDS[2], IDS[3]] and same(rows_of(folder)[IDS[3]], first)
    with tables.open_file(str(folder / 'results.h5')) as h5:
        assert 'training_seconds' not in h5.root._v_attrs and 'training_host' in h5.root._v_attrs
    os.rename(folder.parent / 'elsewhere.h5', folder / f'{IDS[3]}.h5')
    run_stage(path, '2', resume=True)
    grown, facts = arrays(folder / 'results.h5'), results_file.read_results(folder / 'results.h5').attrs
    os.remove(folder / 'results.h5')
    run_stage(path, '2')
    at_once, expected = arrays(folder / 'results.h5'), results_file.read_results(folder / 'results.h5').attrs
    assert list(rows_of(folder)) == IDS and all(grown[n].tobytes() == at_once[n].tobytes() for n in at_once)
    assert facts['training_seconds'] == expected['training_seconds'] and facts['spec'] == expected['spec']


def test_other_trajectories_under_kept_rows_are_refused(tiny):  # noqa: F811
    path, folder = tiny
    run_stage(path, '2', only=['run=0'])
    stored = (folder / 'results.h5').read_bytes()
    for trajs in folder.parent.glob('trajs/trajs_*.h5'):
        with tables.open_file(str(trajs), 'a') as h5:
            h5.root.r_B_T[...] = 3 * h5.root.r_B_T[...]
            if 'content_sha256' in h5.root._v_attrs:
                del h5.root._v_attrs.content_sha256
    with pytest.raises(UserError, match='other returns of the expert of task'):
        run_stage(path, '2', resume=True)
    assert (folder / 'results.h5').read_bytes() == stored


def test_what_has_changed_is_named_and_redone_only_if_asked(tiny, capsys):  # noqa: F811
    path, folder = tiny
    run_stage(path, '2')
    before = rows_of(folder)
    shutil.copy(folder / f'{IDS[1]}.h5', folder / f'{IDS[0]}.h5')
    out, err = im_pipeline(path, '2', '--summary')
    stale = f'stale: {IDS[0]}: its run file has changed since it was evaluated; evaluate it again with 2_eval --resume --rerun {IDS[0]}\n'
    assert stale in err and err.count('stale') == 1
    stamp = (folder / 'results.h5').stat().st_mtime_ns
    capsys.readouterr()
    run_stage(path, '2', resume=True)
    assert stale in capsys.readouterr().err and (folder / 'results.h5').stat().st_mtime_ns == stamp
    run_stage(path, '2', resume=True, rerun=[IDS[0]])
    after = rows_of(folder)
    assert 'stale' not in capsys.readouterr().err and not same(before[IDS[0]], after[IDS[0]])
    assert all(same(before[i], after[i]) for i in IDS[1:]) and list(after) == IDS
    run_stage(path, '2', ['tasks.cartpole.max_traj_len=50'], resume=True)
    err = capsys.readouterr().err
    assert err.count('stale') == 4 and 'seed 1' in err and ', max_traj_len 50' in err
    assert f'note: 4 of these runs, first {IDS[0]}, were made by other commands than {path} has now' in err
    assert all(same(after[i], row) for i, row in rows_of(folder).items())
    run_stage(path, '2', ['tasks.cartpole.max_traj_len=50'], resume=True, rerun=['alg=ga'])
    assert all(r.alg_traj_lengths.max() <= 50 for i, r in rows_of(folder).items() if 'alg=ga' in i)
    with pytest.raises(UserError, match="^--rerun alg=fem: no run has alg 'fem'"):
        run_stage(path, '2', resume=True, rerun=['alg=fem'])
    with pytest.raises(UserError, match="--rerun with stage '1'.*expected 2_eval or all"):
        run_stage(path, '1', resume=True, rerun=['alg=ga'])


def test_a_long_list_of_stale_rows_is_cut(tiny, capsys, monkeypatch):  # noqa: F811
    path, _ = tiny
    run_stage(path, '2')
    monkeypatch.setattr(stages, 'MAX_STALE', 3)
    capsys.readouterr()
    run_stage(path, '2', ['tasks.cartpole.max_traj_len=50'], resume=True)
    *named, last = [line for line in capsys.readouterr().err.splitlines() if line.startswith('stale')]
    assert len(named) == 3 and last == "stale: and 1 more; --rerun 'alg=*' evaluates all runs again"


def test_what_follows_training_adds_to_results_that_are_there(tiny, capsys):  # noqa: F811
    path, _ = tiny
    run_stage(path, '1', resume=True)
    assert capsys.readouterr().err.endswith(f'{path} 2_eval\n')
    run_stage(path, '2')
    capsys.readouterr()
    run_stage(path, '1', resume=True)
    assert capsys.readouterr().err.endswith(f'{path} 2_eval --resume\n')


def test_a_dry_run_names_the_trajectories_that_its_commands_need(tiny, capsys):  # noqa: F811
    path, folder = tiny
    (folder.parent / 'trajs' / 'trajs_cartpole_set1.h5').unlink()
    run_stage(path, '1', dry_run=True)
    err = capsys.readouterr().err
    assert 'need 1 trajectory files that are not there, first' in err and 'trajs_cartpole_set1.h5; 0_sampletrajs makes them' in err


def test_rows_of_other_numbers_of_episodes_do_not_mix(tiny, capsys):  # noqa: F811
    path, folder = tiny
    run_stage(path, '2', only=['alg=ga'])
    seven = ['options.eval_num_trajs=7']
    with pytest.raises(UserError, match='evaluated with 4 episodes, but options.eval_num_trajs is 7; set it back, or redo all .* --rerun'):
        run_stage(path, '2', seven, resume=True)
    with pytest.raises(UserError, match="random_cartpole.h5: holds 4 episodes .* asks for 7 of 'CartPole-v0'; delete it"):
        run_stage(path, '1', seven, resume=True)  # before anything is trained
    os.remove(folder.parent / 'trajs' / 'random_cartpole.h5')
    with pytest.raises(UserError, match='evaluated with 4 episodes, but options.eval_num_trajs is 7'):
        run_stage(path, '1', [*seven, 'training.runs=3'], resume=True)
    run_stage(path, '2', seven, resume=True, rerun=['alg=*'])
    assert {len(r.alg_traj_returns) for r in rows_of(folder).values()} == {7} and len(rows_of(folder)) == 4


def test_results_grow_with_the_expert_sets(tiny):  # noqa: F811
    path, folder = tiny
    more = ['training.full_dataset_num_trajs=5']
    run_stage(path, '2', only=['alg=ga'])
    before = rows_of(folder)
    run_stage(path, '0', more, resume=True)
    run_stage(path, '2', more, resume=True)
    after = rows_of(folder)
    assert all(np.array_equal(after[i].ex_traj_returns[:3], r.ex_traj_returns) for i, r in before.items())
    assert {len(r.ex_traj_returns) for r in after.values()} == {5}
    assert all(np.array_equal(after[i].alg_traj_returns, r.alg_traj_returns) for i, r in before.items())
    assert len(results_file.read_results(folder / 'results.h5').tasks[0].ex_traj_returns) == 10


def test_results_from_before_rows_said_how_they_were_made_are_kept(tiny, capsys):  # noqa: F811
    path, folder = tiny
    run_stage(path, '2', only=['alg=ga'])
    with tables.open_file(str(folder / 'results.h5'), 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        table = h5.root.results.read()
        names = [n for n in table.dtype.names if n not in ('run_sha256', 'evaluated')]
        old = np.empty(len(table), [(n, table.dtype[n]) for n in names])
        for n in names:
            old[n] = table[n]
        h5.remove_node('/results')
        h5.create_table('/', 'results', obj=old)
    run_stage(path, '2', resume=True)
    assert 'stale' not in capsys.readouterr().err
    assert [bool(r.evaluated) for r in rows_of(folder).values()] == [True, True, False, False]


def test_a_dry_run_says_what_would_happen(tiny, capsys):  # noqa: F811
    path, folder = tiny
    with pytest.raises(UserError, match='set0.h5: exists already'):
        run_stage(path, '0', dry_run=True)
    os.remove(folder.parent / 'trajs' / 'trajs_cartpole_set1.h5')
    run_stage(path, '0', dry_run=True, resume=True)
    err = capsys.readouterr().err
    assert 'set0.h5: kept' in err and err.count('would sample') == 1 and '0_sampletrajs would sample' in err and 'set1.h5' in err
    run_stage(path, '0', resume=True)
    run_stage(path, '2', dry_run=True)
    assert '2_eval would evaluate 4 of 4 runs into' in capsys.readouterr().err and not (folder / 'results.h5').exists()
    run_stage(path, '2', only=['alg=ga'])
    with pytest.raises(UserError, match='exists already'):
        run_stage(path, '2', dry_run=True)
    os.remove(folder / f'{IDS[0]}.h5')
    with pytest.raises(UserError, match='1 of 4 runs are missing'):
        run_stage(path, '2', dry_run=True, resume=True)
    run_stage(path, 'all', dry_run=True, resume=True)
    assert '2_eval would evaluate 2 of 4 runs into' in capsys.readouterr().err


def test_fifty_episodes_are_judged_unless_told_otherwise(tiny):  # noqa: F811
    from policyopt.pipeline.spec import load_spec

    path, _ = tiny
    path.write_text(path.read_text().replace('  eval_num_trajs: 4\n', ''))
    assert load_spec(str(path)).options.eval_num_trajs == 50


def seed_of_words(h5):
    h5.root._v_attrs['seed'] = 'seven'


def ends_before_it_starts(h5):
    h5.root._v_attrs['start_time'], h5.root._v_attrs['end_time'] = '2026-01-02T00:00:00+00:00', '2026-01-01T00:00:00+00:00'


def another_name(h5):
    h5.root.snapshots.iter0000000._f_rename('final')


def no_log(h5):
    h5.remove_node('/log')


def log_of(**columns):
    """Replace /log by these columns; None leaves the column out."""

    def change(h5):
        log = h5.root.log.read()
        found = {n: log[n] for n in log.dtype.names} | columns
        table = np.empty(len(log), [(n, np.asarray(x).dtype, np.shape(x)[1:]) for n, x in found.items() if x is not None])
        for n in table.dtype.names:
            table[n] = found[n]
        h5.remove_node('/log')
        h5.create_table('/', 'log', obj=table)

    return change


ODD_RUNS = {
    'a seed of words': (seed_of_words, "the attribute 'seed' is 'seven'; expected a whole number"),
    'an end before the start': (ends_before_it_starts, "the attribute 'end_time' is 2026-01-01T00:00:00+00:00, before 'start_time'"),
    'a snapshot of another name': (another_name, "/snapshots/final: a snapshot that is called 'final'; expected iter0000100"),
    'true returns of words': (log_of(trueret=[b'much'] * 21), "/log: the column 'trueret' holds |S4; expected a number in each row"),
    'true returns of vectors': (log_of(trueret=np.ones((21, 3))), "/log: the column 'trueret' holds float64 of shape (3,)"),
    'accuracies of words': (log_of(valacc=[b'x'] * 21), "/log: the column 'valacc' holds |S1"),
    'accuracies of vectors': (log_of(valacc=np.ones((21, 2))), "/log: the column 'valacc' holds float64 of shape (2,)"),
    'no iterations': (log_of(iter=None), "/log has no column 'iter'"),
    'iterations that are fractions': (log_of(iter=np.arange(21) + 0.5), "/log: the column 'iter' holds float64; expected a whole number"),
    'negative iterations': (log_of(iter=np.arange(21) - 3), "the column 'iter' of /log holds -3"),
    'no log': (no_log, "no snapshot has a number in the column 'valacc' of its log"),
}


@pytest.mark.parametrize('case', ODD_RUNS)
def test_odd_run_files_are_refused_before_anything_plays(case, tiny):  # noqa: F811
    path, folder = tiny
    change, expected = ODD_RUNS[case]
    with tables.open_file(str(folder / f'{IDS[1]}.h5'), 'a') as h5:
        del h5.root._v_attrs['content_sha256']
        change(h5)
    with pytest.raises(UserError) as e:
        run_stage(path, '2', jobs=1)
    assert expected in str(e.value) and f'{IDS[1]}.h5' in str(e.value)
    assert not (folder / 'evaluated').exists() and not (folder / 'results.h5').exists()


@pytest.mark.parametrize('name', ['seed.txt', 'git_hash.txt', 'pipeline.yaml', 'list'])
def test_what_a_folder_remembers_must_be_text(name, tiny):  # noqa: F811
    path, folder = tiny
    path.write_text(path.read_text().replace('  seed: 0\n', ''))
    (folder / name).write_bytes(b'0\xff\n')
    options = {'task_list': str(folder / name), 'task_index': 1} if name == 'list' else {'resume': True}
    with pytest.raises(UserError, match=f'{name}: line 1: byte 0x[0-9a-f]{{2}} is not UTF-8 text; expected '):
        run_stage(path, '1', [] if name == 'seed.txt' else ['training.seed=0'], **options)


def test_a_seed_of_thousands_of_digits_is_none(tiny):  # noqa: F811
    path, folder = tiny
    path.write_text(path.read_text().replace('  seed: 0\n', ''))
    for odd in ('9' * 5000, '\uff11', '-1', ''):
        (folder / 'seed.txt').write_text(odd)
        with pytest.raises(UserError, match='seed.txt: .*; expected the base seed of this folder'):
            run_stage(path, '1', resume=True)


@pytest.mark.parametrize('stage, name', [('0', 'trajs_cartpole_set0.h5'), ('0', 'random_cartpole.h5'), ('2', 'results.h5')])
def test_a_link_to_nothing_is_refused_before_anything_plays(stage, name, tiny, capsys, monkeypatch):  # noqa: F811
    path, folder = tiny
    monkeypatch.setattr('policyopt.evaluation.sample_episodes', None)  # calling it would be a TypeError
    target = folder / name if stage == '2' else folder.parent / 'trajs' / name
    target.unlink(missing_ok=True)
    os.symlink('/mnt/elsewhere/x.h5', target)
    with pytest.raises(UserError, match=f'{name}: is a link to nothing .*or remove the link'):
        run_stage(path, stage, resume=True)


def test_a_rule_that_no_log_will_fit_is_refused_before_training(tiny):  # noqa: F811
    path, _ = tiny
    with pytest.raises(UserError, match=r"eval=best_valacc: best_valacc with --mode ga, .* no column 'valacc'; expected eval: last"):
        run_stage(path, '1', ['training.algorithms.ga.eval=best_valacc'], resume=True)


def test_an_unfinished_run_is_named_where_it_stands(tiny, run_script):  # noqa: F811
    _, folder = tiny
    (folder / 'x.h5.part').write_bytes((folder / f'{IDS[2]}.h5').read_bytes())
    err = run_script('vis_mj.py', folder / 'x.h5/snapshots/last', '--eval_only', '--count', 1, rc=2).stderr
    assert (
        f'{folder}/x.h5: no such file, since that run is not finished; play what it has so far with {folder}/x.h5.part/snapshots/last'
        in err
    )
    run_script('vis_mj.py', folder / 'x.h5.part/snapshots/last', '--eval_only', '--count', 1)
