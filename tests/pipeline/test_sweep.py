"""Sweeps and policies of other programs: what the file asks for is what runs, and mistakes are one sentence before anything runs."""

import numpy as np
import pytest
from pipeline_tools import SPEC, write_spec
from results_tools import result_row, task_row

from policyopt.errors import RunFailed, UserError
from policyopt.files.names import parts_of, settings_of
from policyopt.pipeline import evaluate_stage, external_policies
from policyopt.pipeline.evaluate_stage import Evaluation
from policyopt.pipeline.spec import load_spec, select_runs
from policyopt.reporting import tables
from policyopt.reporting.analysis import Analysis, experiment_runs

TRAINER = 'python scripts/imitate_mj.py --mode ga --reward_lr 1 --env {env} --data {dataset} --log {out} | tee log.txt'
VARY = 'training.algorithms.ga.vary={reward_lr: [.003, 1e20], reward_steps: [1, 4]}'


def spec_of(folder, *overrides, cmd=TRAINER):
    return load_spec(str(write_spec(folder, cmd=cmd)), ['training.algorithms.bclone.eval=last', *overrides])


def test_a_sweep_is_an_algorithm_for_each_combination(tmp_path):
    spec = spec_of(tmp_path, VARY)
    names = [a.name for a in spec.training.algorithms]
    settings = [f'reward_lr={lr}+reward_steps={n}' for lr in ('0.003', '1e20') for n in (1, 4)]
    assert names == ['bclone', *(f'ga+{s}' for s in settings)]
    assert {a.eval for a in spec.training.algorithms[1:]} == {'last'}
    runs = spec.runs(0)
    chosen = select_runs(runs, ['alg=ga+reward_lr=1e20*', 'task=cartpole', 'num_trajs=1', 'run=0'])
    assert [r.alg for r in chosen] == names[3:]
    assert chosen[1].command.text.endswith(f'--log {chosen[1].out} --reward_lr 1e20 --reward_steps 4 --seed {chosen[1].seed} | tee log.txt')
    assert parts_of(chosen[1].id)['alg'] == chosen[1].alg and len({r.seed for r in runs}) == len(runs)
    assert experiment_runs(spec.text) is not None and sorted(experiment_runs(spec.text)) == sorted(r.id for r in runs)
    alone = {r.id: r for r in spec_of(tmp_path).runs(0)}
    assert all(alone[r.id] == r for r in runs if r.alg == 'bclone')


def test_a_program_of_any_kind_gets_settings_where_its_command_has_them(tmp_path):
    spec = spec_of(tmp_path, 'training.algorithms.ga.vary={lr: [.1, fast]}', 'training.algorithms.ga.cmd=train {lr} {{lr}} {out}')
    assert [a.cmd for a in spec.training.algorithms[1:]] == ['train 0.1 {{lr}} {out}', 'train fast {{lr}} {out}']


BAD = {
    'no mapping': ('vary=[1]', 'a list; expected a mapping of options to lists'),
    'no list': ('vary={reward_lr: .1}', ': 0.1 (decimal number); expected a list'),
    'an empty list': ('vary={reward_lr: []}', 'an empty list'),
    'one number in two ways': ('vary={reward_lr: [1, 1.0]}', '1.0 a second time'),
    'twice': ('vary={reward_lr: [.1, .10]}', '0.1 a second time'),
    'true': ('vary={no_vf: [true]}', '1 and 0 for yes and no'),
    'a comma': ('vary={reward_type: ["a,b"]}', "'a,b'; expected a number, or a word"),
    'a path': ('vary={data: [../x]}', "'../x'; expected a number, or a word"),
    'an option with a field': ('vary={log: [x]}', 'a setting that the command takes from {out}; expected an option that no field gives'),
    'a field of ours': ('vary={seed: [1, 2]}', "the setting 'seed'"),
    'no option': ('vary={--reward_lr: [1]}', "the setting '--reward_lr'"),
    'too many': (f'vary={{reward_steps: {list(range(1, 100))}, reward_lr: {list(range(99))}}}', '9801 combinations; expected at most 1000'),
    'a long name': (f'vary={{policy_hidden_spec: [{"a" * 150}]}}', 'at most 120 characters'),
    'a misspelt option': ('vary={reward_lrr: [1]}', "the option '--reward_lrr'; expected one that imitate_mj.py has. Did you mean "),
    'a value outside of its range': ('vary={reward_lr: [1, -1]}', "--reward_lr '-1'; expected a number, 0 or more"),
    'a fraction of a step': ('vary={reward_steps: [1.5]}', "--reward_steps '1.5'; expected a whole number"),
    'no choice': ('vary={reward_type: [nn, l3ball]}', "--reward_type 'l3ball'; expected 'nn' or "),
    'a switch': ('vary={tiny_policy: [1]}', "--tiny_policy '1'; expected the option alone"),
    'a misspelt option of the command': (f'cmd={TRAINER.replace("reward_lr", "reward_lrr")}', "the option '--reward_lrr'"),
    'a word of the command': (f'cmd={TRAINER.replace(" 1 ", " 1 2 ")}', "'2' in the command; expected only options of imitate_mj.py"),
    'a value of the command': (f'cmd={TRAINER.replace("_lr 1", "_lr=x")}', "--reward_lr 'x'; expected a number"),
    'an option without its value': (f'cmd={TRAINER.replace("| tee log.txt", "--seed 2>&1")}', '--seed; expected a value behind the option'),
    'no function': ('policy=module', "'module'; expected a function as package.module:load"),
}


@pytest.mark.parametrize('case', BAD)
def test_mistakes_are_one_sentence(case, tmp_path):
    change, expected = BAD[case]
    with pytest.raises(UserError) as e:
        spec_of(tmp_path, f'training.algorithms.ga.{change}')
    assert expected in str(e.value) and '\n' not in str(e.value)


def test_where_a_value_is_wrong_is_said(tmp_path):
    path = write_spec(tmp_path, cmd=TRAINER)
    path.write_text(path.read_text().replace('- name: ga', '- name: ga\n    vary: {no_vf: [0, 2]}').replace('mode ga', 'mode bclone', 1))
    with pytest.raises(UserError) as e:
        load_spec(str(path))
    assert str(e.value) == f"{path}: training.algorithms[1].vary.no_vf[1]: --no_vf '2'; expected 0 or 1"


@pytest.mark.parametrize(
    'cmd',
    [
        f'{TRAINER} --reward_lrr 1',  # an option of tee's
        TRAINER.replace('--reward_lr 1', '--tiny_policy $OPTIONS --max_iter $N --discount=${{G}} --lam {seed}'),
        TRAINER.replace('| tee log.txt', '2>&1 > log.txt'),
        TRAINER.replace('scripts/', '{task}/').replace('--reward_lr', '--reward_lrr'),
        f'train.py {TRAINER.partition("imitate_mj.py")[2]} --reward_lrr',
    ],
)
def test_what_is_not_known_before_it_runs_is_left_alone(cmd, tmp_path):
    assert spec_of(tmp_path, cmd=cmd).training.algorithms[1].cmd == cmd


def test_another_program_without_the_setting_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'expected \{lr\} in the command of a program that is not our imitate_mj.py'):
        spec_of(tmp_path, 'training.algorithms.ga.vary={lr: [1]}', cmd='train {out}')


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('ga+reward_lr=0.003+reward_steps=1', ('ga', {'reward_lr': '0.003', 'reward_steps': '1'})),
        ('ga+entropy', ('ga+entropy', {})),
        ('ga', ('ga', {})),
    ],
)
def test_settings_are_taken_from_a_name(name, expected):
    assert settings_of(name) == expected


def test_tables_have_the_settings_as_columns():
    algs = ['bclone', 'ga+reward_lr=0.003', 'ga+reward_lr=0.01+note=x']
    rows = [result_row(np.array([1.0, 3.0]) + i, alg, 'cartpole', 4, run, 0) for i, alg in enumerate(algs) for run in (0, 1)]
    analysis = Analysis(rows, [task_row()])
    found = tables.grid(analysis)
    assert found.titles[:4] == ['task', 'alg', 'reward_lr', 'note']
    assert [line[:4] for line in found.lines[1:]] == [['cartpole', 'ga', '0.003', ''], ['cartpole', 'ga', '0.01', 'x']]
    found = tables.cell_table(analysis, 'cartpole', 0)
    assert found.titles[:4] == ['alg', 'reward_lr', 'note', 'num trajs'] and found.meanings[1] == 'setting of the sweep'
    assert [line[:3] for line in found.lines] == [['bclone', '', ''], ['ga', '0.003', ''], ['ga', '0.01', 'x']]
    first, *_, last = tables.runs_csv(analysis).splitlines()
    assert first.endswith(',reward_lr,note') and 'ga+reward_lr=0.01+note=x' in last and last.endswith(',0.01,x')


@pytest.mark.parametrize(
    ('env', 'answer', 'expected'),
    [
        ('CartPole-v1', '1', None),
        ('CartPole-v1', 'np.array([0])', None),
        ('CartPole-v1', '2', 'act returned 2 for one observation; expected an integer from 0 to 1'),
        ('CartPole-v1', '0.5', 'act returned 0.5'),
        ('CartPole-v1', '(1, None)', 'act returned'),
        ('Pendulum-v1', '[0.5]', None),
        ('Pendulum-v1', '[[0.5]]', None),
        ('Pendulum-v1', '[0.5, 1]', 'expected 1 finite numbers'),
        ('Pendulum-v1', '[np.nan]', 'expected 1 finite numbers'),
    ],
)
def test_the_action_of_a_policy_of_another_program_is_checked(env, answer, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(external_policies, 'loader', lambda dotted, place: lambda path: Says(eval(answer)))
    changes = ['options.eval_num_trajs=2', f'tasks.cartpole.env={env}', 'tasks.cartpole.max_traj_len=20']
    spec = spec_of(tmp_path, 'training.algorithms.ga.policy=mine:load', *changes, cmd='true {out}')
    job = Evaluation(spec, next(r for r in spec.runs(0) if r.alg == 'ga'), 0)
    if expected is None:
        assert len(evaluate_stage._play(job, None)) == 2
    else:
        with pytest.raises(RunFailed, match=f'mine:load of {job.run.out}: .*{expected}'):
            evaluate_stage._play(job, None)


class Says:
    """A policy that always says the same."""

    def __init__(self, answer):
        self.answer = answer

    def act(self, obs):
        return self.answer


def test_a_policy_that_cannot_be_loaded_is_refused_before_anything_plays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'my_policies.py').write_text('other = 3')
    (tmp_path / 'my_fault.py').write_text('1 / 0')
    for dotted, expected in (
        ('my_nothing:load', 'cannot be imported: ModuleNotFoundError'),
        ('my_fault:load', 'cannot be imported: ZeroDivisionError: division by zero'),
        ('my_policies:load', "has no function 'load'"),
        ('my_policies:other', "has no function 'other'"),
    ):
        with pytest.raises(UserError, match=f'x.yaml: place: .*{expected}'):
            external_policies.loader(dotted, 'x.yaml: place')


def test_a_policy_of_another_program_needs_no_rule(tmp_path):
    text_of = SPEC.replace('name: ga', 'name: mine').replace('{cmd}', 'train {out}', 1)
    with pytest.raises(UserError, match='the evaluation does not know'):
        load_spec(str(write_spec(tmp_path, text=text_of)))
    spec = load_spec(str(write_spec(tmp_path, text=text_of)), ['training.algorithms.mine.policy=a.b:load'])
    assert spec.algorithm('mine').policy == 'a.b:load'
