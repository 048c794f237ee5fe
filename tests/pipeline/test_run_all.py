"""run_all.sh: everything from one command, the same again without training, and comparisons only where they belong."""

import csv
import re
import subprocess
import sys

import pytest
from command_tools import REPO, run_command, script_env
from pipeline_tools import spec_text, write_trajs
from results_tools import write_csv

from policyopt.pipeline.spec import load_spec
from policyopt.reporting.reference import read_reference

OPTIONS = '--env {env} --data {dataset} --limit_trajs {num_trajs} --data_subsamp_freq {data_subsamp_freq} --log {out}'
ALGORITHMS = {
    'bclone': f'python scripts/imitate_mj.py --mode bclone --max_iter 301 --bclone_eval_freq 100 {OPTIONS}',
    'ga': f'python scripts/imitate_mj.py --mode ga --max_iter 201 --min_total_sa 300 --sim_batch_size 1 {OPTIONS}',
}
SPEC = spec_text(
    ALGORITHMS, options={'eval_num_trajs': 4, 'reference': 'published results.csv'}, full_dataset_num_trajs=3, dataset_num_trajs=[2], runs=2
)
OUTPUTS = [f'results{end}' for end in ('.csv', '.h5', '.html', '.md', '_aggregate.csv', '_cells.csv', '_figure1.png', '_reproduction.png')]


@pytest.fixture
def folder(tmp_path):
    """A folder with spec.yaml and its reference, which knows one of its two cells; the names of both have blanks."""
    path = tmp_path / 'my experiments'
    path.mkdir()
    (path / 'spec.yaml').write_text(SPEC)
    columns = ['task', 'alg', 'num_trajs', 'run', 'return_mean']
    write_csv(path / 'published results.csv', columns, [['cartpole', 'ga', 2, run, 100 + run] for run in range(3)])
    return path


def run_all_sh(folder, *args):
    """The real script, with the Python that runs the tests as its active environment."""
    command = ['bash', str(REPO / 'scripts' / 'run_all.sh'), *args]
    done = subprocess.run(command, cwd=folder, env=script_env(VIRTUAL_ENV=sys.prefix), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, f'exit code {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done


def run_all(folder, *args, rc=0):
    """What the script calls."""
    done = run_command('policyopt/commands/run_all.py', *args, cwd=folder, rc=rc)
    assert 'Traceback' not in done.stderr
    return done


@pytest.mark.slow
def test_one_command_does_it_all_and_again_without_training(folder):
    first = run_all_sh(folder, 'spec.yaml', '-j', '2')
    checkpoints = folder / 'store' / 'checkpoints'
    assert sorted(p.name for p in checkpoints.glob('results*')) == OUTPUTS
    stages, table = re.split(r'(?m)^(?=Variance between expert sets: )', first.stdout)
    assert re.match(r'(?s)cartpole: expert .*\n4 of 4 runs to do: about \d+ seconds with 2 at a time \(.*\)\nresults: .*\n$', stages)
    assert re.search(r'(?m)^ga .* (too few data|better|worse)$', table) and re.search(r'(?m)^cartpole +ga +\d+ ± \d+ \(101\)', table)
    ending = first.stdout.split('\n\n')[-1]
    named = re.findall(r'(?<= store/checkpoints/)results[\w.]+', ending)
    assert sorted([*named, *(f'results{end}.csv' for end in ('', '_aggregate', '_cells'))]) == OUTPUTS
    assert ', .csv (per run), _cells.csv ' in ending
    assert first.stdout.count('bclone') == 2, 'the table stands there once'
    page = (checkpoints / 'results.html').read_text()
    assert page.count('src="data:image/png;base64,') == 4 and not re.search(r'(src|href)="(?!data:)', page)
    with open(checkpoints / 'results.csv', newline='') as f:
        assert [(row['alg'], row['run']) for row in csv.DictReader(f)] == [('bclone', '0'), ('bclone', '1'), ('ga', '0'), ('ga', '1')]

    kept = {p.name: p.stat().st_mtime_ns for p in [*checkpoints.glob('alg=*'), checkpoints / 'results.h5']}
    tables = {name: (checkpoints / name).read_text() for name in ('results.csv', 'results_cells.csv', 'results.md')}
    again = run_all_sh(folder, 'spec.yaml', '-j', '2')
    assert 'to do' not in again.stdout and '4 of 4 runs are done' in again.stderr
    assert again.stdout.endswith(table)
    assert kept == {name: (checkpoints / name).stat().st_mtime_ns for name in kept}
    assert tables == {name: (checkpoints / name).read_text() for name in tables}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['options.reference=publshed.csv'], "spec.yaml: options.reference: no such file 'publshed.csv'; expected a CSV of published"),
        (['options.reference=12'], '--set options.reference=12: 12 (number); expected a CSV of published results'),
        (['options.reference=spec.yaml'], "has no column 'task'"),
        (['training.dataset_num_trajs=[1, 3]'], "'published results.csv' has none of the 4 cells of this experiment; expected some"),
    ],
)
def test_a_wrong_reference_is_refused_before_anything_is_done(folder, changes, message):
    done = run_all(folder, 'spec.yaml', '--set', *changes, rc=2)
    assert re.fullmatch(r'run_all: error: [^\n]+\n', done.stderr) and message in done.stderr
    assert done.stdout == '' and sorted(p.name for p in folder.iterdir()) == ['published results.csv', 'spec.yaml']


@pytest.mark.parametrize('options', [['--set', 'options.reference=null'], ['--only', 'alg=ga']])
def test_a_dry_run_shows_commands_only(folder, options):
    lines = run_all_sh(folder, 'spec.yaml', '-n', *options).stdout.splitlines()
    assert len(lines) == (2 if '--only' in options else 4) and all('imitate_mj.py' in line for line in lines)
    assert not (folder / 'store').exists()


@pytest.mark.parametrize('flags', ['-kn', '-nj2', '-qny'])
def test_flags_behind_one_dash_are_a_dry_run_too(folder, flags):
    assert run_all(folder, 'spec.yaml', flags).stdout.count('imitate_mj.py') == 4 and not (folder / 'store').exists()


def test_an_estimate_is_all_that_is_done(folder):
    done = run_all(folder, 'spec.yaml', '--estimate', rc=2)
    assert '0_sampletrajs' in done.stderr and not (folder / 'store').exists()
    write_trajs(folder / 'store' / 'trajs' / 'trajs_cartpole.h5')
    done = run_all(folder, 'spec.yaml', '--estimate', '--only', 'alg=ga', '-j', '1')
    assert re.fullmatch(r'2 of 2 runs to do: about \d+ seconds? with 1 at a time \(.*\)\n', done.stdout)
    assert [p.name for p in (folder / 'store').iterdir()] == ['trajs']


def test_a_selection_without_published_cells_says_how_to_go_on(folder):
    done = run_all(folder, 'spec.yaml', '--only', 'alg=bclone', rc=2)
    assert 'has none of the 1 cells' in done.stderr and '--set options.reference=null' in done.stderr


@pytest.mark.parametrize('name', ['classic', 'modern', 'reacher_entropy', 'humanoid'])
def test_every_cell_of_the_papers_experiments_is_in_the_reference(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the reference is found from anywhere
    spec = load_spec(str(REPO / 'pipelines' / f'{name}.yaml'))
    assert {(r.task, r.alg, r.num_trajs) for r in spec.runs(0)} <= set(read_reference(spec.reference_path))


@pytest.mark.parametrize('name', ['quickstart', 'quick_mujoco'])
def test_pipelines_that_train_otherwise_than_the_paper_have_no_reference(name):
    assert load_spec(str(REPO / 'pipelines' / f'{name}.yaml')).reference_path is None
