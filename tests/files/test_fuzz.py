"""Thousands of broken inputs: whatever an experiment file, an option or the bytes of a file hold, the answer is one sentence.

A case passes when the command does its work, or ends with exit code 2 or 1 and one sentence, has then written nothing, and takes no
more than `fuzz_tools.LIMIT_S`. Every case runs in a fork of this process, so that a crash of a library or a hang fails one case.

FUZZ_SEED=7 pytest -m slow tests/files/test_fuzz.py    tries 2000 other cases
"""

import csv
import dataclasses
import os

import numpy as np
import pytest
import tables
import yaml
from exploits import ODD_NAMES, ODD_YAML, demonstrations, policy, raw_attr
from fuzz_kinds import MORE_KINDS
from fuzz_tools import ODD_TEXTS, ODD_VALUES, judge, main_of
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pipeline_tools import CARTPOLE, spec_text
from results_tools import ATTRS, small_results
from test_bad_input import SPEC

from policyopt.files.results_file import read_results, write_results

SEED = int(os.environ.get('FUZZ_SEED', 0))
PHASES = [Phase.explicit, Phase.generate]  # a case that fails is shown as it was found: to shrink it takes minutes
CASES_IN_CI, CASES_SLOW = 6, 200  # of each of the ten kinds


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with good files, which every case finds as they were."""
    path = tmp_path_factory.mktemp('fuzz')
    demonstrations(path / 't.h5')
    policy(path / 'p.h5')
    small_results(path / 'sealed_r.h5')
    (path / 'r.h5').write_bytes((path / 'sealed_r.h5').read_bytes()[:-93])  # without its seal
    (path / 'folder').mkdir()
    np.savez(path / 'i.npz', obs_0=np.ones((5, 4)), acts_0=np.arange(5) % 2, rews_0=np.ones(5))
    (path / 'spec.yaml').write_text(SPEC_VARIED.replace('POLICY', 'p.h5/snapshots/last'))
    run_folder = path / 'store' / 'checkpoints'
    run_folder.mkdir(parents=True)
    demonstrations(run_folder / 'trajs_cartpole.h5')
    (path / 'runs.yaml').write_text(RUNS)
    for script in {script for script, *_ in LINES} | {script for _, script, _ in READERS} | {script for script, _ in NAMED}:
        main_of(script)  # so that no case pays for the imports
    import policyopt.evaluation
    import policyopt.training  # noqa: F401

    return path


def keys_of(value, path=()):
    """The paths of all values of a nested structure."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from keys_of(inner, (*path, key))


def has(value, key):
    return (isinstance(value, dict) and key in value) or (isinstance(value, list) and isinstance(key, int) and key < len(value))


SPEC_VARIED = SPEC.replace('{name: bclone,', '{name: bclone, vary: {bclone_lr: [0.01, 0.1]},')
GOOD = yaml.safe_load(SPEC_VARIED)
PATHS = [p for p in keys_of(GOOD) if p]


def broken_yaml(place, changes, cut, stage):
    """The good experiment with some values replaced, and perhaps bytes cut out of its text."""
    spec = yaml.safe_load((place / 'spec.yaml').read_text())
    for path, kind, value in changes:
        at = spec
        for key in path[:-1]:
            at = at[key] if has(at, key) else None
        if isinstance(at, dict) or has(at, path[-1]):
            if kind == 'drop':
                at.pop(path[-1], None) if isinstance(at, dict) else at.pop(path[-1])
            elif kind == 'odd key' and isinstance(at, dict):
                at[str(value)[:20]] = value
            else:
                at[path[-1]] = value
    text = yaml.safe_dump(spec, allow_unicode=True).encode('utf-8', 'surrogatepass')
    start, length, instead = cut
    text = text[: start % len(text)] + instead + text[start % len(text) + length :] if length or instead else text
    file = place.parent / 'broken.yaml'
    file.write_bytes(text)
    judge(place, 'im_pipeline', [str(file), stage, '-n'])


yaml_cases = given(
    changes=st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(['replace', 'replace', 'drop', 'odd key']), ODD_VALUES), max_size=3),
    cut=st.tuples(
        st.integers(0, 2000),
        st.sampled_from([0, 0, 0, 1, 5, 100]),
        st.sampled_from([b'', b'', b'\xff', b'\0', b'\t', b': &a *a {[', b' !!bool ', b' &a [*a] ']),
    ),
    stage=st.sampled_from(['0', '1', '2', 'all', '1_train']),
)

TINY = ['--env_name', 'CartPole-v0', '--max_iter', '1', '--min_total_sa', '60', '--sim_batch_size', '1', '--seed', '0', '--log', 'out.h5']
COMMON = (
    'env_name max_traj_len policy_hidden_spec discount lam policy_max_kl policy_cg_damping vf_max_kl vf_cg_damping sim_batch_size '
    'print_freq save_freq log seed device dtype no_such_option'
).split()
LINES = {  # script and its good line: the options that are given odd values
    ('imitate_mj', '--mode', 'bclone', '--data', 't.h5', *TINY): [
        *COMMON, 'data', 'limit_trajs', 'data_subsamp_freq', 'obsnorm_mode', 'bclone_lr', 'bclone_batch_size', 'bclone_eval_freq',
        'bclone_train_frac', 'mode',
    ],
    ('imitate_mj', '--mode', 'ga', '--data', 't.h5', *TINY): [
        *COMMON, 'reward_type', 'reward_lr', 'reward_ent_reg_weight', 'policy_ent_reg', 'no_vf', 'reward_include_time', 'plot_freq',
    ],
    ('run_rl_mj', *TINY): [*COMMON, 'enable_obsnorm', 'vf_include_time', 'use_tanh'],
    ('vis_mj', 'p.h5/snapshots/last', '--count', '1', '--seed', '0', '--eval_only'): ['count', 'out', 'max_traj_len', 'env_name', 'seed'],
    ('vis_mj', 'p.h5/snapshots/last', '--seed', '0', '--frames', '2', '--gif', 'out.gif'): ['gif', 'frames', 'env_name'],
    ('analyze_results', 'r.h5'): ['reference', 'between-set', 'csv', 'latex', 'markdown', 'html', 'verbosity', 'margin'],
    ('showlog', 'p.h5', '--noplot'): ['fields', 'range_end', 'smooth'],
    ('showlog', 'p.h5', '--plotfile', 'out.png'): ['fields', 'plotfile'],
    ('import_trajs', 'i.npz', 'out.h5'): ['env_name', 'no_such_option'],
    ('export_log', 'p.h5', '--csv', 'out.csv'): ['csv', 'interval'],
    ('im_pipeline', 'spec.yaml', '1', '-n'): ['only', 'exclude', 'set', 'executor', 'seed', 'device', 'jobs', 'threads'],
}  # fmt: skip
option_cases = given(
    case=st.sampled_from(list(LINES)).flatmap(lambda line: st.tuples(st.just(line), st.sampled_from(LINES[line]))),
    value=st.one_of(st.sampled_from(ODD_TEXTS), st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=12)),
)


def odd_option(place, case, value):
    (script, *line), option = case
    judge(place, script, [*line, f'--{option}={value}'])


READERS = [
    ('t.h5', 'print_saved_returns', ['broken.h5']),
    ('t.h5', 'imitate_mj', ['--mode', 'bclone', '--data', 'broken.h5', *TINY]),
    ('p.h5', 'vis_mj', ['broken.h5/snapshots/last', '--eval_only', '--count', '1', '--seed', '0', '--max_traj_len', '20']),
    ('p.h5', 'check_progress', ['broken.h5']),
    ('p.h5', 'showlog', ['broken.h5', '--noplot']),
    ('p.h5', 'export_log', ['broken.h5', '--csv', 'out.csv']),
    ('i.npz', 'import_trajs', ['broken.npz', 'out.h5']),
    ('r.h5', 'analyze_results', ['broken.h5']),
    ('r.h5', 'plot_results', ['broken.h5', '-o', 'out.svg']),
    ('sealed_r.h5', 'analyze_results', ['broken.h5']),
]
byte_cases = given(
    reader=st.sampled_from(READERS),
    spots=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    cut=st.sampled_from([1, 1, 1, 1, 0.99, 0.5, 0.01]),
)


def broken_bytes(place, reader, spots, cut):
    """A good file with a few bytes changed, most of them in its structure, or an end that is missing."""
    source, script, args = reader
    data = bytearray((place / source).read_bytes())
    tame = [i for i in range(0, len(data), 64) if any(data[i : i + 64])]  # blocks of zeros are not where things go wrong
    for at, early, instead in spots:
        start = tame[int(at * (len(tame) // (8 if early else 1) - 1))] + len(instead) * 5 % 57
        data[start : start + len(instead)] = instead[: len(data) - start]
    broken = place / f'broken{os.path.splitext(source)[1]}'
    broken.write_bytes(data[: int(len(data) * cut)])
    try:
        judge(place, script, args)
    finally:
        broken.unlink(missing_ok=True)


NAMED = [
    ('analyze_results', ['named.h5', '--markdown', 'o.md', '--latex', 'o.tex', '--csv', 'o.csv']),
    ('analyze_results', ['named.h5', '--html', 'o.html', '--reference', 'named.csv']),
    ('plot_results', ['named.h5', '-o', 'o.svg']),
    ('plot_results', ['named.h5', '-o', 'o.png', '--kind', 'reproduction', '--reference', 'named.csv']),
]
names = st.one_of(st.sampled_from(ODD_NAMES), st.text(max_size=12))
name_cases = given(command=st.sampled_from(NAMED), task=names, alg=names, run_name=names, spec=st.sampled_from([ATTRS['spec'], *ODD_YAML]))


def odd_names(place, command, task, alg, run_name, spec):
    """Results whose task and algorithm have odd names, with an odd YAML text, beside a reference that has the same names."""
    given = read_results(str(place / 'sealed_r.h5'))
    rows = [dataclasses.replace(r, task=task, alg=alg + r.alg) for r in given.rows]
    named, reference = place / 'named.h5', place / 'named.csv'
    attrs = given.attrs | {'run_name': run_name, 'spec': spec if len(spec) < 60000 else spec[:60000]}
    try:
        write_results(str(named), rows, [dataclasses.replace(t, task=task, env=task) for t in given.tasks], attrs)
        with open(reference, 'w', newline='', encoding='utf-8', errors='replace') as f:
            columns = ['task', 'alg', 'num_trajs', 'run', 'return_mean']
            csv.writer(f).writerows([columns, *([task, alg + a, n, r, 9 + r] for a in ('ga', 'bclone') for n in (1, 4) for r in range(3))])
        judge(place, *command)
    finally:
        named.unlink(missing_ok=True)
        reference.unlink(missing_ok=True)


RUNS = spec_text(
    {'mine': {'eval': 'last', 'cmd': 'true {out}'}}, [CARTPOLE | {'data_subsamp_freq': 1}], {'traj_subdir': 'checkpoints'},
    full_dataset_num_trajs=3,
)  # fmt: skip
columns = st.one_of(
    st.lists(st.floats(width=32), min_size=3, max_size=3), st.lists(st.integers(-5, 2**40), min_size=3, max_size=3),
    st.sampled_from([[b'a', b'b', b'c'], [[1.0, 2.0]] * 3, [True] * 3, [1 + 2j] * 3, [2**63] * 3, []]),
)  # fmt: skip
run_cases = given(
    rule=st.sampled_from(['last', 'best_valacc']),
    log=st.none() | st.dictionaries(st.sampled_from(['iter', 'iter', 'valacc', 'trueret', 'x']), columns, max_size=4),
    attrs=st.dictionaries(
        st.sampled_from(['seed', 'start_time', 'end_time', 'git_hash', 'args', 'machine']),
        st.sampled_from([b'seven', b'7', b'', b'2026-01-01T00:00:00+00:00', b'2026-01-02T00:00:00+00:00', b'\xff', 7, -1, 2**63, [1, 2]]),
        max_size=3,
    ),
    snapshot=st.sampled_from(['iter0000100', 'iter0000100', 'iter0000002', 'final', 'iter7', None]),
    early=st.booleans(),
)


def odd_run(place, rule, log, attrs, snapshot, early):
    """A run file of another program: whatever its log, its attributes and the names of its snapshots are."""
    out = place / 'store' / 'checkpoints' / 'alg=mine,task=cartpole,num_trajs=1,run=0.h5'
    try:
        policy(out)
        with tables.open_file(str(out), 'a') as h5:
            h5.remove_node('/log')
            if log:
                size = min(len(x) for x in log.values())
                arrays = {n: np.array(x[:size]) for n, x in log.items()}
                table = np.empty(size, [(n, x.dtype, x.shape[1:]) for n, x in arrays.items()])
                for n, x in arrays.items():
                    table[n] = x
                h5.create_table('/', 'log', obj=table)
            for key, value in attrs.items():
                raw_attr(h5.root, key, np.bytes_(value) if isinstance(value, bytes) else value)
            if snapshot is None:
                h5.remove_node('/snapshots', recursive=True)
            elif snapshot != 'iter0000100':
                h5.root.snapshots.iter0000100._f_rename(snapshot)
        judge(place, 'im_pipeline', ['runs.yaml', '2', '-n', '--set', f'training.algorithms.mine.eval={rule}'])
        if early:
            judge(place, 'im_pipeline', ['runs.yaml', '1', '--summary', '--set', f'training.algorithms.mine.eval={rule}'])
    finally:
        out.unlink(missing_ok=True)


KINDS = {
    'yaml': (yaml_cases, broken_yaml),
    'options': (option_cases, odd_option),
    'bytes': (byte_cases, broken_bytes),
    'names': (name_cases, odd_names),
    'runs': (run_cases, odd_run),
    **MORE_KINDS,
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('num', [CASES_IN_CI, pytest.param(CASES_SLOW, marks=pytest.mark.slow)])
def test_broken_input_is_answered_in_one_sentence(kind, num, place):
    cases, check = KINDS[kind]
    quiet = settings(
        max_examples=num, database=None, deadline=None, derandomize=False, report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck), phases=PHASES,
    )  # fmt: skip

    def case(**drawn):
        check(place, **drawn)

    seed(SEED)(quiet(cases(case)))()
