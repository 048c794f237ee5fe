"""Results of a campaign that was run in parts: one file, as if it had been run at once, or one sentence."""

import dataclasses
import json

import numpy as np
import pytest
from results_tools import ATTRS, small_results, task_row

from policyopt.files.results_file import read_results, write_results

FIRST_HALF = [('bclone', 1, run) for run in range(3)] + [('ga', 4, run) for run in range(3)]
SECOND_HALF = [('bclone', 4, run) for run in range(3)] + [('ga', 1, run) for run in range(3)]
TRAINED = {'training_start': '2026-01-0{}T00:00:00+00:00', 'training_end': '2026-01-0{}T01:00:00+00:00', 'training_seconds': '3600'}


def part(path, drop=(), day=1, machine='Xeon, 2 cores', rows=None, tasks=None, **attrs):
    """Results of one day on one machine."""
    small_results(path, drop=drop)
    found = read_results(path)
    path.unlink()
    said = ATTRS | {k: v.format(day) for k, v in TRAINED.items()} | {'training_machine': machine} | attrs
    write_results(path, rows or found.rows, tasks or found.tasks, said)
    return path


@pytest.fixture
def halves(tmp_path):
    return part(tmp_path / 'a.h5', SECOND_HALF), part(tmp_path / 'b.h5', FIRST_HALF, 2, 'EPYC, 2 cores')


def equal_rows(xs, ys):
    """Whether two lists of rows are equal in every field and in their order."""
    pairs = [(getattr(x, f.name), getattr(y, f.name)) for x, y in zip(xs, ys, strict=True) for f in dataclasses.fields(x)]
    return all(np.array_equal(a, b) or (isinstance(a, float) and np.isnan([a, b]).all()) for a, b in pairs)


def test_parts_together_are_the_campaign_run_at_once(tmp_path, halves, run_script):
    whole = read_results(small_results(tmp_path / 'whole.h5'))
    for order, order_of in ((halves, ['Xeon, 2 cores', 'EPYC, 2 cores']), (halves[::-1], ['EPYC, 2 cores', 'Xeon, 2 cores'])):
        run_script('../tools/results/merge_results.py', *order, '-o', 'merged.h5')
        merged = read_results(tmp_path / 'merged.h5')
        assert equal_rows(sorted(merged.rows, key=lambda r: r.alg), whole.rows) and equal_rows(merged.tasks, whole.tasks)
        assert (merged.attrs['training_start'][:10], merged.attrs['training_end'][:10]) == ('2026-01-01', '2026-01-02')
        assert (merged.attrs['training_seconds'], merged.attrs['training_machine']) == ('7200', ', '.join(order_of))
        assert [(o['file'], o['runs']) for o in json.loads(merged.attrs['merged_from'])] == [(str(p), 6) for p in order]
        (tmp_path / 'merged.h5').unlink()


def test_a_merged_file_is_analysed_and_merged_like_any_other(tmp_path, halves, run_script):
    ga_1 = part(tmp_path / 'c.h5', [(a, n, r) for a in ('bclone', 'ga') for n in (1, 4) for r in range(3) if (a, n) != ('ga', 1)])
    bclone_4 = part(tmp_path / 'd.h5', [(a, n, r) for a in ('bclone', 'ga') for n in (1, 4) for r in range(3) if (a, n) != ('bclone', 4)])
    run_script('../tools/results/merge_results.py', halves[0], ga_1, '-o', 'three.h5')  # both of one machine
    assert read_results(tmp_path / 'three.h5').attrs['training_machine'] == 'Xeon, 2 cores'
    done = run_script('../tools/results/merge_results.py', 'three.h5', bclone_4, '-o', 'all.h5')
    assert 'next: python scripts/analyze_results.py all.h5' in done.stderr
    origins = json.loads(read_results(tmp_path / 'all.h5').attrs['merged_from'])
    assert [(o['file'], o['runs']) for o in origins] == [(str(halves[0]), 6), (str(ga_1), 3), (str(bclone_4), 3)]
    run_script('analyze_results.py', 'all.h5', '--csv', 'all.csv')
    assert 'im_pipeline.py pipelines/small.yaml all' in (tmp_path / 'all_cells.csv').read_text()


def test_what_older_parts_do_not_say_is_left_out(tmp_path, halves, run_script):
    newer = part(tmp_path / 'c.h5', FIRST_HALF, training_numerics='AVX512')
    run_script('../tools/results/merge_results.py', halves[0], newer, '-o', 'merged.h5')
    assert read_results(tmp_path / 'merged.h5').attrs['training_numerics'] == 'AVX512'


def test_other_episodes_of_the_expert_are_said(tmp_path, halves, run_script):
    other = part(tmp_path / 'c.h5', FIRST_HALF, tasks=[task_row(random=21.0)])
    done = run_script('../tools/results/merge_results.py', halves[0], other, '-o', 'merged.h5')
    assert done.stderr.startswith(f'note: {other}: other episodes of the expert or the random policy of cartpole than in {halves[0]}')
    assert read_results(tmp_path / 'merged.h5').tasks[0].random_returns[0] == 20


def test_sampled_parts_make_a_sampled_file_and_no_file_is_replaced(tmp_path, halves, run_script):
    for name, some in (('a', SECOND_HALF), ('b', FIRST_HALF)):
        part(tmp_path / f's{name}.h5', some, eval_deterministic='false')
    run_script('../tools/results/merge_results.py', 'sa.h5', 'sb.h5', '-o', 'merged.h5')
    assert read_results(tmp_path / 'merged.h5').attrs['eval_deterministic'] == 'false'
    done = run_script('analyze_results.py', 'merged.h5', '--markdown', 'merged.md')
    assert 'Played with sampled actions' in done.stdout and 'Played with sampled actions' in (tmp_path / 'merged.md').read_text()
    assert 'sampled' not in run_script('analyze_results.py', 'a.h5').stdout
    (tmp_path / 'mine.yaml').write_text('precious')
    assert 'mine.yaml: exists already' in run_script('../tools/results/merge_results.py', 'a.h5', 'b.h5', '-o', 'mine.yaml', rc=2).stderr
    assert (tmp_path / 'mine.yaml').read_text() == 'precious'


def longer(path):
    """The rows of a file, judged by one episode more."""
    return [dataclasses.replace(r, alg_traj_returns=np.ones(3), alg_traj_lengths=np.ones(3, int)) for r in read_results(path).rows]


WRONG = {
    'a run twice': ({}, 'holds the run alg=bclone,task=cartpole,num_trajs=1,run=0, as a.h5 does'),
    'another name': ({'run_name': 'large'}, 'holds another experiment than a.h5'),
    'another training': ({'spec': ATTRS['spec'].replace('runs: 3', 'runs: 4')}, 'holds another experiment than a.h5'),
    'no campaign': ({'spec': '[]'}, 'its attribute spec has no tasks and training'),
    'no YAML': ({'spec': '{'}, 'c.h5: the attribute spec'),
    'another environment': ({'tasks': [dataclasses.replace(task_row(), env='CartPole-v1')]}, 'its task cartpole is CartPole-v1 with'),
    'a task that is not in it': ({'tasks': [task_row('hopper')]}, "its task 'hopper' is not in its experiment; expected one of cartpole"),
    'tasks that are none': ({'spec': '{tasks: 3, training: {}}'}, 'its attribute spec has no tasks and training'),
    'a time that is none': ({'training_seconds': 'long'}, "its attribute training_seconds is 'long', not a number"),
    'sampled actions': ({'eval_deterministic': 'false'}, 'c.h5: was played with sampled actions, a.h5 with the most likely ones'),
    'a damaged origin': ({'merged_from': '{'}, 'its attribute merged_from is no list in JSON'),
}


@pytest.mark.parametrize('case', WRONG)
def test_parts_that_do_not_fit_give_one_sentence_and_no_file(tmp_path, halves, run_script, case):
    changed, sentence = WRONG[case]
    part(tmp_path / 'c.h5', () if case == 'a run twice' else FIRST_HALF, **changed)
    done = run_script('../tools/results/merge_results.py', 'a.h5', 'c.h5', '-o', 'merged.h5', rc=2)
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / 'merged.h5').exists()


def test_other_numbers_of_episodes_and_a_file_that_exists_are_refused(tmp_path, halves, run_script):
    part(tmp_path / 'c.h5', FIRST_HALF, rows=longer(halves[1]))
    done = run_script('../tools/results/merge_results.py', 'a.h5', 'c.h5', '-o', 'merged.h5', rc=2)
    assert 'the runs were judged by different numbers of episodes (2 in a.h5, 3 in c.h5); expected one number' in done.stderr
    before = halves[1].read_bytes()
    run_script('../tools/results/merge_results.py', 'a.h5', 'b.h5', '-o', 'b.h5', rc=2)
    assert halves[1].read_bytes() == before
