"""Schedulers that an experiment describes by data (-e array): SGE, LSF and Kubernetes, played by shells."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from pipeline_tools import REPO, environment, im_pipeline, ready_spec, starts
from test_cluster_jobs import head
from test_clusters import SGE, add_options, h5_files

from policyopt.pipeline.cluster_options import ArrayOptions
from policyopt.pipeline.spec import load_spec

# What the manuals of these schedulers say, as shells: each runs the script once for every index.
LOOPS = {
    'qsub': 'echo "$@" >> "$STUB_LOG"; script=${@: -1}; range=$(sed -n "s/^#\\$ -t //p" "$script")\n'
    'for i in $(seq ${range%-*} ${range#*-}); do SGE_TASK_ID=$i bash "$script" > "$STUB_LOG.$i" 2>&1; done; echo "12.1-$i:1"\n',
    'qstat': 'echo "Following jobs do not exist: $2" >&2; exit 1\n',
    'bsub': 'cat > "$STUB_LOG.sh"; num=$(sed -n "s/^#BSUB -J .*\\[1-\\([0-9]*\\)\\].*/\\1/p" "$STUB_LOG.sh")\n'
    'for i in $(seq $num); do LSB_JOBINDEX=$i bash "$STUB_LOG.sh" > "$STUB_LOG.$i" 2>&1; done\n'
    'echo "Job <17> is submitted to queue <normal>."\n',
    'bjobs': 'echo "$@" >> "$STUB_LOG"; echo DONE; echo DONE\n',
}
LSF = r"""  array:
    submit: bsub < {script} | sed 's/[^<]*<\([0-9]*\)>.*/\1/'
    query: bjobs -noheader -o stat {job} | grep -v -e DONE -e EXIT
    cancel: bkill {job}
    directives: ['#BSUB -J {name}[1-{num}]%{max_running}', '#BSUB -o {logs}/lsf_%J_%I.txt', '#BSUB -Q 75']
    index: $LSB_JOBINDEX
"""


@pytest.fixture
def loops(tmp_path):
    """An environment with the programs of SGE and LSF, played by shells."""
    folder = tmp_path / 'loops'
    folder.mkdir()
    for name, text in LOOPS.items():
        (folder / name).write_text('#!/bin/bash\n' + text)
        (folder / name).chmod(0o755)
    return environment(PATH=f'{folder}:{os.environ["PATH"]}', STUB_LOG=str(tmp_path / 'stub.log'))


@pytest.mark.parametrize(('system', 'job'), [(SGE, '12'), (LSF, '17')])
def test_a_scheduler_described_by_data_does_every_run_once(tmp_path, loops, system, job):
    path, folder = ready_spec(tmp_path)
    add_options(path, system)
    only = ['--only', 'alg=ga', 'num_trajs=1']
    _, err = im_pipeline(path, '1_train', '-e', 'array', '-y', '--wait', '-j', 3, *only, '--set', 'options.array.max_array=3', env=loops)
    assert f'submitted job {job} with 3 runs' in err and f'submitted job {job} with 1 runs' in err and '4/4 runs done' in err
    assert len(h5_files(folder)) == 4 and set(starts(folder).values()) == {1}
    script = head((folder / 'cluster' / 'array_1.sh').read_text())
    if system is SGE:
        assert script[1:5] == ['#$ -N spec', '#$ -t 1-3', '#$ -tc 2', f'#$ -o {folder}/logs -j y']
    else:
        assert script[1] == '#BSUB -J spec[1-3]%2' and '17' in (tmp_path / 'stub.log').read_text().split()
    (folder / h5_files(folder)[0]).unlink()
    im_pipeline(path, '1_train', '-e', 'array', '-y', '--wait', *only, env=loops)
    assert sorted(starts(folder).values()) == [1, 1, 1, 2]


def test_a_command_that_fails_behind_a_pipe_is_no_submission(tmp_path, loops):
    path, _ = ready_spec(tmp_path)
    add_options(path, SGE)
    (tmp_path / 'loops' / 'qsub').write_text('#!/bin/sh\necho "no such queue" >&2; exit 3\n')
    _, err = im_pipeline(path, '1_train', '-e', 'array', '-y', code=1, env=loops)
    assert 'failed with exit code 3: no such queue' in err


def test_without_its_description_the_executor_array_says_what_it_needs(tmp_path):
    path, _ = ready_spec(tmp_path)
    _, err = im_pipeline(path, '1', '-e', 'array', '-n', code=2)
    assert 'options.array: is missing; expected submit, query, cancel, directives and index' in err


def test_kubernetes_runs_the_template_as_an_indexed_job(tmp_path):
    """The manifest of examples/ is filled in and checked against the schema; then its command runs for every index, as pods would."""
    options = yaml.safe_load((REPO / 'examples' / 'kubernetes.yaml').read_text())
    assert 'kubectl create -o name -f -' in options['array']['submit']
    path, folder = ready_spec(tmp_path)
    add_options(path, ''.join(f'  {line}\n' for line in yaml.safe_dump(options).splitlines()))
    spec = load_spec(str(path))
    assert isinstance(spec.options.array, ArrayOptions)
    bin_folder = tmp_path / 'bin'
    bin_folder.mkdir()
    # creates the job, as the cluster would: one pod after the other, the first one of index 0
    (bin_folder / 'kubectl').write_text(
        f'#!{sys.executable}\nimport os, subprocess, sys, yaml\n'
        'if sys.argv[1] == "get" and "custom-columns=NAME:.metadata.name,IS:.status.conditions[*].type" in sys.argv:\n'
        '    sys.exit(print("gail-x7k2p", os.environ.get("CONDITIONS", "<none>")))\n'
        f'job = yaml.safe_load(sys.stdin)\nopen("{tmp_path}/job.yaml", "w").write(yaml.safe_dump(job))\n'
        'spec = job["spec"]\ncommand = spec["template"]["spec"]["containers"][0]["command"]\n'
        'for i in range(spec["completions"]):\n'
        '    subprocess.run(command, env=os.environ | {"JOB_COMPLETION_INDEX": str(i)}, stdout=subprocess.DEVNULL)\n'
        'print("job.batch/gail-x7k2p")\n'
    )
    (bin_folder / 'kubectl').chmod(0o755)
    env = environment(PATH=f'{bin_folder}:{os.environ["PATH"]}')
    _, err = im_pipeline(path, '1_train', '-e', 'array', '-y', '--wait', '-j', 2, '--only', 'alg=ga', 'num_trajs=1', env=env)
    assert 'submitted job job.batch/gail-x7k2p with 4 runs' in err and '4/4 runs done' in err
    assert len(h5_files(folder)) == 4 and set(starts(folder).values()) == {1}
    query = ['bash', '-c', options['array']['query'].format(job='job.batch/gail-x7k2p')]
    for conditions, exists in {
        '<none>': True,
        'FailureTarget': True,
        'FailureTarget,Failed': False,
        'SuccessCriteriaMet,Complete': False,
    }.items():
        printed = subprocess.run(query, env=env | {'CONDITIONS': conditions}, stdout=subprocess.PIPE).stdout
        assert (printed != b'') is exists
    job = yaml.safe_load((tmp_path / 'job.yaml').read_text())
    assert (job['spec']['completionMode'], job['spec']['completions'], job['spec']['parallelism']) == ('Indexed', 4, 2)
    kubernetes_validate = pytest.importorskip('kubernetes_validate')
    kubernetes_validate.validate(job, '1.31', strict=True)


PAGE = (REPO / 'docs' / 'clusters.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'(?ms)^```yaml\n(options:.*?)^```', PAGE)


@pytest.mark.parametrize('block', BLOCKS, ids=range(len(BLOCKS)))
def test_what_the_page_asks_clusters_for_is_taken(tmp_path, block):
    (name,) = yaml.safe_load(block)['options']
    path, _ = ready_spec(tmp_path)
    add_options(path, block.removeprefix('options:\n'))
    out, _ = im_pipeline(path, '1_train', '-e', name, '-n', '--set', 'training.runs=25')
    lines = head(out)
    if name == 'slurm':
        assert '#SBATCH --array=1-20%20' in lines and '#SBATCH --qos=long' in lines and '--requeue "scontrol requeue ' in out
    elif 'kubectl' not in block:
        assert any('1-200' in line for line in lines) and len(lines) == len(yaml.safe_load(block)['options']['array']['directives']) + 2
    assert subprocess.run(['bash', '-n'], input=out, text=True).returncode == 0
