"""More kinds of odd input for test_fuzz.py: calls from Python, an experiment's folder, files to import, job scripts, huge numbers."""

import csv
import decimal
import json
import os
import pathlib
import subprocess

import gymnasium
import numpy as np
import tables
import torch
import yaml
from exploits import ODD_NAMES, demonstrations
from fuzz_tools import ODD_TEXTS, ODD_VALUES, judge
from hypothesis import given
from hypothesis import strategies as st
from results_tools import result_row, task_row

import policyopt as po
from policyopt.files.results_file import write_results


class Raises:
    """An object that fails whatever is asked of it."""

    def __getattr__(self, name):
        raise RuntimeError(f'no {name} here')

    def __repr__(self):
        return '<Raises>'


# Calls from Python: a good one, some of whose arguments are replaced

OBJECTS = {
    'object': object(), 'raises': Raises(), 'a class': dict, 'a function': lambda *args: args, 'a generator': (i for i in range(3)),
    'None': None, 'bytes': b'x', 'a path': pathlib.Path('t.h5'), 'complex': 1j, 'decimal': decimal.Decimal('1.5'), 'a set': {1, 2},
    'a huge int': 1 << 2000, 'int64': np.int64(3), 'float16': np.float16(2), 'bool_': np.bool_(True), 'nan': np.nan,
    'nat': np.datetime64('NaT'), '0-d': np.array(1.0), 'empty': np.array([]), 'object array': np.array([None, 1], object),
    'text array': np.array(['a', 'b']), 'structured': np.zeros(3, [('iter', 'i4'), ('x', 'f4')]), '2-d': np.zeros((3, 4)),
    'masked': np.ma.array([1.0, 2.0], mask=[0, 1]), 'a tensor': torch.ones(4, requires_grad=True), 'sparse': torch.eye(2).to_sparse(),
    'ragged': [np.ones((2, 4)), np.ones(3)], 'lists': [[[0.0] * 4] * 5], 'nested': [[[[1]]]], 'ints': [[0, 1, 0, 1, 1]],
    'a dict': {'x': [1, 2]}, 'odd columns': {'iter': [0, 0], '': [1, 2]}, 'unequal': {'a': [1], 'b': [1, 2]}, 'range': range(5),
    'a space': gymnasium.spaces.Box(-1, 1, (4,)), 'a discrete space': gymnasium.spaces.Discrete(2), 'an option set': po.RLOptions(),
}  # fmt: skip
odd_arguments = st.one_of(
    st.sampled_from(list(OBJECTS)), ODD_VALUES.filter(lambda x: not isinstance(x, str)), st.sampled_from(ODD_TEXTS[:30])
)


def _policy():
    return po.load_policy('p.h5')


def _good_calls():
    """{name: (function, its arguments)}; called in the folder of the good files."""
    train = {'algorithm': 'bclone', 'env': 'CartPole-v0', 'demos': 't.h5', 'iterations': 1, 'seed': 0, 'progress': False, 'callback': None,
             'init': None, 'options': None, 'bclone_batch_size': 5, 'limit_trajs': 1, 'policy_hidden_spec': None,
             'max_traj_len': 20}  # fmt: skip
    dagger = train | {'algorithm': 'dagger', 'expert': 'p.h5', 'iterations': 3, 'dagger_rounds': 1}
    ga = train | {'algorithm': 'ga', 'min_total_sa': 50, 'reward_lr': 0.01, 'policy_max_kl': 0.01, 'discount': 0.99, 'sim_batch_size': 1}
    del ga['bclone_batch_size']
    arrays = {'obs': [np.ones((5, 4))], 'actions': [[0, 1, 0, 1, 1]], 'rewards': [np.ones(5)], 'env_name': None, 'terminated': None}
    spaces = po.ContinuousSpace(4), po.FiniteSpace(2)
    return {
        'train bclone': (po.train, train), 'train dagger': (po.train, dagger), 'train ga': (po.train, ga),
        'train trpo': (po.train, {'algorithm': 'trpo', 'env': 'CartPole-v0', 'iterations': 1, 'seed': 0, 'min_total_sa': 50}),
        'evaluate': (po.evaluate, {'policy': _policy(), 'env': 'CartPole-v0', 'episodes': 1, 'seed': 0, 'deterministic': True,
                                   'max_traj_len': 20, 'sim_batch_size': 1}),
        'record': (po.Demonstrations.record, {'policy': _policy(), 'env': 'CartPole-v0', 'episodes': 1, 'max_traj_len': 9}),
        'from_arrays': (po.Demonstrations.from_arrays, arrays), 'from_arrays again': (po.Demonstrations.from_arrays, arrays),
        'load': (po.Demonstrations.load, {'path': 't.h5'}), 'load_policy': (po.load_policy, {'policy_path': 'p.h5', 'mdp': None}),
        'load_trajs': (po.load_trajs, {'path': 't.h5', 'limit_trajs': 1}),
        'make_policy': (po.make_policy, {'obs_space': spaces[0], 'action_space': spaces[1], 'hidden_spec': '[]', 'enable_obsnorm': True,
                                         'rng': None, 'dtype': torch.float64, 'device': 'cpu', 'bounds_2_Da': None}),
        'write_run': (po.write_run, {'path': 'out.h5', 'policy': _policy(), 'log': {'trueret': [1.0, 2.0]}, 'env_name': None, 'seed': 0}),
        'save': (lambda path: po.Demonstrations.load('t.h5').save(path), {'path': 'out.h5'}),
        'MDP': (po.MDP, {'task': 'CartPole-v0'}),
    }  # fmt: skip


CALLS = [
    'train bclone', 'train dagger', 'train ga', 'train trpo', 'evaluate', 'record', 'from_arrays', 'from_arrays again', 'load',
    'load_policy',
    'load_trajs', 'make_policy', 'write_run', 'save', 'MDP',
]  # fmt: skip
call_cases = given(call=st.sampled_from(CALLS), changes=st.lists(st.tuples(st.integers(0, 12), odd_arguments), min_size=1, max_size=2))


def odd_call(place, call, changes):
    """A call from Python ends in what it is for, or in one of the two exceptions that are ours."""

    def main(argv):
        function, arguments = _good_calls()[call]
        for at, value in changes:
            arguments[list(arguments)[at % len(arguments)]] = OBJECTS[value] if isinstance(value, str) and value in OBJECTS else value
        function(**arguments)

    judge(place, f'{call} {changes}'.replace('\n', ' '), [], main)


# What lies in the folder of an experiment: written by another version, a stranger, or a disk that was full

FOLDER = 'store/checkpoints'
RUN = 'alg=mine,task=cartpole,num_trajs=1,run=0'
HOLDER = {'host': 'elsewhere', 'pid': 1, 'start': '5', 'boot': 'b', 'since': '2026-01-01T00:00:00+00:00'}
lock_texts = st.builds(
    lambda changes: json.dumps(HOLDER | changes),
    st.dictionaries(
        st.sampled_from(['host', 'pid', 'start', 'boot', 'since', 'job', 'child', 'namespace', 'machine', 'lease']),
        st.one_of(
            st.none(), st.booleans(), st.integers(-5, 10**30), st.floats(), st.text(max_size=5), st.sampled_from([[], {}, 'x' * 9000, -1]),
        ),
        max_size=3,
    ),
)  # fmt: skip
places = st.sampled_from(
    [f'locks/{RUN}.lock', f'{RUN}.h5.lock', 'locks/folder.lock', 'locks/2_eval.lock', 'seed.txt', 'git_hash.txt', 'pipeline.yaml',
     'pipeline.before-0001.yaml', 'pipeline.before-0001.runs', f'logs/{RUN}.txt', f'{RUN}.h5.part', f'{RUN}.h5', f'evaluated/{RUN}.h5',
     'random_cartpole.h5', 'results.h5', 'list.runs']
)  # fmt: skip
texts = st.one_of(st.binary(max_size=20), lock_texts.map(str.encode), st.sampled_from([t.encode('utf-8', 'replace') for t in ODD_TEXTS]))
COMMANDS = [
    ('im_pipeline', ['runs.yaml', '1', '--summary']), ('im_pipeline', ['runs.yaml', '1', '--resume', '-n']),
    ('im_pipeline', ['runs.yaml', '2', '-n']), ('im_pipeline', ['runs.yaml', '2', '--resume', '-n']),
    ('im_pipeline', ['runs.yaml', '1', '--task-list', f'{FOLDER}/list.runs', '--task-index', '1', '-q']),
    ('check_progress', [FOLDER]), ('analyze_results', [f'{FOLDER}/results.h5']), ('vis_mj', [f'{FOLDER}/{RUN}.h5/snapshots/last',
    '--eval_only']),
]  # fmt: skip
folder_cases = given(files=st.dictionaries(places, texts, min_size=1, max_size=3), command=st.sampled_from(COMMANDS))


def odd_folder(place, files, command):
    """A folder with odd files in it: it is named what is wrong, and the folder stays as it is."""
    folder, made = place / FOLDER, []
    try:
        for name, content in files.items():
            if not (folder / name).parent.exists():
                (folder / name).parent.mkdir()
                made.append((folder / name).parent)
            (folder / name).write_bytes(content)
        judge(place, *command)
    finally:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            path.rmdir()


# Files of other programs

odd_arrays = st.sampled_from(
    [
        np.ones((5, 4)), np.arange(5) % 2, np.ones(5), np.ones((2, 5, 4)), np.zeros((2, 5)), np.ones((5, 4), np.float16),
        np.ones(5, np.longdouble),
        np.array(['a'] * 5), np.array([b'x'] * 5), np.zeros(5, 'V3'), np.zeros(5, [('a', 'f4')]), np.ones(5, bool), np.ones(5, complex),
        np.full(5, 2**63, np.uint64), np.full((5, 4), np.nan), np.full((5, 4), 1e308), np.array([]), np.array(3), np.zeros((0, 4)),
        np.zeros(5, 'M8[s]'), np.ones((5, 4), '>f8'), np.ones((5, 1)), np.ones((5, 2000)), -np.ones(5, int), np.full(5,
        np.longdouble('1e4000')),
    ]
)  # fmt: skip
npz_names = st.sampled_from(
    ['obs', 'acts', 'rews', 'rewards', 'actions', 'observations', 'dones', 'terminals', 'timeouts', 'next_obs', 'episode_starts',
    'episode_returns',
     'obs_0', 'acts_0', 'rews_0', 'obs_1', 'acts_1', 'infos', '', 'a/b', 'indices']
)  # fmt: skip
words = st.one_of(
    st.sampled_from(
        ['0', '1', '0.5', '-1', '1_000', '٣', '', ' ', 'nan', 'inf', '1e400', 'x', '"', '"a\nb"', '0x1', '1,5', '=1', '\ufeff', '9' * 400]
    ),
    st.text(max_size=4),
)
headers = st.lists(
    st.sampled_from(['obs_0', 'obs_1', 'obs_2', 'obs_3', 'action', 'act_0', 'reward', 'episode', 'done', 'terminated', 't', '',
    'obs_0', 'x']),
    min_size=1, max_size=7,
)  # fmt: skip
import_cases = given(
    arrays=st.dictionaries(npz_names, odd_arrays, min_size=1, max_size=5),
    table=st.none() | st.tuples(headers, st.lists(st.lists(words, max_size=7), max_size=4)),
    options=st.lists(st.sampled_from(['--env_name=CartPole-v0', '--force', '--ends=dones', '--ends=x']), max_size=2),
)


def odd_import(place, arrays, table, options):
    """Recordings in npz or CSV files of other programs."""
    path = place / ('odd.npz' if table is None else 'odd.csv')
    try:
        if table is None:
            np.savez(path, **{name.replace('/', '_') or 'x': x for name, x in arrays.items()})
        else:
            with open(path, 'w', newline='', encoding='utf-8', errors='replace') as f:
                csv.writer(f).writerows([table[0], *table[1]])
        judge(place, 'import_trajs', [path.name, 'out.h5', *options])
    finally:
        path.unlink(missing_ok=True)


# Scripts for schedulers

script_texts = st.one_of(
    st.sampled_from([*ODD_NAMES, 'a\n>owned', '$(>owned)', '`>owned`', ';>owned', '"\n>owned\n"', "'\n>owned\n'", '#%j', '-x',
    '1a', 'a b', '\\']),
    st.text(max_size=8),
)  # fmt: skip
script_cases = given(
    executor=st.sampled_from(['slurm', 'pbs', 'array']),
    stage=st.sampled_from(['0', '1', '1', '2']),
    name=st.none() | script_texts,
    folder=st.none() | script_texts,
    extra=st.lists(st.one_of(script_texts, ODD_VALUES), max_size=2),
    more=st.dictionaries(
        st.sampled_from(['max_running', 'runs_per_task', 'max_array', 'requeue', 'time', 'cores', 'submit', 'directives', 'query']),
        st.one_of(script_texts, ODD_VALUES), max_size=1,
    ),
)  # fmt: skip
ARRAY = {'submit': 'sub {script}', 'query': 'q {job}', 'cancel': 'c {job}', 'directives': ['#X -N {name}'], 'index': '$X'}


def odd_script(place, executor, stage, name, folder, extra, more):
    """Whatever names and directives hold, bash reads the script, and nothing in it runs that was only a name."""
    spec = yaml.safe_load((place / 'runs.yaml').read_text())
    spec['options'][executor] = (ARRAY if executor == 'array' else {'extra': extra}) | more
    if folder is not None:
        spec['options']['storagedir'] = f'store_{folder}'
    file = place.parent / ('odd.yaml' if name is None else f'{name.replace("/", "_")[:100]}.yaml'.replace('\0', '_'))
    try:
        file.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding='utf-8', errors='replace')
    except OSError:
        return  # no file can be called so
    try:
        code, out = judge(place, 'im_pipeline', [os.fspath(file), stage, '-n', '-e', executor])
    finally:
        file.unlink()
    if code == 0:
        shell = {'stdin': subprocess.DEVNULL, 'capture_output': True, 'text': True, 'cwd': place, 'env': {'PATH': '/nowhere'}}
        checked = subprocess.run(['/bin/bash', '-n', '-c', out], **shell)
        assert checked.returncode == 0, f'{checked.stderr}\n{out}'
        subprocess.run(['/bin/bash', '-c', out], **shell)
        assert not list(place.rglob('owned')) and not list(place.parent.glob('owned')), out


# Numbers that leave the range of floats

magnitudes = st.sampled_from([1e-320, 1e-30, 1.0, 1e15, 1e30, 1e38, 1e77, 1e155, 1e300, 1.7e308])
TRAIN = '--data huge.h5 --env_name CartPole-v0 --max_iter 2 --min_total_sa 50 --sim_batch_size 1 --seed 0 --log out.h5'.split()
NUMBERS = [
    ('imitate_mj', ['--mode', 'bclone', '--bclone_lr', 'M', *TRAIN]), ('imitate_mj', ['--mode', 'ga', '--reward_lr', 'M', *TRAIN]),
    ('imitate_mj', ['--mode', 'ga', '--reward_type', 'l2', *TRAIN]), ('imitate_mj', ['--mode', 'gail', '--policy_max_kl', 'M', *TRAIN]),
    ('imitate_mj', ['--mode', 'ga', '--policy_ent_reg', 'M', '--dtype', 'float32', *TRAIN]), ('print_saved_returns', ['huge.h5']),
    ('analyze_results', ['huge_r.h5', '--html', 'o.html', '--csv', 'o.csv', '--latex', 'o.tex']), ('plot_results', ['huge_r.h5',
    '-o', 'o.svg']),
    ('plot_results', ['huge_r.h5', '-o', 'o.png', '--kind', 'raw']),
]  # fmt: skip
number_cases = given(command=st.sampled_from(NUMBERS), values=st.lists(magnitudes, min_size=4, max_size=4), negative=st.booleans())


def huge_numbers(place, command, values, negative):
    """Data, options and results of any size that a float has."""
    script, args = command
    obs, r, option, expert = (-x if negative else x for x in values)
    try:
        demonstrations(place / 'huge.h5')
        with tables.open_file(place / 'huge.h5', 'a') as h5:
            h5.root.obs_B_T_Do[:] = h5.root.obs_B_T_Do.read() * min(abs(obs), 4e307)
            h5.root.r_B_T[:] = r
        rows = [result_row([r, r * (0.5 if run else 1)], alg, run=run, expert=expert) for alg in ('ga', 'bclone') for run in range(3)]
        write_results(str(place / 'huge_r.h5'), rows, [task_row(expert=expert, random=option)], {'run_name': 'huge'})
        judge(place, script, [repr(option) if a == 'M' else a for a in args])
    finally:
        for name in ('huge.h5', 'huge_r.h5'):
            (place / name).unlink(missing_ok=True)


MORE_KINDS = {
    'calls': (call_cases, odd_call),
    'folders': (folder_cases, odd_folder),
    'imports': (import_cases, odd_import),
    'scripts': (script_cases, odd_script),
    'numbers': (number_cases, huge_numbers),
}
