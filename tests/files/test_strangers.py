"""What strangers write, YAML above all: it is refused in one sentence and in no time, and runs, expands or hides nothing."""

import csv
import dataclasses
import html
import os
import re
import socket
import time

import numpy as np
import pytest
from exploits import MERGE_BOMB, ODD_NAMES
from pipeline_tools import im_pipeline, write_spec
from results_tools import ATTRS, small_results

from policyopt.errors import UserError
from policyopt.files.results_file import read_results, write_results
from policyopt.files.training_log import write_log
from policyopt.files.yamlfile import MAX_CHARS, parse_yaml
from policyopt.pipeline.spec import load_spec

ALIAS_BOMB = MERGE_BOMB.replace('{<<: ', '').replace(']}', ']')
BAD_YAML = {
    'a merge-key bomb': (MERGE_BOMB, 'its aliases spelled out make it too long'),
    'an alias bomb': (ALIAS_BOMB, 'its aliases spelled out make it too long'),
    'a long text many times': (f'a: &a {"x" * 1000}\nb: [{", ".join(["*a"] * 300)}]', 'its aliases spelled out make it too long'),
    'a list in itself': ('&a [*a]', "the alias '*a' inside of what it names"),
    'a mapping merged into itself': ('&a {<<: *a}', "the alias '*a' inside of what it names"),
    'an odd boolean': ('!!bool maybe', "the tag '!!bool'; expected values without tags"),
    'an empty number': ('a: !!int ""', "line 1, column 4: not valid YAML: the tag '!!int'"),
    'no time': ('[!!timestamp x]', "the tag '!!timestamp'"),
    'a program': ('!!python/object/apply:os.system [ls]', "the tag '!!python/object/apply:os.system'"),
    'a tag without a name': ('! x', "the tag '!'"),
    'a tag of its own': ('%TAG ! tag:x,2000:\n--- !foo bar', "the tag 'tag:x,2000:foo'"),
    'many brackets': ('[' * 20000, 'nested too deeply; expected at most 50 levels'),
    'many questions': ('? ' * 10000, 'nested too deeply'),
    'a long file': ('#\n' * 200000, f'more than {MAX_CHARS} characters of YAML'),
}


@pytest.mark.parametrize('case', BAD_YAML)
def test_yaml_that_expands_or_has_tags_is_refused_at_once(case):
    text, expected = BAD_YAML[case]
    start = time.monotonic()
    with pytest.raises(UserError) as e:
        parse_yaml(text, 'x.yaml')
    assert expected in str(e.value) and str(e.value).startswith('x.yaml:') and len(str(e.value)) < 300
    assert time.monotonic() - start < 5


def test_plain_anchors_and_merge_keys_stay_what_they_are():
    text = 'base: &b {env: X-v0, freq: 10}\ntasks: [{<<: *b, name: a}, {<<: *b, freq: 2}]'
    assert parse_yaml(text, 'x')['tasks'] == [{'env': 'X-v0', 'freq': 10, 'name': 'a'}, {'env': 'X-v0', 'freq': 2}]


@pytest.mark.parametrize('case', ['a merge-key bomb', 'a list in itself', 'an odd boolean', 'many brackets'])
def test_set_and_files_are_read_in_the_same_way(case, tmp_path):
    text, expected = BAD_YAML[case]
    path = write_spec(tmp_path)
    with pytest.raises(UserError, match=expected.replace('*', r'\*')):
        load_spec(str(path), ['run_name=' + text])
    path.write_text(text)
    with pytest.raises(UserError, match=expected.replace('*', r'\*')):
        load_spec(str(path))


@pytest.mark.parametrize(
    ('assignment', 'expected'),
    [
        ('.'.join('a' * 3000) + '=1', "unknown key 'a'"),
        (f'tasks.{"9" * 5000}.env=x', 'has no item'),
        (f'training.{"k" * 100000}=1', 'unknown key'),
        (f'training.algorithms.ga.vary={{reward_lr: [{", ".join(map(str, range(50000)))}]}}', 'YAML'),
    ],
)
def test_set_with_odd_keys_is_answered_in_one_sentence(assignment, expected, tmp_path):
    with pytest.raises(UserError, match=expected):
        load_spec(str(write_spec(tmp_path, cmd='train {reward_lr} {out}')), [assignment])


@pytest.mark.parametrize(
    ('spec', 'code', 'expected'),
    [
        (MERGE_BOMB, 0, ''),
        ('&a [*a]', 0, ''),
        (
            ATTRS['spec'].replace('runs: 3', 'runs: 1000000000000'),
            2,
            "the attribute 'spec' of the results asks for 4000000000000 runs; expected",
        ),
        (ATTRS['spec'].replace('name: ga', f'name: {"x" * 20000}').replace('runs: 3', 'runs: 100000'), 0, ''),
    ],
)
def test_the_yaml_in_a_results_file_is_a_strangers_too(spec, code, expected, tmp_path, run_script):
    path = small_results(tmp_path / 'r.h5', spec=spec)
    assert expected in run_script('analyze_results.py', path, rc=code, timeout=10).stderr


def test_a_stream_without_end_is_no_experiment():
    _, err = im_pipeline('/dev/zero', '1', code=2)
    assert err.startswith('im_pipeline: error: /dev/zero: ') and len(err) < 300


EVIL = [*ODD_NAMES[:9], *ODD_NAMES[11:15]]


@pytest.mark.parametrize('name', EVIL)
def test_names_of_strangers_are_only_names_in_every_output(name, tmp_path, run_script):
    results = read_results(small_results(tmp_path / 'a.h5'))
    rows = [dataclasses.replace(r, task=name, alg=name + r.alg) for r in results.rows]
    tasks = [dataclasses.replace(t, task=name, env=name) for t in results.tasks]
    write_results(str(tmp_path / 'r.h5'), rows, tasks, results.attrs | {'run_name': name, 'comment': '[' * 20000})
    columns = ['task', 'alg', 'num_trajs', 'run', 'return_mean']
    theirs = [[name, f'{name}{alg}', n, run, 100 + run] for alg in ('ga', 'bclone') for n in (1, 4) for run in range(3)]
    with open(tmp_path / 'ref.csv', 'w', newline='') as f:
        csv.writer(f).writerows([columns, *theirs])
    tables = '--markdown r.md --latex r.tex --html r.html --csv r.csv'.split()
    said = run_script('analyze_results.py', 'r.h5', '--reference', 'ref.csv', *tables).stderr
    for picture in ('figure1.png', 'reproduction.svg', 'raw.svg'):
        kind = picture.partition('.')[0]
        said += run_script('plot_results.py', 'r.h5', '--reference', 'ref.csv', '--kind', kind, '-o', picture).stderr
    assert 'Warning' not in said
    page, table, tex = ((tmp_path / f'r.{end}').read_text() for end in ('html', 'md', 'tex'))
    assert '<script' not in page.lower() and '<script' not in table and html.escape(name) in page
    assert not re.search(r'\\(input|write|frac)', tex)
    cells = [line for line in table.splitlines() if line.startswith('|')]
    assert {len(re.findall(r'(?<!\\)\|', line)) for line in cells[-5:]} == {len(re.findall(r'(?<!\\)\|', cells[-1]))}
    assert not re.search(r'(?<!\\)`', table) and '](' not in table
    with open(tmp_path / 'r.csv', newline='') as f:
        assert {row['task'] for row in csv.DictReader(f)} == {name}


@pytest.mark.filterwarnings('ignore::tables.NaturalNameWarning')
@pytest.mark.parametrize('name', EVIL[:4])
def test_names_of_columns_and_files_are_only_names_in_pictures(name, tmp_path, run_script):
    table = np.zeros(3, [('iter', 'i4'), (name.replace('/', '|'), 'f4')])
    path = tmp_path / f'{name.replace("/", "|")}.h5'
    write_log(str(path), table, {'args': '{}'})
    done = run_script('showlog.py', path, '--fields', name.replace('/', '|'), '--plotfile', 'out.png')
    assert 'Warning' not in done.stderr and (tmp_path / 'out.png').exists()


READERS = {
    'x.yaml': 'im_pipeline.py x.yaml 1_train -n',
    't.h5': 'imitate_mj.py --mode bclone --data t.h5 --env_name CartPole-v0 --max_iter 1 --seed 0',
    'p.h5': 'vis_mj.py p.h5/snapshots/last --eval_only --seed 0',
    'r.h5': 'analyze_results.py r.h5',
    'ref.csv': 'analyze_results.py good.h5 --reference ref.csv',
    'x.npz': 'import_trajs.py x.npz out.h5',
    'x.pkl': 'import_trajs.py x.pkl out.h5',
    'x.hdf5': 'import_trajs.py x.hdf5 out.h5',
    'episodes/1.csv': 'import_trajs.py episodes out.h5',
    'arrow/state.json': 'import_trajs.py arrow out.h5',
}


@pytest.mark.parametrize('name', READERS)
def test_pipes_devices_and_sockets_are_refused_before_they_are_opened(name, tmp_path, run_script):
    small_results(tmp_path / 'good.h5')
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    kinds = {'a pipe': os.mkfifo, 'a device': lambda p: p.symlink_to('/dev/zero'), 'a socket': lambda p: server.bind(str(p))}
    for kind, make in kinds.items():
        with socket.socket(socket.AF_UNIX) as server:
            make(path)
            err = run_script(*READERS[name].split(), rc=2, timeout=30).stderr
        assert f'{name}: is {kind}; expected ' in err and err.count('\n') == 1 and not (tmp_path / 'out.h5').exists()
        path.unlink()
