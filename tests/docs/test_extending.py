"""The table of algorithms, and what docs/extending.md promises: a reward that is added by one class and one row really trains."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO, script_env
from training_tools import RUNS, differences, run, run_until

from policyopt import algorithms
from policyopt.files.training_log import read_log, snapshot_names
from policyopt.files.trajectory_file import save_trajs
from policyopt.trajectories import TrajBatch

EXAMPLE = re.search(r'```python\n(# my_reward.py.*?)```', (REPO / 'docs' / 'extending.md').read_text(encoding='utf-8'), re.S)[1]
# the trainer as it is, in a process that has read the module of docs/extending.md
TRAIN = """
import my_reward, sys
from policyopt import commands
sys.exit(commands.run('imitate_mj', sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with the module of docs/extending.md, a trainer that knows it, and expert data that could be CartPole's."""
    (tmp_path / 'my_reward.py').write_text(EXAMPLE)
    (tmp_path / 'train.py').write_text(TRAIN)
    rng = np.random.RandomState(0)
    trajs = TrajBatch(rng.randn(120, 4) * 0.1, rng.rand(120, 2), rng.randint(2, size=(120, 1)), np.ones(120), [40, 40, 40])
    save_trajs(str(tmp_path / 'trajs.h5'), trajs, {'env_name': 'CartPole-v0'})
    return tmp_path


def logit_run(folder, word='logit'):
    return [str(folder / 'train.py'), *RUNS['ga'][1:], '--reward_type', word]


def test_a_reward_of_one_class_and_one_row_trains_and_continues_bit_for_bit(folder):
    run(logit_run(folder), folder, '--log', 'logit.h5')
    log = read_log(folder / 'logit.h5')
    assert len(log) == 31 and 'racc' in log.dtype.names and snapshot_names(folder / 'logit.h5')[-1] == 'iter0000030'
    assert log['avgunregr'].min() < 0, 'a classifier of ours pays nothing below zero: this was not the new class'
    assert run_until(logit_run(folder), folder, 5, signal.SIGTERM, '--log', 'again.h5') == 75
    run(logit_run(folder), folder, '--log', 'again.h5', '--resume')
    assert differences(folder / 'logit.h5', folder / 'again.h5') == []


def test_the_row_is_all_that_pipeline_and_pictures_need(folder):
    code = (
        'import my_reward\nfrom policyopt import algorithms\nfrom policyopt.pipeline.spec import load_spec\n'
        'from policyopt.reporting.figures import styles_of\n'
        f'spec = load_spec({str(REPO / "pipelines" / "classic.yaml")!r}, ["training.algorithms.ga.name=logit2"])\n'
        'print(spec.algorithm("logit2").eval, styles_of(["logit"])["logit"]["color"], algorithms.label_of("logit"))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, env=script_env(), capture_output=True, text=True, timeout=60)
    assert done.stdout == 'last #000000 logit of the discriminator\n', done.stderr


def test_a_reward_without_a_row_is_refused_with_those_that_have_one(folder):
    err = run(logit_run(folder, 'logits'), folder, rc=2).stderr
    assert "'logits'" in err and all(f"'{word}'" in err for word in ('nn', 'l2ball', 'simplex', 'logit'))


@pytest.mark.parametrize(('name', 'row'), [('ga', 'ga'), ('ga_entreg-3', 'ga'), ('simplex2', 'simplex'), ('bclone', 'bclone'), ('g', None)])
def test_names_begin_with_that_of_their_row(name, row):
    assert algorithms.find(name) == (algorithms.ALGORITHMS[row] if row else None)


def test_an_algorithm_is_found_by_the_first_word_of_its_name():
    rows = algorithms.ALGORITHMS
    assert all(algorithms.find(name) is rows['ga'] for name in ('ga', 'ga_entreg-3', 'ga+0.1', 'ga2'))
    assert algorithms.find('gail_wide') is rows['gail'] and algorithms.find('garden') is None and algorithms.find('') is None


def test_every_row_can_be_built_and_looks_like_no_other():
    rows = algorithms.ALGORITHMS.values()
    assert all(row.mode in algorithms.MODES and row.rule in algorithms.RULES for row in rows)
    methods = ('from_options', 'compute_reward', 'fit', 'update_inputnorm', 'export', 'load', 'state', 'load_state')
    assert all(callable(getattr(algorithms.load(name), m)) for name in algorithms.rewards().values() for m in methods)
    assert all(callable(algorithms.load(mode.optimizer)) for mode in algorithms.MODES.values())
    for look in ('label', 'colour', 'line', 'marker'):
        assert len({getattr(row, look) for row in rows}) == len(rows)
