"""Array jobs: the scripts for Slurm and PBS, run for real by a Slurm where there is one and by a stand-in qsub."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pipeline_tools import IM_PIPELINE, REPO, SIGNATURE, environment, im_pipeline, ready_spec, start_pids, starts, wait_until, write_program

from policyopt.errors import UserError
from policyopt.pipeline import stages
from policyopt.pipeline.clusters import Cluster
from policyopt.pipeline.plan import How, make_plan
from policyopt.pipeline.schedulers import SCHEDULERS
from policyopt.pipeline.spec import load_spec

SGE = """  array:
    submit: qsub -terse {script} | cut -d. -f1
    query: qstat -j
    cancel: qdel
    directives: ['#$ -N {name}', '#$ -t 1-{num}', '#$ -tc {max_running}', '#$ -o {logs} -j y']
    index: $SGE_TASK_ID
"""
SLURM = '  slurm: {partition: main, time: 0-00:10:00, mem: 100M, cpus: 2}\n'
CPUS = min(2, os.cpu_count())
PBS = How(executor='pbs')

# Does what PBS does with a script: one shell per array index, with the index in the environment; prints a job id.
QSUB = r"""#!/bin/bash
script=${@: -1}
echo "$@" >> "$STUB_LOG"
torque=$(sed -n 's/^#PBS -t //p' "$script"); openpbs=$(sed -n 's/^#PBS -J //p' "$script")
range=${torque:-$openpbs}
range=${range%%%*}
if [ -z "$range" ]; then ( bash "$script" ) > "$STUB_LOG.out" 2>&1; echo "12.server"; exit 0; fi
for i in $(seq ${range%-*} ${range#*-}); do
  if [ -n "$torque" ]; then ( export PBS_ARRAYID=$i PBS_NUM_PPN=3; exec bash "$script" )
  else ( export PBS_ARRAY_INDEX=$i NCPUS=3; exec bash "$script" ); fi > "$STUB_LOG.$i" 2>&1
done
echo "12[].server"
"""
QSTAT = '#!/bin/sh\necho "qstat: Unknown Job Id $2" >&2; exit 153\n'


@pytest.fixture
def pbs(tmp_path):
    """An environment whose qsub runs every array task at once."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in (('qsub', QSUB), ('qstat', QSTAT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return environment(PATH=f'{folder}:{os.environ["PATH"]}', STUB_LOG=str(tmp_path / 'qsub.log'))


def test_ctrl_c_while_waiting_says_that_the_job_goes_on(tmp_path):
    bin_folder = tmp_path / 'bin'
    bin_folder.mkdir()
    for name, text in (('qsub', '#!/bin/sh\necho 12.server\n'), ('qstat', f'#!/bin/sh\ntouch {tmp_path}/asked\necho 12.server R\n')):
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    path, folder = ready_spec(tmp_path)
    words = [sys.executable, IM_PIPELINE, str(path), '1_train', '-e', 'pbs', '-y', '--wait']
    env = environment(PATH=f'{bin_folder}:{os.environ["PATH"]}')
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until((tmp_path / 'asked').exists, 60)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    state, again = f'python scripts/im_pipeline.py {path} 1_train --summary', f'python {" ".join(words[1:])} --resume'
    assert process.returncode == 130 and err.splitlines()[-1] == (
        f'im_pipeline: stopped by SIGINT; job 12.server goes on (qdel 12.server ends it); how far it is: {state}; '
        f'when it is over, continue with: {again}'
    )


def h5_files(folder):
    return sorted(p.name for p in folder.glob('alg=*.h5'))


def arrays(spec, how):
    """The array jobs of an experiment's runs."""
    cluster = Cluster(spec, how)
    return cluster.arrays(cluster.scheduler.chosen(make_plan(spec, 0, how)))


def add_options(path, text):
    path.write_text(path.read_text() + text)
    return path


def test_the_slurm_script_says_all_that_was_asked_for(tmp_path):
    path, folder = ready_spec(tmp_path)
    add_options(path, SLURM)
    out, _ = im_pipeline(path, '1_train', '-e', 'slurm', '-n', '-j', 3, '--only', 'alg=ga', '--device', 'cuda')
    assert not folder.exists()
    for line in (
        '#SBATCH --array=1-8%3', '#SBATCH --partition=main', '#SBATCH --time=0-00:10:00', '#SBATCH --mem=100M', '#SBATCH --cpus-per-task=2',
        f'#SBATCH --output={folder}/logs/slurm_%A_%a.txt', '#SBATCH --job-name=spec', '#SBATCH --requeue', f'cd {REPO} || exit 1',
    ):  # fmt: skip
        assert line in out.splitlines()
    assert out.startswith('#!/bin/bash\n#SBATCH') and '--account' not in out
    task = out.splitlines()[-1]
    assert task.startswith(f'exec {sys.executable} {REPO}/scripts/im_pipeline.py {folder}/pipeline.yaml 1_train --task-list ')
    assert '--device cuda' in task and task.endswith('--task-index "$SLURM_ARRAY_TASK_ID" --threads "${SLURM_CPUS_PER_TASK:-2}"')
    assert subprocess.run(['bash', '-n'], input=out, text=True).returncode == 0


@pytest.mark.parametrize(
    ('dialect', 'lines'),
    [
        ('torque', ['#PBS -t 1-16%2', '#PBS -l nodes=1:ppn=4', '#PBS -q atlas', '#PBS -N im']),
        ('openpbs', ['#PBS -J 1-16%2', '#PBS -l select=1:ncpus=4', '#PBS -q atlas', '#PBS -N im']),
    ],
)
def test_the_pbs_script_speaks_both_dialects(tmp_path, dialect, lines):
    path, _ = ready_spec(tmp_path)
    add_options(path, f'  pbs: {{jobname: im, queue: atlas, ppn: 4, dialect: {dialect}}}\n')
    out, _ = im_pipeline(path, '1_train', '-e', 'pbs', '-n', '-j', 2)
    assert set(lines) <= set(out.splitlines())


def test_the_range_of_2016_counts_all_runs(tmp_path):
    path, _ = ready_spec(tmp_path)
    spec = load_spec(str(path), ['options.pbs.range="2,5-7%2"'])
    runs = spec.runs(0)
    Path(runs[5].out).parent.mkdir(parents=True)
    Path(runs[5].out).write_bytes(SIGNATURE)
    (array,) = arrays(spec, PBS)
    assert array.run_ids == [runs[1].id, runs[4].id, runs[6].id] and '#PBS -t 1-3%2' in array.script
    with pytest.raises(UserError, match="'17-20' names no run; expected indices from 1 to 16"):
        arrays(load_spec(str(path), ['options.pbs.range=17-20']), PBS)


def test_a_borrowed_range_that_is_wider_than_the_runs_is_cut_with_a_note(tmp_path, capsys):
    path, _ = ready_spec(tmp_path)
    spec = load_spec(str(path), ['options.pbs.range="15-1000000000000"'])
    assert arrays(spec, PBS)[0].run_ids == [r.id for r in spec.runs(0)[14:]]
    assert capsys.readouterr().err == "note: options.pbs.range: '15-1000000000000' is cut to the 16 runs there are\n"


def test_nothing_is_touched_to_show_a_plan(tmp_path, capsys):
    path, folder = ready_spec(tmp_path)
    add_options(path, SGE)
    spec = load_spec(str(path))
    plan = make_plan(spec, 0, How(dry_run=True))
    for name in SCHEDULERS:
        cluster = Cluster(spec, How(dry_run=True, executor=name))
        stages.show_plan(cluster, plan)
        assert capsys.readouterr().out == cluster.script(plan)
    stages.show_plan(None, plan)
    assert capsys.readouterr().out.splitlines() == [r.command.text for r in plan.todo]
    assert not folder.exists()


def test_a_plan_names_what_is_to_do_and_a_part_of_it_only_its_own(tmp_path):
    path, folder = ready_spec(tmp_path)
    spec = load_spec(str(path))
    first, second, *_ = ids = [r.id for r in spec.runs(0)]
    folder.mkdir()
    (folder / f'{first}.h5').write_bytes(SIGNATURE)
    plan = make_plan(spec, 0, How())
    assert [r.id for r in plan.runs] == ids and [r.id for r in plan.todo] == ids[1:]
    assert plan.of({first}).todo == () and [r.id for r in plan.of({first, second}).todo] == [second]
    assert plan.states() == dict.fromkeys(ids, 'missing') | {first: 'done'}
    assert [r.id for r in make_plan(spec, 0, How(dry_run=True)).todo] == ids
    assert [r.id for r in make_plan(spec, 0, How(dry_run=True, resume=True)).todo] == ids[1:]


def test_nothing_is_submitted_without_a_yes(tmp_path, pbs):
    path, folder = ready_spec(tmp_path)
    _, err = im_pipeline(path, '1_train', '-e', 'pbs', code=2, env=pbs)
    assert f'{folder}/cluster/pbs_1.sh: written, not submitted' in err and '#PBS -t 1-16' in err
    assert not (tmp_path / 'qsub.log').exists()
    assert len((folder / 'cluster' / 'pbs_1.runs').read_text().splitlines()) == 16


def test_a_machine_without_the_cluster_is_named(tmp_path):
    path, _ = ready_spec(tmp_path)
    _, err = im_pipeline(path, '1_train', '-e', 'pbs', '-y', code=2, env=environment(PATH='/nonexistent'))
    assert "-e pbs: no 'qsub' on this machine" in err
    _, err = im_pipeline(path, 'all', '-e', 'pbs', '-y', code=2)
    assert 'for all, add --wait' in err


@pytest.mark.parametrize('dialect', ['torque', 'openpbs'])
def test_every_index_of_a_pbs_array_does_its_own_run(tmp_path, pbs, dialect):
    path, folder = ready_spec(tmp_path)
    add_options(path, f'  pbs: {{jobname: im, queue: atlas, ppn: 4, dialect: {dialect}}}\n')
    _, err = im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'num_trajs=1', env=pbs)
    assert 'submitted job 12' in err and '8/8 runs done' in err
    assert len(h5_files(folder)) == 8 and set(starts(folder).values()) == {1}
    assert all(p.read_text().splitlines()[1] == 'threads 3' for p in (folder / 'logs').glob('alg=*.txt'))
    # one run more: an array of one, which OpenPBS does not know; and submitting all of it again does nothing
    (folder / h5_files(folder)[0]).unlink()
    im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'num_trajs=1', env=pbs)
    assert (tmp_path / 'qsub.log').read_text().split() == [str(folder / 'cluster' / f'pbs_{k}.sh') for k in (1, 2)]
    subprocess.run(['qsub', str(folder / 'cluster' / 'pbs_1.sh')], env=pbs, check=True)
    assert sorted(starts(folder).values()) == [1] * 7 + [2]
    assert 'is done already' in (tmp_path / 'qsub.log.3').read_text()


def test_runs_that_the_cluster_did_not_finish_are_reported(tmp_path, pbs):
    path, folder = ready_spec(tmp_path, fail_on='task=cartpole,num_trajs=1,run=0')
    _, err = im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'run=0', 'num_trajs=1', code=1, env=pbs)
    assert 'job 12[].server is over, but 2 of its 4 runs are not done' in err and 'then submit again' in err
    failed = [p for p in tmp_path.glob('qsub.log.*') if 'this run cannot work' in p.read_text()]
    assert len(failed) == 2


@pytest.mark.parametrize(
    ('where', 'done'),
    [({}, True), ({'PBS_JOBID': '18[1].server'}, False), ({'PBS_ARRAYID': '2'}, False), ({'PBS_NODEFILE': 'two'}, False)],
)
def test_a_requeued_pbs_task_on_another_host_takes_its_own_run_back_and_no_other(tmp_path, pbs, where, done):
    path, folder = ready_spec(tmp_path)
    im_pipeline(path, '1_train', '-e', 'pbs', '--only', 'alg=ga', 'task=cartpole', code=2, env=pbs)
    first, second = (folder / 'cluster' / 'pbs_1.runs').read_text().split()[:2]
    task = {'PBS_JOBID': '17[1].server', 'PBS_ARRAYID': '1', 'PBS_NUM_PPN': '1', 'PBS_NODEFILE': str(tmp_path / 'one')}
    (tmp_path / 'one').write_text('here\nhere\n')
    (tmp_path / 'two').write_text('here\nthere\n')
    # what the first start of this task left when its host went down
    holder = {'host': 'elsewhere', 'pid': 1, 'start': '1', 'boot': 'b', 'since': '2026-01-01T00:00:00', 'job': '17[1].server#1', 'child': 2}
    for run in (first, second):
        (folder / 'locks' / f'{run}.lock').write_text(json.dumps(holder))
    now = task | {k: str(tmp_path / v) if k == 'PBS_NODEFILE' else v for k, v in where.items()}
    ended = subprocess.run(['bash', str(folder / 'cluster' / 'pbs_1.sh')], env=pbs | now, capture_output=True, text=True)
    assert ended.returncode == (0 if done else 1) and ('is held by process 1 on elsewhere' in ended.stderr) != done, ended.stderr
    assert h5_files(folder) == ([f'{first}.h5'] if done else [])


def squeue(env, *args):
    return subprocess.run(['squeue', '-h', *args], capture_output=True, text=True, env=env).stdout


@pytest.mark.slurm
def test_slurm_runs_the_array_and_a_second_submission_does_nothing(tmp_path, slurm):
    path, folder = ready_spec(tmp_path)
    add_options(path, SLURM.replace('cpus: 2', f'cpus: {CPUS}'))
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', '--wait', '--only', 'num_trajs=1', env=slurm)
    job = re.search(r'submitted job (\d+) with 8 runs', err)[1]
    assert len(h5_files(folder)) == 8 and set(starts(folder).values()) == {1}
    assert sorted(p.name for p in (folder / 'logs').glob('slurm_*')) == [f'slurm_{job}_{i}.txt' for i in range(1, 9)]
    assert all(p.read_text().splitlines()[1] == f'threads {CPUS}' for p in (folder / 'logs').glob('alg=*.txt'))
    again = subprocess.run(['sbatch', '--wait', folder / 'cluster' / 'slurm_1.sh'], env=slurm, capture_output=True, text=True)
    assert again.returncode == 0 and set(starts(folder).values()) == {1}


@pytest.mark.slurm
@pytest.mark.slow
def test_a_cancelled_slurm_task_checkpoints_and_is_finished_by_the_next_submission(tmp_path, slurm):
    path, folder = ready_spec(tmp_path, seconds=60)
    add_options(path, SLURM.replace('cpus: 2', 'cpus: 1'))
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=1']
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', *only, env=slurm)
    job = re.search(r'submitted job (\d+)', err)[1]
    wait_until(lambda: len(start_pids(folder)) == 2, 30)
    assert 'all' in im_pipeline(path, '1', '--summary', *only)[0]
    subprocess.run(['scancel', job], env=slurm, check=True)
    wait_until(lambda: not squeue(slurm, '-j', job), 40)
    assert h5_files(folder) == [] and len(list(folder.glob('*.part'))) == 2 and list((folder / 'locks').glob('*.lock')) == []
    write_program(tmp_path)
    im_pipeline(path, '1_train', '-e', 'slurm', '-y', '--wait', *only, env=slurm)
    assert len(h5_files(folder)) == 2 and sorted(starts(folder).values()) == [2, 2]


@pytest.mark.slurm
@pytest.mark.slow
def test_a_warning_before_the_time_limit_and_a_requeue_lose_nothing(tmp_path, slurm):
    path, folder = ready_spec(tmp_path, seconds=60)
    add_options(path, SLURM.replace('cpus: 2', 'cpus: 1'))
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=1', 'run=0']
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', *only, env=slurm)
    job = re.search(r'submitted job (\d+)', err)[1]
    wait_until(lambda: len(start_pids(folder)) == 1, 30)
    write_program(tmp_path)
    subprocess.run(['scontrol', 'requeue', f'{job}_1'], env=slurm, check=True)

    def hurry():  # a requeued job waits two minutes before it starts again, unless it is told otherwise
        subprocess.run(['scontrol', 'update', f'JobId={job}', 'StartTime=now'], env=slurm, capture_output=True)
        time.sleep(1)
        return len(h5_files(folder)) == 1

    wait_until(hurry, 200)
    assert list(starts(folder).values()) == [2]
    log = next((folder / 'logs').glob('slurm_*')).read_text()
    assert 'SIGTERM' in log and 'held by' not in log

    write_program(tmp_path, seconds=60)
    only[-1] = 'run=1'
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', '--resume', *only, env=slurm)
    job = re.search(r'submitted job (\d+)', err)[1]
    wait_until(lambda: len(start_pids(folder)) == 3, 30)
    time.sleep(0.5)
    subprocess.run(['scancel', '--batch', '--signal=USR1', job], env=slurm, check=True)
    wait_until(lambda: not squeue(slurm, '-j', job), 40)
    log = Path(folder / 'logs' / f'slurm_{job}_1.txt').read_text()
    assert 'stopped by SIGUSR1' in log and len(list(folder.glob('*.part'))) == 1
