"""What is asked of a cluster: directives, blocks of runs, split arrays, requeues, and the jobs of stages 0 and 2."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pipeline_tools import REPO, SIGNATURE, environment, im_pipeline, ready_spec, start_pids, starts, wait_until, write_program
from test_clusters import PBS, SGE, add_options, arrays, h5_files, pbs, squeue  # noqa: F401 (pbs is a fixture)

from policyopt.errors import UserError
from policyopt.pipeline.plan import How
from policyopt.pipeline.schedulers import job_name, walltime_s
from policyopt.pipeline.spec import load_spec

SLURM = How(executor='slurm')


def head(script):
    """The lines of a script before its first command."""
    lines = script.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith('#'))]


def move_store(path, folder):
    """Let an experiment keep its files in another folder, made with what it has; returns its checkpoint folder."""
    data = yaml.safe_load(path.read_text())
    os.renames(data['options']['storagedir'], folder)
    data['options']['storagedir'] = str(folder)
    path.write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False))
    return Path(folder) / 'checkpoints'


def submit_fails(path, system, *options):
    _, err = im_pipeline(path, '1_train', '-e', system, '-n', *options, code=2)
    return err


# ---- what stands above the first command


@pytest.mark.parametrize('name', ['two words', "it's", 'say "x"', 'a#b', '#b', 'ünï', 'a;b$(c)&d'])
def test_slurm_is_given_odd_folders_in_quotes_and_pbs_refuses_them(tmp_path, name):
    path, _ = ready_spec(tmp_path)
    folder = move_store(path, tmp_path / name / 'store')
    out, _ = im_pipeline(path, '1_train', '-e', 'slurm', '-n')
    output = next(line for line in head(out) if '--output' in line).removeprefix('#SBATCH ')
    assert shlex.split(output) == [f'--output={folder}/logs/slurm_%A_%a.txt']
    if name != 'ünï':
        err = submit_fails(path, 'pbs')
        assert 'has characters that cannot stand in a directive of -e pbs; choose another one' in err


@pytest.mark.parametrize('name', ['two\nlines', 'a%j', 'back\\slash', 'x\ntouch HACKED\n#'])
@pytest.mark.parametrize('system', ['slurm', 'pbs', 'array'])
def test_a_folder_that_no_directive_can_hold_is_refused_before_anything_is_written(tmp_path, name, system):
    path, _ = ready_spec(tmp_path)
    add_options(path, SGE)
    folder = move_store(path, tmp_path / name / 'store')
    for last in (['-n'], ['-y']):
        _, err = im_pipeline(path, '1_train', '-e', system, *last, code=2)
        expected = (
            'options.storagedir: text with the control character' if '\n' in name else 'cannot stand in a directive'
        )  # YAML's, wherever it runs
        assert expected in err and len(err.splitlines()) == 1
    assert not (folder / 'cluster').exists() and not (tmp_path / 'HACKED').exists()


@pytest.mark.parametrize(
    ('stem', 'slurm', 'torque'),
    [
        ('my exp', 'my_exp', 'my_exp'),
        ('$(touch HACKED)', 'im___touch_HACKED_', 'im___touch_HACK'),
        ('two\nlines', 'two_lines', 'two_lines'),
        ('2016-benchmark-of-everything', 'im_2016-benchmark-of-everything', 'im_2016-benchma'),
        ('-rf', 'im_-rf', 'im_-rf'),
    ],
)
def test_a_job_is_named_after_its_file_as_far_as_the_scheduler_takes_it(tmp_path, stem, slurm, torque):
    path, _ = ready_spec(tmp_path)
    path = path.rename(tmp_path / f'{stem}.yaml')
    script, _ = im_pipeline(path, '1_train', '-e', 'slurm', '-n')
    assert f'#SBATCH --job-name={slurm}' in head(script)
    script, _ = im_pipeline(path, '1_train', '-e', 'pbs', '-n')
    assert f'#PBS -N {torque}' in head(script) and not [line for line in head(script) if 'lines' in line and not line.startswith('#PBS -N')]


def test_a_job_name_of_the_users_own_is_refused_where_pbs_would(tmp_path):
    path, _ = ready_spec(tmp_path)
    for name in ('a' * 16, '2016'):
        err = submit_fails(path, 'pbs', '--set', f'options.pbs.jobname="{name}"')
        assert f"options.pbs.jobname: '{name}'; expected at most 15 characters, the first one a letter" in err
    im_pipeline(path, '1_train', '-e', 'pbs', '-n', '--set', f'options.pbs.jobname="{"a" * 16}"', 'options.pbs.dialect=openpbs')
    assert job_name('') == 'im_' and len(job_name('é' * 200)) == 80


def test_directives_of_the_users_own_stand_in_the_script(tmp_path):
    path, _ = ready_spec(tmp_path)
    add_options(path, '  slurm: {extra: ["--gres=gpu:1", "--qos=long", "--constraint=\\"a&b\\"", "-x n[1-4]"]}\n')
    add_options(path, '  pbs: {dialect: openpbs, ppn: 4, extra: ["-l select=1:ncpus=4:ngpus=1", "-l walltime=12:00:00", "-A lab"]}\n')
    out, _ = im_pipeline(path, '1_train', '-e', 'slurm', '-n')
    assert head(out)[-5:-1] == ['#SBATCH --gres=gpu:1', '#SBATCH --qos=long', '#SBATCH --constraint="a&b"', '#SBATCH -x n[1-4]']
    out, _ = im_pipeline(path, '1_train', '-e', 'pbs', '-n')
    assert '#PBS -l walltime=12:00:00' in head(out) and '#PBS -A lab' in head(out)
    assert [line for line in head(out) if 'select' in line] == ['#PBS -l select=1:ncpus=4:ngpus=1']


@pytest.mark.parametrize(
    ('section', 'said'),
    [
        ('slurm: {extra: "--gres=gpu:1"}', "options.slurm.extra: '--gres=gpu:1'; expected a list"),
        ('slurm: {extra: ["gres=gpu:1"]}', "options.slurm.extra[0]: 'gres=gpu:1'; expected an option, as it stands behind #SBATCH"),
        ('slurm: {extra: ["#SBATCH --x"]}', 'expected an option, as it stands behind #SBATCH'),
        ('slurm: {extra: ["--a\\ntouch x"]}', 'expected an option, as it stands behind #SBATCH'),
        ('slurm: {extra: ["--array=1-3"]}', 'expected no range of an array'),
        ('slurm: {extra: ["-a 1-3"]}', 'expected no range of an array'),
        ('pbs: {extra: ["-J 1-3"]}', 'expected no range of an array'),
        ('slurm: {extra: [3]}', 'options.slurm.extra[0]: 3 (number)'),
        ('slurm: {time: 24h}', "options.slurm.time: '24h'; expected a time limit of Slurm"),
        ('slurm: {time: 24h}', 'Write 24:00:00'),
        ('slurm: {time: 1 day}', "options.slurm.time: '1 day'"),
        ('slurm: {time: "1:2:3:4"}', "options.slurm.time: '1:2:3:4'"),
        ('slurm: {partition: "a;b"}', "options.slurm.partition: 'a;b'; expected one word"),
        ('slurm: {runs_per_task: 0}', 'options.slurm.runs_per_task: 0 (number)'),
        ('array: {submit: qsub, query: q, cancel: c}', "options.array.index: the key 'index' is missing"),
        ('array: {submit: qsub, query: q, cancel: c, index: "1; rm x"}', 'options.array.index: '),
        ('array: {submit: qsub, query: q, cancel: c, index: "$(rm x)"}', 'options.array.index: '),
        ('array: {submit: "qsub {scrip}", query: q, cancel: c, index: $I}', "options.array.submit: unknown field '{scrip}'"),
        ('array: {submit: "qsub \'", query: q, cancel: c, index: $I}', 'No closing quotation in the command'),
        ('array: {submit: "a\\nb", query: q, cancel: c, index: $I}', 'several lines'),
        ('array: {submit: "a {", query: q, cancel: c, index: $I}', 'A literal brace is written {{ or }}'),
        ('array: {submit: a, query: q, cancel: c, index: $I, directives: ["rm x"]}', "options.array.directives[0]: 'rm x'"),
        ('array: {submit: a, query: q, cancel: c, index: $I, directives: ["#$ {x}"]}', "unknown field '{x}'"),
    ],
)
def test_a_wish_that_no_script_may_hold_is_refused_when_the_file_is_read(tmp_path, section, said):
    path, folder = ready_spec(tmp_path)
    add_options(path, f'  {section}\n')
    _, err = im_pipeline(path, '1_train', '-n', code=2)
    assert said in err and not folder.exists()


@pytest.mark.parametrize('time', ['90', '12:00', '12:00:00', '1-0', '1-12:30', '1-00:00:00', 'UNLIMITED'])
def test_every_time_limit_of_slurm_is_taken(tmp_path, time):
    path, _ = ready_spec(tmp_path)
    assert load_spec(str(path), [f'options.slurm.time="{time}"']).options.slurm.time == time


def test_cuda_without_a_gpu_in_the_script_is_warned_of(tmp_path):
    path, _ = ready_spec(tmp_path, cmd='python scripts/imitate_mj.py --mode bclone --data {dataset} --env {env} --log {out}')
    warning = 'warning: --device cuda, but the job asks for no GPU; add a directive such as '
    openpbs = ['--set', 'options.pbs.dialect=openpbs']
    cases = [('slurm', '--gres=gpu:1', []), ('pbs', '-l nodes=1:ppn=4:gpus=1', []), ('pbs', '-l select=1:ncpus=4:ngpus=1', openpbs)]
    for system, directive, dialect in cases:
        command = [path, '1', '-e', system, '-n', *dialect]
        ask = ['--set', f'options.{system}.extra=["{directive}"]']
        assert f"{warning}'{directive}' to options.{system}.extra" in im_pipeline(*command, '--device', 'cuda')[1]
        assert 'warning' not in im_pipeline(*command, '--device', 'cuda', *ask)[1]
        assert 'warning' not in im_pipeline(*command)[1]


# ---- where the files go


def test_variables_in_the_storage_folder_are_expanded_and_known_to_the_tasks(tmp_path):
    path, _ = ready_spec(tmp_path)
    path.write_text(path.read_text().replace(str(tmp_path / 'store'), '$SCRATCH/${MINE}/store'))
    (tmp_path / 'me').mkdir()
    (tmp_path / 'store').rename(tmp_path / 'me' / 'store')
    env = environment(SCRATCH=str(tmp_path), MINE='me')
    out, _ = im_pipeline(path, '1_train', '-e', 'slurm', '-n', env=env)
    assert f'{tmp_path}/me/store/checkpoints/pipeline.yaml' in out
    assert out.splitlines().count(f'export SCRATCH={tmp_path}') == out.splitlines().count('export MINE=me') == 1
    im_pipeline(path, '1_train', '--only', 'alg=ga', 'task=cartpole', env=env)
    assert len(h5_files(tmp_path / 'me' / 'store' / 'checkpoints')) == 4


def test_a_variable_that_is_not_set_is_refused_and_a_folder_named_like_one_is_kept(tmp_path, monkeypatch):
    monkeypatch.delenv('SCRATCH', raising=False)
    path, _ = ready_spec(tmp_path)
    path.write_text(path.read_text().replace(str(tmp_path / 'store'), f'{tmp_path}/$SCRATCH/store'))
    _, err = im_pipeline(path, '1_train', '-n', code=2)
    assert 'options.storagedir: ' in err and 'the environment variable SCRATCH is not set here' in err
    (tmp_path / '$SCRATCH').mkdir()
    assert load_spec(str(path)).checkpt_dir == f'{tmp_path}/$SCRATCH/store/checkpoints'


# ---- how runs become tasks and arrays


def test_runs_are_grouped_into_tasks_and_tasks_into_arrays(tmp_path):
    path, _ = ready_spec(tmp_path)
    spec = load_spec(str(path), ['options.slurm.max_array=3', 'options.slurm.max_running=4', 'options.slurm.runs_per_task=2'])
    parts = arrays(spec, SLURM)
    assert [len(a.tasks) for a in parts] == [3, 3, 2] and all(len(task) == 2 for a in parts for task in a.tasks)
    assert [run for a in parts for run in a.run_ids] == [r.id for r in spec.runs(0)]
    ranges = [next(line for line in head(a.script) if '--array' in line) for a in parts]
    assert ranges == ['#SBATCH --array=1-3%2', '#SBATCH --array=1-3%1', '#SBATCH --array=1-2%1']
    assert [Path(a.list_path).name for a in parts] == ['slurm_1.runs', 'slurm_2.runs', 'slurm_3.runs']
    # -j counts before max_running, as everywhere
    assert '#SBATCH --array=1-3%3' in arrays(spec, dataclasses.replace(SLURM, jobs=9))[0].script
    with pytest.raises(UserError, match='at most 2 tasks at a time with 8 tasks, which need 3 arrays of 3; give at least 3'):
        arrays(spec, dataclasses.replace(SLURM, jobs=2))


def test_1400_runs_are_two_arrays_where_nobody_says_what_an_array_may_hold(tmp_path, monkeypatch):
    path, _ = ready_spec(tmp_path)
    monkeypatch.setenv('PATH', '/nonexistent')
    spec = load_spec(str(path), ['training.runs=175'])
    assert [len(a.tasks) for a in arrays(spec, SLURM)] == [1000, 400]
    assert [len(a.tasks) for a in arrays(spec, PBS)] == [1400]


def test_the_runs_of_a_task_share_its_cores(tmp_path):
    path, _ = ready_spec(tmp_path)
    spec = load_spec(str(path), ['options.slurm.cpus=8', 'options.slurm.runs_per_task=4'])
    last = [arrays(spec, dataclasses.replace(SLURM, threads=n))[0].script.splitlines()[-1] for n in (None, 2, 9)]
    assert last[0].endswith('--threads "${SLURM_CPUS_PER_TASK:-8}"')
    assert last[1].endswith('--threads 2 -j 4') and last[2].endswith('--threads 9 -j 1')


def test_a_task_does_all_its_runs_though_one_fails(tmp_path, pbs):  # noqa: F811
    path, folder = ready_spec(tmp_path, fail_on='task=cartpole,num_trajs=1,run=0')
    add_options(path, '  pbs: {runs_per_task: 4, dialect: openpbs}\n')
    _, err = im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'num_trajs=1', code=1, env=pbs)
    assert 'submitted job 12[].server with 8 runs' in err and '2 of its 8 runs are not done' in err
    assert len(h5_files(folder)) == 6
    assert [len(line.split()) for line in (folder / 'cluster' / 'pbs_1.runs').read_text().splitlines()] == [4, 4]
    # what failed is one task more; the array of one has no index of its own, whatever the environment says
    write_program(tmp_path)
    env = pbs | {'PBS_ARRAY_INDEX': '20', 'PBS_ARRAYID': '20'}
    im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'num_trajs=1', env=env)
    script = (folder / 'cluster' / 'pbs_2.sh').read_text()
    assert '#PBS -J' not in script and '--task-index "1"' in script and len(h5_files(folder)) == 8
    assert (folder / 'cluster' / 'pbs_2.runs').read_text().split() == [
        f'alg={alg},task=cartpole,num_trajs=1,run=0' for alg in ('bclone', 'ga')
    ]


def test_what_was_left_of_a_crash_between_list_and_script_is_no_obstacle(tmp_path, pbs):  # noqa: F811
    path, folder = ready_spec(tmp_path)
    (folder / 'cluster').mkdir(parents=True)
    (folder / 'cluster' / 'pbs_1.runs').write_text('')
    im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', '--only', 'alg=ga', 'num_trajs=1', env=pbs)
    assert len(h5_files(folder)) == 4 and (folder / 'cluster' / 'pbs_2.sh').exists()


def test_a_run_that_is_being_worked_on_is_not_submitted(tmp_path, pbs):  # noqa: F811
    path, folder = ready_spec(tmp_path, seconds=8)
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=1']
    words = [sys.executable, str(REPO / 'scripts' / 'im_pipeline.py'), str(path), '1_train', *only, 'run=0']
    with subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL) as other:
        wait_until(lambda: start_pids(folder))
        write_program(tmp_path)
        _, err = im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--wait', *only, env=pbs)
        assert 'note: 1 runs are being worked on and left out' in err and 'with 1 runs' in err
        assert other.poll() is None
    assert set(starts(folder).values()) == {1} and len(h5_files(folder)) == 2


@pytest.mark.parametrize(
    ('content', 'index', 'said'),
    [
        (None, 1, 'no list of runs (No such file or directory); submit again with -e'),
        (b'\xff\xfe', 1, 'line 1: byte 0xff is not UTF-8 text; expected ids of runs'),
        (b'one\n', 2, 'lists 1 tasks; expected 1 to 1'),
        (b'alg=ga,task=mars,num_trajs=1,run=0\n', 1, 'has no run alg=ga,task=mars,num_trajs=1,run=0'),
        (b'\n', 1, 'has no run in that line'),
    ],
)
def test_a_task_without_its_list_says_so(tmp_path, content, index, said):
    path, folder = ready_spec(tmp_path)
    folder.mkdir()
    (folder / 'seed.txt').write_text('0\n')
    if content is not None:
        (tmp_path / 'list').write_bytes(content)
    _, err = im_pipeline(path, '1_train', '--task-list', tmp_path / 'list', '--task-index', index, code=2)
    assert said in err


# ---- the time limit


def test_a_task_whose_command_was_edited_after_it_was_submitted_is_refused(tmp_path, pbs):  # noqa: F811
    path, folder = ready_spec(tmp_path)
    one = ('num_trajs=1', 'run=0', 'task=cartpole')
    bin_folder = Path(pbs['PATH'].partition(':')[0])
    (bin_folder / 'qsub').write_text('#!/bin/sh\necho 12.server\n')  # takes its time
    im_pipeline(path, '1_train', '-e', 'pbs', '-y', '--only', 'alg=ga', *one, env=pbs)
    path.write_text(path.read_text().replace('  - name: ga\n    cmd: python', '  - name: ga\n    cmd: env EDITED=1 python'))
    im_pipeline(path, '1_train', '-j', 1, '--only', 'alg=bclone', *one)
    task = [folder / 'pipeline.yaml', '1_train', '--task-list', folder / 'cluster' / 'pbs_1.runs', '--task-index', 1]
    _, err = im_pipeline(*task, code=2)
    assert 'the command of alg=ga,task=cartpole,num_trajs=1,run=0 is another one than in' in err and 'submit again with -e' in err
    assert h5_files(folder) == ['alg=bclone,task=cartpole,num_trajs=1,run=0.h5']
    path.write_text(path.read_text().replace('env EDITED=1 ', ''))
    im_pipeline(path, '1_train', '-j', 1, '--resume', '--only', 'alg=bclone', *one)
    assert h5_files(folder) == ['alg=bclone,task=cartpole,num_trajs=1,run=0.h5']
    im_pipeline(*task)
    assert len(h5_files(folder)) == 2


def test_the_time_limit_of_pbs_is_the_sum_of_its_parts():
    assert walltime_s(['-A x', '-l walltime=1:30:05']) == 5405
    assert walltime_s(['-l nodes=1,walltime=90', '-l mem=4gb,walltime=00:10:00']) == 600
    assert walltime_s(['-l select=1']) is None and walltime_s(['-l walltime=soon']) is None


def test_pbs_stops_a_task_before_its_time_limit_and_puts_it_back_into_the_queue(tmp_path, pbs):  # noqa: F811
    path, folder = ready_spec(tmp_path, seconds=60)
    add_options(path, '  pbs: {requeue: true, runs_per_task: 2, extra: ["-l walltime=00:02:04"]}\n')
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=1']
    (tmp_path / 'bin' / 'qrerun').write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/rerun\n')
    (tmp_path / 'bin' / 'qrerun').chmod(0o755)
    im_pipeline(path, '1_train', '-e', 'pbs', *only, code=2, env=pbs)
    script = ['bash', folder / 'cluster' / 'pbs_1.sh']
    env = pbs | {'PBS_ARRAYID': '1', 'PBS_JOBID': '12[1].server'}
    stopped = subprocess.run(script, env=env, capture_output=True, text=True)
    assert stopped.returncode == 75 and 'stopped by SIGUSR1' in stopped.stderr, stopped.stderr
    assert (tmp_path / 'rerun').read_text() == '12[1].server\n'
    assert len(list(folder.glob('*.part'))) == 1 and not list((folder / 'locks').glob('*.lock'))
    write_program(tmp_path)
    assert subprocess.run(script, env=env).returncode == 0 and sorted(starts(folder).values()) == [1, 2]
    assert (tmp_path / 'rerun').read_text() == '12[1].server\n'


def test_without_a_known_time_limit_pbs_cannot_requeue(tmp_path):
    path, _ = ready_spec(tmp_path)
    for extra in ('', ', extra: ["-l walltime=00:02:00"]'):
        err = submit_fails(path, 'pbs', '--set', f'options.pbs={{requeue: true{extra}}}')
        assert "options.pbs.requeue: the time limit is not known; expected the line '-l walltime=HH:MM:SS'" in err


# ---- stages 0 and 2


@pytest.mark.parametrize('stage', ['0_sampletrajs', '2_eval'])
def test_the_job_of_a_stage_asks_for_as_many_cores_as_processes(tmp_path, stage):
    path, folder = ready_spec(tmp_path)
    out, _ = im_pipeline(path, stage, '-e', 'slurm', '-n', '-j', 16, '--only', 'alg=ga', '--set', 'training.runs=1')
    assert '#SBATCH --cpus-per-task=16' in head(out) and not [line for line in head(out) if '--array' in line]
    assert f'#SBATCH --output={folder}/logs/slurm_%j.txt' in head(out)
    words = shlex.split(out.splitlines()[-1].partition('im_pipeline.py ')[2])
    assert words == [str(path), stage, '--set', 'training.runs=1', '--only', 'alg=ga', '--resume', '-j', '${SLURM_CPUS_PER_TASK:-16}']
    assert 'export POLICYOPT_WORKERS="${SLURM_CPUS_PER_TASK:-16}"' in out and not folder.exists()
    assert subprocess.run(['bash', '-n'], input=out, text=True).returncode == 0


@pytest.mark.slow
def test_a_whole_experiment_runs_on_the_cluster_and_a_second_time_not_at_all(tmp_path, pbs):  # noqa: F811
    cmd = 'python scripts/imitate_mj.py --mode bclone --env {env} --data {dataset} --limit_trajs {num_trajs} --max_iter 3 --log {out}'
    path, folder = ready_spec(tmp_path, cmd=cmd)
    for file in (tmp_path / 'store' / 'trajs').iterdir():
        file.unlink()
    small = ['--only', 'task=cartpole', 'alg=ga', 'num_trajs=1']
    _, err = im_pipeline(path, '0', '-e', 'pbs', '-y', *small, env=pbs)
    assert 'submitted job 12.server with stage 0_sampletrajs' in err and '(when the job is over)' in err
    _, err = im_pipeline(path, 'all', '-e', 'pbs', '-y', '--wait', *small, env=pbs)
    assert (folder / 'results.h5').exists() and 'next: python scripts/analyze_results.py' in err
    assert (tmp_path / 'qsub.log').read_text().split() == [f'{folder}/cluster/pbs_{i}.sh' for i in (1, 2, 3)]
    im_pipeline(path, 'all', '-e', 'pbs', '-y', '--wait', *small, env=pbs)
    assert len((tmp_path / 'qsub.log').read_text().split()) == 3


def test_a_stage_whose_job_fails_is_reported(tmp_path, pbs):  # noqa: F811
    path, _ = ready_spec(tmp_path)
    (tmp_path / 'store' / 'trajs' / 'trajs_cartpole.h5').unlink()
    (tmp_path / 'bin' / 'qsub').write_text('#!/bin/sh\necho 12.server\n')
    _, err = im_pipeline(path, '0', '-e', 'pbs', '-y', '--wait', '--only', 'task=cartpole', code=1, env=pbs)
    assert 'job 12.server is over, but 2 of its 2 files are not done, first trajs_cartpole; see ' in err


# ---- a real Slurm


@pytest.mark.slurm
def test_slurm_takes_more_runs_than_an_array_may_hold(tmp_path, small_slurm):
    path, folder = ready_spec(tmp_path)
    add_options(path, '  slurm: {partition: main, time: "10", max_running: 3}\n')
    words = [path, '1_train', '-e', 'slurm', '-y', '--wait', '--set', 'training.runs=3', '--only', 'num_trajs=1']
    _, err = im_pipeline(*words, env=small_slurm)
    assert re.findall(r'submitted job \d+ with (\d+) runs', err) == ['4', '4', '4'] and '12/12 runs done' in err
    assert len(h5_files(folder)) == 12 and set(starts(folder).values()) == {1}
    _, err = im_pipeline(*words, env=small_slurm)
    assert '12 of 12 runs are done' in err and set(starts(folder).values()) == {1}


@pytest.mark.slurm
def test_slurm_takes_odd_folders_and_directives_of_the_users_own(tmp_path, slurm):
    name = 'two words, it\'s "a" #1'
    path, _ = ready_spec(tmp_path, cmd=f'cp {tmp_path}/{{task}} {{out}}')
    folder = move_store(path, tmp_path / name / 'store')
    (tmp_path / 'cartpole').write_bytes(SIGNATURE)
    add_options(path, '  slurm: {partition: main, extra: ["--comment=\\"x y\\"", "--begin=now+1hour"]}\n')
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', '--only', 'alg=ga', 'task=cartpole', env=slurm)
    job = re.search(r'submitted job (\d+)', err)[1]
    try:
        wait_until(lambda: squeue(slurm, '-j', job, '-o', '%r') == 'BeginTime\n')
        shown = subprocess.run(['scontrol', 'show', 'job', job], env=slurm, capture_output=True, text=True).stdout
        assert 'Comment=x y' in shown and f'StdOut={folder}/logs/slurm_{job}_' in shown
    finally:
        subprocess.run(['scontrol', 'update', f'JobId={job}', 'StartTime=now'], env=slurm, check=True)
    wait_until(lambda: len(h5_files(folder)) == 4, 60)
    assert len(list((folder / 'logs').glob(f'slurm_{job}_*.txt'))) == 4


@pytest.mark.slurm
@pytest.mark.slow
def test_slurm_does_a_whole_experiment_and_then_grows_it(tmp_path, slurm):
    cmd = 'python scripts/imitate_mj.py --mode bclone --env {env} --data {dataset} --limit_trajs {num_trajs} --max_iter 3 --log {out}'
    path, folder = ready_spec(tmp_path, cmd=cmd)
    add_options(path, '  slurm: {partition: main, time: "10"}\n')
    for file in (tmp_path / 'store' / 'trajs').iterdir():
        file.unlink()
    words = [path, 'all', '-e', 'slurm', '-y', '--wait', '--only', 'task=cartpole', 'alg=ga', 'num_trajs=1', '--set']
    for num in (1, 2, 2):
        _, err = im_pipeline(*words, f'training.runs={num}', env=slurm)
        assert 'next: python scripts/analyze_results.py' in err
        assert f'results: {num} of {num} runs in' in im_pipeline(*words, f'training.runs={num}', '--summary', env=slurm)[0]
    assert len(h5_files(folder)) == 2 and len(list((folder / 'cluster').glob('*.sh'))) == 5


@pytest.mark.slurm
@pytest.mark.slow
def test_slurm_starts_a_block_again_in_its_middle(tmp_path, slurm):
    path, folder = ready_spec(tmp_path)
    add_options(path, '  slurm: {partition: main, time: "10", requeue: true, runs_per_task: 3}\n')
    only = ['--only', 'alg=ga', 'task=cartpole', 'num_trajs=1']
    slow = (tmp_path / 'train.py').read_text().replace('time.sleep(seconds)', 'time.sleep(60 if "run=1" in out else 0)')
    (tmp_path / 'train.py').write_text(slow)
    _, err = im_pipeline(path, '1_train', '-e', 'slurm', '-y', *only, '--set', 'training.runs=3', env=slurm)
    job = re.search(r'submitted job (\d+) with 3 runs', err)[1]
    wait_until(lambda: len(start_pids(folder)) == 2, 60)
    time.sleep(0.5)
    write_program(tmp_path)
    subprocess.run(['scancel', '--batch', '--signal=USR1', f'{job}_1'], env=slurm, check=True)
    wait_until(lambda: 'PENDING' in squeue(slurm, '-j', job, '-o', '%T'), 60)
    assert len(h5_files(folder)) == 1 and len(list(folder.glob('*.part'))) == 1 and not list((folder / 'locks').glob('*.lock'))

    time.sleep(5)  # the node must have forgotten the job's first start

    def hurry():  # a requeued job waits two minutes before it starts again, unless it is told otherwise
        subprocess.run(['scontrol', 'update', f'JobId={job}', 'StartTime=now'], env=slurm, capture_output=True)
        time.sleep(1)
        return len(h5_files(folder)) == 3

    wait_until(hurry, 200)
    assert [starts(folder)[f'alg=ga,task=cartpole,num_trajs=1,run={i}'] for i in range(3)] == [1, 2, 1]
    log = Path(folder / 'logs' / f'slurm_{job}_1.txt').read_text()
    assert 'stopped by SIGUSR1' in log and f'requeue: scontrol requeue {job}_1' in log and 'run=0 is done already' in log
