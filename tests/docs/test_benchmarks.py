"""Benchmarks that no other test runs: that they still run, and that their numbers add up."""

import json

import pytest
from command_tools import run_command


def test_the_parts_of_an_iteration_add_up_to_its_time(tmp_path):
    command = ['benchmarks/iteration.py', '--task', 'cartpole', '--iterations', '2', '--json', 'rows.json']
    done = run_command(*command, cwd=tmp_path)
    gail, ga = json.loads((tmp_path / 'rows.json').read_text())['rows']
    parts = 'sampling', 'policy', 'value', 'classifier', 'penalty', 'other'
    for row in gail, ga:
        assert row['total'] == pytest.approx(sum(row[part] for part in parts))
        assert all(row[part] > 0 for part in parts if part != 'penalty')
    assert (gail['alg'], ga['alg']) == ('gail', 'ga') and gail['penalty'] > 0 and ga['penalty'] == 0
    assert 0 < ga['by hand'] and 'by hand' not in gail
    assert [line.split()[:2] for line in done.stdout.splitlines()[3:5]] == [['gail', 'cartpole'], ['ga', 'cartpole']]


def test_more_environments_in_lock_step_are_faster():
    from benchmarks import scaling

    assert scaling.pairs_per_second(64, repeats=2) > 3 * scaling.pairs_per_second(1, repeats=2)
