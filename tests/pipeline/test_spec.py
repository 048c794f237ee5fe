"""The experiment file: what 2016 wrote still runs, every mistake is one sentence before any compute, and runs are stable."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from pipeline_tools import REPO, SPEC, environment, im_pipeline, write_spec

from policyopt.errors import UserError
from policyopt.files import names
from policyopt.pipeline.command import Command
from policyopt.pipeline.spec import load_spec, select_runs
from policyopt.provenance import derive_seed


def spec_of(folder, text=SPEC, cmd="'true {out}'", overrides=()):
    return load_spec(str(write_spec(folder, cmd, text)), overrides)


YAML_2016 = """
tasks:
  - name: hopper
    env: Hopper-v1
    policy: expert_policies/modern/log_Hopper-v0_3.h5/snapshots/iter0000500
    cuts_off_on_success: false
    data_subsamp_freq: 20
training:
  full_dataset_num_trajs: 50
  dataset_num_trajs: [4, 11, 18, 25]
  deterministic_expert: false
  runs: 1
  algorithms:
    - name: bclone
      cmd: >
        python scripts/imitate_mj.py --mode bclone
        --env {env}
        --data {dataset}
        --limit_trajs {num_trajs}
        --data_subsamp_freq {data_subsamp_freq}
        --max_iter 20001
        --log {out}
    - name: ga
      cmd: >
        python scripts/imitate_mj.py --mode ga
        --env {env}
        --data {dataset}
        --limit_trajs {num_trajs}
        --favor_zero_expert_reward {cuts_off_on_success}
        --min_total_sa 50000
        --max_iter 501
        --reward_include_time 0
        --log {out}
options:
  storagedir: STORE
  traj_subdir: trajs
  checkpt_subdir: checkpoints_all
  eval_num_trajs: 50
  results_filename: results.h5
  pbs:
    jobname: im_pipeline
    queue: atlas
    ppn: 4
    range: 1-8
"""


def test_a_yaml_of_2016_runs_as_it_is(tmp_path):
    path = tmp_path / 'im_pipeline.yaml'
    path.write_text(YAML_2016.replace('STORE', str(tmp_path)))
    spec = load_spec(str(path))
    assert spec.options.pbs.range == '1-8' and spec.options.pbs.dialect == 'torque' and spec.run_name == 'im_pipeline'
    run = spec.runs(7)[4]
    assert run.id == 'alg=ga,task=hopper,num_trajs=4,run=0'
    assert run.seed == derive_seed(7, run.id)
    assert shlex.split(run.command.text) == shlex.split(
        f'{sys.executable} scripts/imitate_mj.py --mode ga --env Hopper-v1 --data {tmp_path}/trajs/trajs_hopper.h5 --limit_trajs 4 '
        '--favor_zero_expert_reward 0 --min_total_sa 50000 --max_iter 501 --reward_include_time 0 '
        f'--log {tmp_path}/checkpoints_all/{run.id}.h5 --seed {run.seed}'
    )
    assert '\n' not in run.command.text


def test_runs_come_in_the_order_of_2016(tmp_path):
    ids = [r.id for r in spec_of(tmp_path).runs(0)]
    assert len(ids) == len(set(ids)) == 16
    first = 'alg=bclone,task=cartpole,num_trajs=1,run=0'
    changes = [('run=0', 'run=1'), ('=1', '=4'), ('cartpole', 'mountaincar'), ('bclone', 'ga')]
    assert [ids.index(first.replace(*change)) for change in changes] == [1, 2, 4, 8] and ids[0] == first


def test_adding_a_task_shifts_no_other_seed(tmp_path):
    before = {r.id: r.seed for r in spec_of(tmp_path, overrides=['training.runs=1']).runs(3)}
    first_only = SPEC.replace(SPEC[SPEC.index('- name: mountaincar') : SPEC.index('training:')], '')
    after = {r.id: r.seed for r in spec_of(tmp_path, first_only).runs(3)}
    assert len(set(before.values())) == len(before)
    assert all(before[i] == after[i] for i in before if 'cartpole' in i)
    assert {r.seed for r in spec_of(tmp_path).runs(4)}.isdisjoint(before.values())


def test_every_field_is_filled_in(tmp_path):
    cmd = '>-\n      prog {env} {dataset} {num_trajs} {cuts_off_on_success} {data_subsamp_freq}\n      {out} {seed} {run} {task}'
    cmd += ' {num_trajs:03d} {{x}}'
    run = spec_of(tmp_path, cmd=cmd).runs(0)[6]
    store = tmp_path / 'store'
    data, out = f'{store}/trajs/trajs_mountaincar.h5', f'{store}/checkpoints/{run.id}.h5'
    assert run.command.text == f'prog MountainCar-v0 {data} 4 1 5 {out} {run.seed} {run.run} mountaincar 004 {{x}}'


@pytest.mark.parametrize('quote', ['', '"', "'"])
def test_a_folder_with_blanks_and_quotes_stays_one_argument(tmp_path, quote):
    folder = tmp_path / "it's a $folder"
    folder.mkdir()
    run = spec_of(folder, cmd=f'|-\n      prog {quote}{{out}}{quote} "a  b"').runs(0)[0]
    shown = subprocess.run(['/bin/sh', '-c', run.command.text.replace('prog', r"printf '%s\n'")], capture_output=True, text=True).stdout
    assert shown.splitlines() == [run.out, 'a  b']


def test_options_are_added_to_our_trainer_only():
    def add(text, *option):
        return Command(text).with_option(*option).text

    assert add('python scripts/imitate_mj.py --log x', '--seed', 5) == 'python scripts/imitate_mj.py --log x --seed 5'
    assert add('python imitate_mj.py --seed 3', '--seed', 5) == 'python imitate_mj.py --seed 3'
    assert add('python imitate_mj.py --seed=3', '--seed', 5) == 'python imitate_mj.py --seed=3'
    assert add('python imitate_mj.py --log x 2>&1 | tee y', '--seed', 5) == 'python imitate_mj.py --log x --seed 5 2>&1 | tee y'
    assert add('python imitate_mj.py --log $(pwd)>y', '--seed', 5) == 'python imitate_mj.py --log $(pwd) --seed 5 >y'
    assert add("python imitate_mj.py --log 'a|b' > y", '--resume') == "python imitate_mj.py --log 'a|b' --resume > y"
    assert add('julia train.jl --log x', '--seed', 5) == 'julia train.jl --log x'


def test_options_are_read_as_argparse_does():
    command = "python imitate_mj.py --max_iter 3 --log 'a b.h5' --max_iter=5 --resume"
    assert Command(command).options == {'--max_iter': '5', '--log': 'a b.h5', '--resume': None}


@pytest.mark.parametrize('tail', ['| tee x', '> x', '2>&1', '&& y', '; y', '$(y)', '"$(y)"', '`y`'])
def test_operators_of_the_shell_are_seen(tail):
    assert Command(f'A=1 python imitate_mj.py {tail}').has_operators and not Command(f'python imitate_mj.py {tail}').is_simple
    assert not Command("A=1 python imitate_mj.py 'x;y' \"a > b\" ''").has_operators


def test_the_reference_is_found_as_given_or_in_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.csv').write_text('')

    def reference(name):
        return spec_of(tmp_path, overrides=[f'options.reference={name}']).reference_path

    assert reference('mine.csv') == 'mine.csv' and reference(f'{tmp_path}/mine.csv') == f'{tmp_path}/mine.csv'
    assert reference('results/paper/results_per_run.csv') == str(REPO / 'results' / 'paper' / 'results_per_run.csv')
    assert reference('null') is None and spec_of(tmp_path).reference_path is None
    with pytest.raises(UserError, match="spec.yaml: options.reference: no such file 'yours.csv'; expected a CSV of published results"):
        reference('yours.csv')


def test_python_at_the_head_is_this_python_and_scripts_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def resolved(text):
        return Command(text).resolved().text

    assert resolved('python scripts/im_pipeline.py x') == f'{sys.executable} {REPO}/scripts/im_pipeline.py x'
    assert resolved('python scripts/no_such.py x') == f'{sys.executable} scripts/no_such.py x'
    assert resolved('python -c "pass"') == f'{sys.executable} -c "pass"'
    assert resolved('python3 a.py') == 'python3 a.py'
    assert resolved('echo python a.py') == 'echo python a.py'


def test_max_traj_len_of_a_task_reaches_the_trainer(tmp_path):
    text = SPEC.replace('data_subsamp_freq: 10', 'data_subsamp_freq: 10\n  max_traj_len: 77')
    runs = spec_of(tmp_path, text, 'python scripts/imitate_mj.py --log {out}').runs(0)
    assert ['--max_traj_len 77' in r.command.text for r in runs] == ['cartpole' in r.id for r in runs]


def test_several_expert_sets_are_shared_out_over_the_runs(tmp_path):
    spec = spec_of(tmp_path, overrides=['training.datasets=3', 'training.runs=5'])
    runs = [r for r in spec.runs(0) if r.alg == 'ga' and r.task == 'cartpole' and r.num_trajs == 1]
    assert [r.dataset for r in runs] == [0, 1, 2, 0, 1]
    assert runs[4].out.endswith('alg=ga,task=cartpole,num_trajs=1,run=4.h5')
    assert spec.traj_path('cartpole', 1).endswith('trajs_cartpole_set1.h5')
    assert spec_of(tmp_path).traj_path('cartpole').endswith('trajs_cartpole.h5')


@pytest.mark.parametrize(
    ('name', 'rule'), [('bclone', 'best_valacc'), ('ga', 'last'), ('ga_entreg-3', 'last'), ('fem', 'last'), ('simplex2', 'last')]
)
def test_the_name_says_which_snapshot_is_judged(tmp_path, name, rule):
    spec = spec_of(tmp_path, overrides=[f'training.algorithms.ga.name={name}', 'training.algorithms.bclone.name=bclone_x'])
    assert spec.training.algorithms[1].eval == rule


def test_an_unknown_algorithm_is_refused_unless_it_says_its_rule(tmp_path):
    with pytest.raises(UserError, match=r"algorithms\[1\].name: the evaluation does not know 'magic'; .*eval: last"):
        spec_of(tmp_path, SPEC.replace('name: ga\n', 'name: magic\n'))
    assert spec_of(tmp_path, SPEC.replace('name: ga\n', 'name: magic\n    eval: last\n')).training.algorithms[1].eval == 'last'


MISTAKES = {
    'unknown key': (('env: CartPole', 'evn: CartPole'), r"tasks\[0\].evn: unknown key 'evn'; expected one of name,.* Did you mean 'env'\?"),
    'unknown top key': (('tasks:', 'taks:'), "taks: unknown key 'taks'.*Did you mean 'tasks'"),
    'missing key': (('  env: MountainCar-v0\n', ''), r"tasks\[1\].env: the key 'env' is missing; expected an environment id"),
    'missing part': (('options:\n  storagedir: {storage}\n  eval_num_trajs: 3\n', ''), "options: the key 'options' is missing"),
    'text for a number': (('runs: 2', 'runs: two'), "training.runs: 'two'; expected a whole number of at least 1"),
    'quoted number': (('runs: 2', 'runs: "2"'), "training.runs: '2'; .*without quotes"),
    'zero': (('runs: 2', 'runs: 0'), r'training.runs: 0 \(number\); expected a whole number of at least 1'),
    'negative': (('runs: 2', 'runs: -3'), 'training.runs: -3'),
    'decimal': (('runs: 2', 'runs: 2.5'), r'training.runs: 2.5 \(decimal number\)'),
    'exponent': (('runs: 2', 'runs: 1e1'), r'training.runs: 10.0 \(decimal number\); expected a whole number of at least 1. Write 10'),
    'leading zero': (('runs: 2', 'runs: 010'), "training.runs: '010'; .*leading zeros"),
    'thousands': (('runs: 2', 'runs: 1,000'), "training.runs: '1,000'"),
    'boolean for a number': (('runs: 2', 'runs: yes'), r'training.runs: true \(boolean\)'),
    'text for a boolean': (('on_success: false', 'on_success: "no"'), r"tasks\[0\].cuts_off_on_success: 'no'; .*without quotes"),
    'boolean for a name': (('name: cartpole', 'name: on'), r'tasks\[0\].name: true \(boolean\); expected a name. .* put it in quotes'),
    'number for a name': (('name: cartpole', 'name: 12'), r'tasks\[0\].name: 12 \(number\); .*quotes'),
    'nothing for a name': (('name: cartpole', 'name:'), r'tasks\[0\].name: nothing \(null\)'),
    'comma in a name': (('name: cartpole', 'name: "cart,pole"'), r"tasks\[0\].name: 'cart,pole'; .*would break the names of files"),
    'equals in a name': (('name: cartpole', 'name: cart=pole'), 'cart=pole'),
    'slash in a name': (('name: ga\n', 'name: ga/x\n'), r"training.algorithms\[1\].name: 'ga/x'"),
    'duplicate task': (('name: mountaincar', 'name: cartpole'), r"tasks\[1\].name: 'cartpole' a second time"),
    'duplicate algorithm': (('name: ga\n', 'name: bclone\n'), r"training.algorithms\[1\].name: 'bclone' a second time"),
    'duplicate size': (('[1, 4]', '[1, 4, 1]'), r'training.dataset_num_trajs\[2\]: 1 \(number\) a second time'),
    'duplicate key': (('  runs: 2', '  runs: 2\n  runs: 3'), "line 18, column 3: not valid YAML: the key 'runs' stands twice"),
    'size above the dataset': (('[1, 4]', '[1, 5]'), r'\[1\]: 5 \(number\); expected at most training.full_dataset_num_trajs = 4'),
    'no list of sizes': (('[1, 4]', '4'), r'training.dataset_num_trajs: 4 \(number\); expected a list'),
    'empty list': (('[1, 4]', '[]'), 'training.dataset_num_trajs: an empty list'),
    'a mapping for tasks': (('tasks:\n- name', 'tasks:\n  name'), 'not valid YAML|tasks: a mapping'),
    'no out': (("cmd: 'true {out}'", 'cmd: python x.py'), r'training.algorithms\[0\].cmd: no \{out\} in the command'),
    'unknown field': (("cmd: 'true {out}'", "cmd: 'true {out} {ouput}'"), r"unknown field '\{ouput\}'; .* Did you mean 'out'"),
    'JSON in a template': (("cmd: 'true {out}'", 'cmd: \'true {out} {"type": 1}\''), r'literal brace is written \{\{ or \}\}'),
    'open brace': (("cmd: 'true {out}'", "cmd: 'true {out} {'"), 'a brace without its partner'),
    'a conversion': (("cmd: 'true {out}'", 'cmd: "true {out!r}"'), r"a format that its field cannot have \('!r' after a field\)"),
    'a number as text': (
        ("cmd: 'true {out}'", 'cmd: "true {out} {seed:s}"'),
        r'a format that its field cannot have .*expected fields alone',
    ),
    'one seed for all runs': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode bclone --limit_trajs {num_trajs} --seed 3 --log {out}'),
        r'training.algorithms\[0\].cmd: --seed 3 in all 2 runs; expected --seed \{seed\}, or none',
    ),
    'options of another mode': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode ga --dagger_beta .5 --log {out}'),
        '--dagger_beta 0.5 with --mode ga; expected it only with --mode dagger',
    ),
    'options of another reward': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode ga --airl_state_only 1 --log {out}'),
        '--airl_state_only 1 with --reward_type nn; expected it only with --reward_type airl',
    ),
    'a bound of a reward that has none': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode ga --reward_type nn --reward_shift batch --log {out}'),
        '--reward_shift batch with --reward_type nn; expected it only with --reward_type l2ball or simplex',
    ),
    'an unknown bound': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode ga --reward_type l2ball --reward_shift btach --log {out}'),
        r"--reward_shift 'btach'; expected 'running' or 'batch' or 'none'",
    ),
    'two descriptions of nets': (
        ("cmd: 'true {out}'", 'cmd: "python scripts/imitate_mj.py --mode ga --tiny_policy --policy_hidden_spec x --log {out}"'),
        'both choose the nets; expected one of them',
    ),
    'plots while training': (
        ("cmd: 'true {out}'", 'cmd: python scripts/imitate_mj.py --mode ga --plot_freq 5 --log {out}'),
        "--plot_freq '5'; expected a whole number, 0, and run scripts/showlog.py on the log instead",
    ),
    'a range of 5000 digits': (
        ('trajs: 3', f'trajs: 3\n  pbs: {{range: "1-{"9" * 5000}"}}'),
        'options.pbs.range: .*; expected indices of runs',
    ),
    'open quote': (("cmd: 'true {out}'", "cmd: 'true {out} \"x'"), 'quotation.*Every quote needs its partner'),
    'unknown rule': (('name: ga\n', 'name: ga\n    eval: best\n'), r"\[1\].eval: 'best'; expected best_valacc or last"),
    'more sets than runs': (('  runs: 2', '  runs: 2\n  datasets: 3'), r'training.datasets: 3 \(number\); expected at most'),
    'number among between_sets': (
        ('trajs: 3', 'trajs: 3\n  between_sets: [a.h5, 1]'),
        r'options.between_sets\[1\]: 1 \(number\); expected a results file',
    ),
    'number for a reference': (
        ('trajs: 3', 'trajs: 3\n  reference: 1'),
        r'options.reference: 1 \(number\); expected a CSV of published results',
    ),
    'results elsewhere': (('eval_num_trajs: 3', 'eval_num_trajs: 3\n  results_filename: /tmp/r.h5'), 'options.results_filename'),
    'results in place of a file of stage 0': (
        ('trajs: 3', 'trajs: 3\n  checkpt_subdir: ./trajs\n  results_filename: trajs_cartpole.h5'),
        "options.results_filename: 'trajs_cartpole.h5', a file of stage 0 .*; expected another name",
    ),
    'unknown dialect': (('trajs: 3', 'trajs: 3\n  pbs: {dialect: sge}'), "options.pbs.dialect: 'sge'; expected torque or openpbs"),
    'bad range': (('trajs: 3', 'trajs: 3\n  pbs: {range: 5..9}'), "options.pbs.range: '5..9'; expected indices of runs"),
    'unknown slurm key': (('trajs: 3', 'trajs: 3\n  slurm: {partitoin: x}'), "options.slurm.partitoin.*Did you mean 'partition'"),
    'a code for the terminal': (('env: CartPole-v0', 'env: "x\\e[2J"'), r"tasks\[0\].env: text with .* '\\x1b'"),
    'a mark of direction': (("cmd: 'true {out}'", 'cmd: "true {out} \\u202e"'), r"algorithms\[0\].cmd: text with .* '\\u202e'"),
    'a block of YAML as a folder': (
        ('storagedir: {storage}', 'storagedir: |\n    x'),
        r"options.storagedir: text with .* '\\n'; expected a folder",
    ),
    'a user who is not here': (('storagedir: {storage}', 'storagedir: ~no-such-user/x'), "and there is no user 'no-such-user' here"),
    'a variable in a folder below': (
        ('trajs: 3', 'trajs: 3\n  traj_subdir: $NOT_SET/x'),
        'options.traj_subdir: .*the environment variable NOT_SET is not set here; expected a folder',
    ),
    'a tab': (('  runs: 2', '\truns: 2'), 'line 17.*not valid YAML'),
    'a list at the top': (('tasks:', '- tasks:'), 'not valid YAML|a list; expected a mapping'),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_a_mistake_is_one_sentence_with_file_place_and_expectation(tmp_path, mistake):
    (old, new), message = MISTAKES[mistake]
    text = SPEC.replace('{cmd}', "'true {out}'")
    assert old in text
    with pytest.raises(UserError, match=message) as e:
        spec_of(tmp_path, text.replace(old, new, 1))
    assert str(e.value).startswith(str(tmp_path / 'spec.yaml') + ':')
    assert '\n' not in str(e.value) and 'expected' in str(e.value)


def test_options_that_are_not_known_yet_are_left_to_the_trainer(tmp_path):
    for words in ('--mode $MODE --dagger_beta .5', '--mode ga $MORE --airl_state_only 1', '--mode ga --reward_type $R --airl_absorbing 0',
                  '--dagger_beta .5', '--mode ga --reward_type airl --airl_state_only 1', '--mode dagger --dagger_beta .5'):  # fmt: skip
        command = f'python scripts/imitate_mj.py {words} --log {{out}}'
        text = SPEC.replace('{cmd}', command).replace('- name: bclone', '- name: bclone\n    eval: last')
        assert words in spec_of(tmp_path, text).runs(0)[0].command.text


def test_the_command_line_says_it_in_one_line_with_exit_code_2(tmp_path):
    path = write_spec(tmp_path, text=SPEC.replace('runs: 2', 'rnus: 2'))
    out, err = im_pipeline(path, '1_train', code=2)
    assert out == '' and err.startswith('im_pipeline: error: ') and len(err.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ['spec.yaml', 'train.py']


def test_files_that_are_no_yaml_are_refused(tmp_path):
    for content, message in (
        (b'\xff\xfe\x00', 'not UTF-8'),
        (b'tasks:\n# \xe4', 'line 2: byte 0xe4 is not UTF-8'),
        (b'', 'is empty'),
        (b'just words', 'expected a mapping'),
    ):
        path = tmp_path / 'x.yaml'
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_spec(str(path))
    with pytest.raises(UserError, match='is a folder'):
        load_spec(str(tmp_path))
    for name in (f'{path}/below', 'x' * 300):
        with pytest.raises(UserError, match=f'{name}: cannot be read .*; expected a pipeline YAML'):
            load_spec(name)


def test_a_key_is_set_once(tmp_path):
    with pytest.raises(UserError, match='--set training.runs=4: training.runs is set already, by training.runs=3; give one of them'):
        spec_of(tmp_path, overrides=['training.runs=3', 'training.runs=4'])
    part, whole = 'training.dataset_num_trajs.0=2', 'training.dataset_num_trajs=[1]'
    with pytest.raises(UserError, match=r'=\[1\]: training.dataset_num_trajs\[0\] is set already, by training.dataset_num_trajs.0=2'):
        spec_of(tmp_path, overrides=[part, whole])
    assert spec_of(tmp_path, overrides=[whole, part]).training.dataset_num_trajs == (2,)
    assert im_pipeline(write_spec(tmp_path), '1', '-n', '--seed', '2', '--set', 'training.seed=1', code=2)[1].endswith('give one of them\n')


def test_a_device_is_chosen_once(tmp_path):
    path = write_spec(
        tmp_path,
        'python scripts/imitate_mj.py --mode bclone --device cuda:0 --log {out}',
        SPEC.replace('name: ga', 'name: bc2\n    eval: last'),
    )
    said = im_pipeline(path, '1', '-n', '--device', 'cpu', code=2)[1]
    assert f'--device cpu: {path}: training.algorithms[0].cmd has --device cuda:0; give one of them' in said


def test_a_list_of_tasks_needs_an_index(tmp_path):
    assert '--task-list and --task-index go together' in im_pipeline(write_spec(tmp_path), '1', '--task-list', 'x.runs', code=2)[1]


def test_a_missing_file_is_answered_with_those_that_hold_an_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='YAML. To begin with: pipelines/quickstart.yaml$'):
        load_spec('y.yml')
    (tmp_path / 'mine.yaml').write_text('run_name: x\ntasks: []\n')
    (tmp_path / '.pre-commit-config.yaml').write_text('repos: []\n')
    for name, rest in (
        ('minne.yaml', " Did you mean 'mine.yaml'?"),
        ('quickstrt.yaml', " Did you mean 'pipelines/quickstart.yaml'?"),
        ('y.yml', ' There is: mine.yaml'),
    ):
        with pytest.raises(UserError) as refused:
            load_spec(name)
        assert str(refused.value) == f'{name}: no such file; expected a pipeline YAML.{rest}'
    load_spec('pipelines/quickstart.yaml')


def test_numbers_dates_and_times_are_what_they_look_like(tmp_path):
    text = SPEC + '  slurm: {time: 12:30:00, mem: 4G, cpus: 2}\nrun_name: 2016-05-01\n'
    spec = spec_of(tmp_path, text)
    assert spec.options.slurm.time == '12:30:00' and spec.run_name == '2016-05-01'
    assert spec_of(tmp_path, SPEC + '  slurm: {time: 90}\n').options.slurm.time == '90'
    assert spec_of(tmp_path, SPEC.replace('cuts_off_on_success: true', 'cuts_off_on_success: 1')).tasks[1].cuts_off_on_success is True


def test_set_replaces_keys_with_yaml_types(tmp_path):
    overrides = ['training.runs=1', 'training.dataset_num_trajs=[2]', 'tasks.cartpole.data_subsamp_freq=3', 'tasks[1].env=Acrobot-v0']
    spec = spec_of(tmp_path, overrides=[*overrides, 'options.slurm.time=1:00'])
    assert (spec.training.runs, spec.training.dataset_num_trajs) == (1, (2,))
    assert spec.tasks[0].data_subsamp_freq == 3 and spec.tasks[1].env == 'Acrobot-v0' and spec.options.slurm.time == '1:00'
    copy = tmp_path / 'copy.yaml'
    copy.write_text(spec.text)
    assert [r.command.text for r in load_spec(str(copy)).runs(0)] == [r.command.text for r in spec.runs(0)]


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('training.rusn=1', "--set training.rusn=1: unknown key 'rusn'.*Did you mean 'runs'"),
        ('training.runs=x', "--set training.runs=x: 'x'; expected a whole number"),
        ('training.runs', 'expected KEY.KEY=VALUE'),
        ('tasks.cartpol.env=x', "has no item 'cartpol'.*Did you mean 'cartpole'"),
        ('tasks.9.env=x', 'has no item'),
        ('training.runs.x=1', 'has no key'),
        ('training.runs=[1', 'not valid YAML'),
    ],
)
def test_a_wrong_set_is_named_by_its_flag(tmp_path, assignment, message):
    with pytest.raises(UserError, match=message) as e:
        spec_of(tmp_path, overrides=[assignment])
    assert str(e.value).startswith('--set')


def test_filters_pick_runs(tmp_path):
    runs = spec_of(tmp_path).runs(0)
    assert len(select_runs(runs, ['alg=ga'])) == 8
    assert len(select_runs(runs, ['alg=ga', 'task=cartpole'])) == 4
    assert len(select_runs(runs, ['task=cartpole', 'task=mountaincar', 'run=1'])) == 8
    assert len(select_runs(runs, ['alg=b*'], ['num_trajs=4'])) == 4
    assert len(select_runs(runs, (), ['alg=ga', 'task=cartpole'])) == 12
    assert [r.id for r in select_runs(runs, [runs[5].id])] == [runs[5].id]
    some = [runs[i] for i in (0, 5, 10)]
    assert len({r.task for r in some}) == len({r.alg for r in some}) == 2
    assert select_runs(runs, [r.id for r in some]) == some  # these, not all that agree with some of them in every key
    assert select_runs(runs, ['alg=ga', *(r.id for r in some)]) == [r for r in some if r.alg == 'ga']
    assert len(select_runs(runs, (), [r.id for r in some])) == 13
    both = [r.id for r in some if r.alg == 'bclone']
    assert len(select_runs(runs, (), ['alg=ga', *both])) == 8 - len(both)
    assert len(select_runs(runs, ['task=cartpole,num_trajs=1,num_trajs=4'])) == 8
    parts = select_runs(runs, ['alg=ga,task=cartpole', 'alg=bclone,run=0'])  # not their product
    assert parts == [r for r in runs if (r.alg, r.task) == ('ga', 'cartpole') or (r.alg, r.run) == ('bclone', 0)]


@pytest.mark.parametrize(
    ('only', 'exclude', 'message'),
    [
        (['alg=gaa'], [], "--only alg=gaa: no run has alg 'gaa'; expected one of bclone, ga. Did you mean 'ga'"),
        (['algo=ga'], [], "--only algo=ga: unknown key 'algo'.*Did you mean 'alg'"),
        (['ga'], [], "unknown key 'ga'; expected KEY=VALUE"),
        ([], ['run=7'], "--exclude run=7: no run has run '7'; expected one of 0, 1"),
        (['alg=ga'], ['alg=ga'], '--only alg=ga --exclude alg=ga: leaves none of the 16 runs'),
        (['alg=ga,'], [], "--only 'alg=ga,': unknown key ''"),
    ],
)
def test_a_filter_without_a_match_is_explained(tmp_path, only, exclude, message):
    with pytest.raises(UserError, match=message):
        select_runs(spec_of(tmp_path).runs(0), only, exclude)


def test_the_classic_pipeline_is_336_bare_commands():
    out, _ = im_pipeline('pipelines/classic.yaml', '1_train', '--dry-run')
    lines = out.splitlines()
    assert len(lines) == len(set(lines)) == 336
    assert all(re.match(rf'{re.escape(sys.executable)} scripts/imitate_mj.py --mode (ga|bclone) ', line) for line in lines)
    assert all(' --seed ' in line and ' --log ' in line for line in lines)


@pytest.mark.parametrize(
    ('name', 'num'), [('quickstart', 12), ('quick_mujoco', 8), ('modern', 64), ('humanoid', 12), ('reacher_entropy', 105)]
)
def test_the_other_pipelines_are_valid(name, num):
    spec = load_spec(str(REPO / 'pipelines' / f'{name}.yaml'))
    runs = spec.runs(spec.training.seed)
    assert len(runs) == num and spec.training.seed == 0
    assert all(r.command.text.count('--seed ') == 1 for r in runs)


REWARD_TYPES = {'ga': 'nn', 'fem': 'l2ball', 'simplex': 'simplex'}
CLASSIC_GA = '--max_iter 301 --min_total_sa 5000 --sim_batch_size 1'
REACHER_GA = '--max_iter 201 --min_total_sa 50000 --policy_ent_reg '
# the paper's experiments: {task: (env, freq, ends on success)}, full size, sizes, runs, {algorithm: options beside those of every run}
PAPER = {
    'classic': (
        {'cartpole': ('CartPole-v0', 10, False), 'mountaincar': ('MountainCar-v0', 5, True), 'acrobot': ('Acrobot-v0', 5, True)},
        10, [1, 4, 7, 10], 7,
        {'bclone': '--max_iter 1001 --bclone_eval_freq 100 --sim_batch_size 1', 'ga': CLASSIC_GA, 'fem': CLASSIC_GA, 'simplex': CLASSIC_GA},
    ),
    'modern': (
        {'hopper': ('Hopper-v1', 20, False), 'walker': ('Walker2d-v1', 20, False), 'ant': ('Ant-v1', 20, False),
         'halfcheetah': ('HalfCheetah-v1', 20, False)},
        50, [4, 11, 18, 25], 1,
        {'bclone': '--max_iter 20001', 'ga': '--max_iter 501 --min_total_sa 50000 --reward_lr .01',
         'fem': '--max_iter 501 --min_total_sa 50000', 'simplex': '--max_iter 501 --min_total_sa 50000'},
    ),
    'humanoid': (
        {'humanoid': ('Humanoid-v1', 20, False)}, 240, [80, 160, 240], 1,
        {'bclone': '--max_iter 20001', 'ga': '--max_iter 1501 --min_total_sa 50000 --reward_lr .01',
         'fem': '--max_iter 1501 --min_total_sa 50000', 'simplex': '--max_iter 1501 --min_total_sa 50000'},
    ),
    'reacher_entropy': (
        {'reacher': ('Reacher-v1', 1, False)}, 18, [4, 11, 18], 7,
        {'bclone': '--max_iter 10001 --bclone_eval_freq 500', 'ga_entreg0': REACHER_GA + '0', 'ga_entreg-3': REACHER_GA + '.001',
         'ga_entreg-2': REACHER_GA + '.01', 'ga_entreg-1': REACHER_GA + '.1'},
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', PAPER)
def test_the_papers_experiments_have_its_numbers(name):
    tasks, full, sizes, num_runs, algorithms = PAPER[name]
    spec = load_spec(str(REPO / 'pipelines' / f'{name}.yaml'))
    t = spec.training
    assert {task.name: (task.env, task.data_subsamp_freq, task.cuts_off_on_success) for task in spec.tasks} == tasks
    assert (t.full_dataset_num_trajs, list(t.dataset_num_trajs), t.runs) == (full, sizes, num_runs)
    assert not t.deterministic_expert and spec.options.eval_num_trajs == 50
    runs = spec.runs(0)
    assert len(runs) == len(tasks) * len(sizes) * num_runs * len(algorithms)
    for run in runs:
        words = shlex.split(run.command.text)
        options = dict(zip(words[2::2], words[3::2], strict=True))
        env, freq, on_success = tasks[run.task]
        kind = run.alg.partition('_')[0]
        expected = {'--env': env, '--limit_trajs': str(run.num_trajs), '--data_subsamp_freq': str(freq)}
        expected |= {'--mode': 'bclone'} if kind == 'bclone' else {
            '--mode': 'ga', '--reward_type': REWARD_TYPES[kind], '--favor_zero_expert_reward': str(int(on_success))}  # fmt: skip
        words = algorithms[run.alg].split()
        expected |= dict(zip(words[::2], words[1::2], strict=True))
        assert {k: v for k, v in options.items() if k not in ('--data', '--seed', '--log')} == expected


def test_a_dry_run_imports_neither_torch_nor_gymnasium_and_is_quick():
    code = (
        'import resource, runpy, sys\n'
        'before = resource.getrusage(resource.RUSAGE_SELF).ru_utime\n'
        "sys.argv = ['im_pipeline.py', 'pipelines/classic.yaml', '1_train', '-n']\n"
        'try:\n'
        "    sys.path.insert(0, 'scripts')\n"
        "    runpy.run_path('scripts/im_pipeline.py', run_name='__main__')\n"
        'except SystemExit as e:\n'
        '    assert not e.code\n'
        "heavy = [m for m in ('torch', 'gymnasium', 'numpy', 'tables', 'matplotlib') if m in sys.modules]\n"
        "print(heavy, 'cpu', resource.getrusage(resource.RUSAGE_SELF).ru_utime - before, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=REPO, env=environment())
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('[] cpu')
    assert float(last.split()[-1]) < 1.0


def test_the_id_of_a_run_is_read_back_from_the_names_of_its_files():
    run_id = names.id_of('ga', 'cartpole', 4, 0)
    assert names.parts_of(run_id) == dict(zip(names.KEYS, ('ga', 'cartpole', '4', '0'), strict=True))
    for path in (f'x/{names.done_file(run_id)}', names.part_path(f'x/{names.done_file(run_id)}')):
        assert names.name_of(path) == run_id and names.is_run(os.path.basename(path)) and names.is_part(path) == path.endswith('.part')
    assert not names.is_run('results.h5') and names.is_log('results.h5') and not names.is_log(f'{run_id}.txt')
