"""Bad input through the real command lines: one sentence on stderr, exit code 2, no traceback, nothing written or changed."""

import os
import re

import numpy as np
import pytest
import tables
from command_tools import REPO, run_command
from pipeline_tools import CARTPOLE, spec_text

EXPERT = REPO / 'expert_policies' / 'classic' / 'CartPole-v0.h5'
TRAINER = 'python scripts/imitate_mj.py --mode bclone --data {dataset} --env {env} --log {out}'
SPEC = spec_text({'bclone': TRAINER}, [CARTPOLE | {'policy': 'POLICY'}], full_dataset_num_trajs=4, dataset_num_trajs=[1, 4])


def trajs(path, num=3, length=40, obs_dim=4, a_dim=1, **changes):
    rng = np.random.RandomState(0)
    arrays = {
        'obs_B_T_Do': rng.randn(num, length, obs_dim),
        'a_B_T_Da': rng.randint(0, 2, size=(num, length, a_dim)),
        'r_B_T': np.ones((num, length)),
        'len_B': np.full(num, length, dtype=np.int32),
    }
    with tables.open_file(path, 'w') as h5:
        for name, array in (arrays | changes).items():
            h5.create_array('/', name, obj=array)


def spec(folder, *replacements):
    text = SPEC.replace('POLICY', f'{EXPERT}/snapshots/last')
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / 'spec.yaml').write_text(text)


def nan_obs():
    obs = np.zeros((3, 40, 4))
    obs[1, 2, 3] = np.nan
    return obs


# What each case puts into the folder, beyond a good trajs.h5 and spec.yaml.
FILES = {
    'truncated.h5': lambda p: p.write_bytes(EXPERT.read_bytes()[:20000]),
    'text.h5': lambda p: p.write_text('obs,a,r\n'),
    'empty.h5': lambda p: p.write_bytes(b''),
    'nan.h5': lambda p: trajs(p, obs_B_T_Do=nan_obs()),
    'zero_length.h5': lambda p: trajs(p, len_B=np.array([40, 0, 40])),
    'no_trajs.h5': lambda p: trajs(p, num=0),
    'wide.h5': lambda p: trajs(p, obs_dim=6),
    'two_actions.h5': lambda p: trajs(p, a_dim=2),
    'third_action.h5': lambda p: trajs(p, a_B_T_Da=np.full((3, 40, 1), 2)),
    'short.h5': lambda p: trajs(p, num=1, length=2),
    'done.h5': lambda p: p.write_bytes(EXPERT.read_bytes()),
}

TRAIN = 'imitate_mj.py --mode ga --data trajs.h5 --env_name CartPole-v0 --max_iter 2 --min_total_sa 100 --log out.h5 --seed 0'
CLONE = 'imitate_mj.py --mode bclone --data trajs.h5 --env_name CartPole-v0 --max_iter 2 --log out.h5'
RL = 'run_rl_mj.py --env_name CartPole-v0 --max_iter 2 --min_total_sa 100 --log out.h5'
PLAY = f'vis_mj.py {EXPERT}/snapshots/last --eval_only'

# case: (command line, what the sentence says)
TRAINING = {
    'a missing data file': (f'{TRAIN} --data nowhere.h5', 'nowhere.h5: no such file'),
    'a folder as data': (f'{TRAIN} --data folder', 'import_trajs.py folder trajs.h5'),
    'a truncated HDF5 file': (f'{TRAIN} --data truncated.h5', 'truncated.h5: not a readable HDF5 file'),
    'a file that is no HDF5': (f'{CLONE} --data text.h5', 'text.h5: not a readable HDF5 file'),
    'NaN in the data': (f'{CLONE} --data nan.h5', 'nan.h5: trajectory 1: NaN or infinity among the observations of step 2'),
    'a trajectory of length 0': (f'{TRAIN} --data zero_length.h5', 'len_B[1] is 0'),
    'a file without trajectories': (f'{TRAIN} --data no_trajs.h5', 'no_trajs.h5: holds no trajectory'),
    'more trajectories than there are': (f'{TRAIN} --limit_trajs 4', 'holds 3 trajectories, but limit_trajs is 4; give 1 to 3'),
    'data of another observation space': (f'{TRAIN} --data wide.h5', '6 observation dims'),
    'data of another action space': (f'{TRAIN} --data two_actions.h5', '2 action dims'),
    'an action that the env does not know': (f'{TRAIN} --data third_action.h5', 'integers from 0 to 1'),
    'too few pairs to split': (f'{CLONE} --data short.h5 --bclone_train_frac 0.3', 'both need at least 1'),
    'a subsampling that keeps nothing': (f'{TRAIN} --data short.h5 --data_subsamp_freq 500', 'keeps no pair'),
    'an unknown env': (f'{TRAIN} --env_name CartPool-v0', "Did you mean 'CartPole"),
    'batches too small for the curvature': (f'{RL} --min_total_sa 3 --max_traj_len 3', 'raise min_total_sa'),
    'a negative number of iterations': (f'{RL} --max_iter -1', '--max_iter -1; expected a whole number, 1 or more'),
    'a negative seed': (f'{RL} --seed -5', '--seed -5; expected a whole number, 0 to'),
    'a seed that is no number': (f'{TRAIN} --seed one', "argument --seed: invalid int value: 'one'"),
    'a discount above 1': (f'{RL} --discount 1.5', '--discount 1.5; expected a number, 0 to 1'),
    'a step size that is NaN': (f'{RL} --policy_max_kl nan', '--policy_max_kl nan; expected a number, above 0'),
    'an evaluation frequency of 0': (f'{CLONE} --bclone_eval_freq 0', '--bclone_eval_freq 0; expected a whole number, 1 or more'),
    'a hidden spec that is not JSON': (f'{TRAIN} --policy_hidden_spec [{{fc:3}}]', 'hidden spec'),
    'an unknown device': (f'{TRAIN} --device gpu', '--device gpu'),
    'a device without numbers': (f'{RL} --device meta', "expected 'cpu', or 'cuda'"),
    'a mode that does not exist': (f'{TRAIN} --mode gale', 'invalid choice'),
    'a missing option': ('imitate_mj.py --mode ga', 'required: --data'),
    'an existing output': (f'{TRAIN} --log done.h5', 'done.h5: exists already'),
    'an output folder that does not exist': (f'{TRAIN} --log no/where/out.h5', "the folder '"),
    'an output below a regular file': (f'{TRAIN} --log trajs.h5/out.h5', 'does not exist; create it first'),
    'resume without a file': ('run_rl_mj.py --env_name CartPole-v0 --resume', '--resume needs --log'),
}
PLAYING = {
    'a missing policy file': ('vis_mj.py nowhere.h5/snapshots/last --eval_only', 'a policy is named FILE.h5/snapshots/iter0000100'),
    'an unknown snapshot': (f'vis_mj.py {EXPERT}/snapshots/iter0000013 --eval_only', 'has no snapshots/iter0000013'),
    'a trajectory file as policy': ('vis_mj.py trajs.h5/snapshots/last --eval_only', "has no attribute 'args'"),
    'a policy of another task': (f'{PLAY} --env_name MountainCar-v0', 'the task and the stored options ask for'),
    'no episodes': (f'{PLAY} --count 0', '--count 0: give 1 or more'),
    'episodes without steps': (f'{PLAY} --max_traj_len 0', 'max_traj_len is 0'),
    'existing trajectories': (f'{PLAY} --count 2 --out trajs.h5', 'trajs.h5: exists already'),
    'trajectories below a regular file': (f'{PLAY} --count 2 --out trajs.h5/mine.h5', 'does not exist; create it first'),
    'an animation in no folder': (f'vis_mj.py {EXPERT}/snapshots/last --gif no/where.gif', 'does not exist; create it first'),
    'experts into a folder that is a file': ('../tools/experts/gen_classic_policies.py trajs.h5', 'in the way'),
}
PIPELINE = {
    'a missing spec': ('im_pipeline.py nowhere.yaml 1_train', [], 'nowhere.yaml'),
    'a stage that does not exist': ('im_pipeline.py spec.yaml 3_write', [], '3_write'),
    'an unknown key': ('im_pipeline.py spec.yaml 1_train', [('env:', 'evn:')], "tasks[0].evn: unknown key 'evn'"),
    'a wrong type': ('im_pipeline.py spec.yaml 1_train', [('runs: 1', 'runs: many')], 'training.runs'),
    'a size above the dataset': ('im_pipeline.py spec.yaml 1_train', [('[1, 4]', '[1, 40]')], 'dataset_num_trajs'),
    'an unknown algorithm': ('im_pipeline.py spec.yaml 1_train', [('name: bclone', 'name: magic')], 'magic'),
    'a misspelt option of a sweep': (
        'im_pipeline.py spec.yaml 0_sampletrajs',
        [('{name: bclone,', '{name: bclone, vary: {bclone_lrr: [.1]},')],
        "spec.yaml: training.algorithms[0].vary.bclone_lrr: the option '--bclone_lrr'; expected one that imitate_mj.py has",
    ),
    'two algorithms of one name': (
        'im_pipeline.py spec.yaml 1_train',
        [('  algorithms:\n', "  algorithms:\n  - {name: bclone, cmd: 'true {out}'}\n")],
        'bclone',
    ),
    'an expert that does not exist': ('im_pipeline.py spec.yaml 0_sampletrajs', [(str(EXPERT), 'nowhere.h5')], 'nowhere.h5'),
}
CASES = {**{k: (c, [], e) for k, (c, e) in (TRAINING | PLAYING).items()}, **PIPELINE}
# Variations of other cases: each command costs the start of Python and torch.
RARE = {
    'a folder as data', 'a step size that is NaN', 'a device without numbers', 'resume without a file', 'trajectories below a regular file',
    'episodes without steps', 'a trajectory file as policy', 'a discount above 1', 'an animation in no folder',
    'data of another action space', 'an output folder that does not exist', 'a subsampling that keeps nothing', 'a negative seed',
}  # fmt: skip


def state(folder):
    """{path: (kind, size, time of change, bytes)} of everything below a folder."""
    found = {}
    for path in sorted(folder.rglob('*')):
        stat = path.stat()
        found[str(path)] = (path.is_dir(), stat.st_size, stat.st_mtime_ns, b'' if path.is_dir() else path.read_bytes())
    return found


@pytest.mark.parametrize('case', [pytest.param(c, marks=[pytest.mark.slow] if c in RARE else []) for c in CASES])
def test_bad_input_is_one_sentence_and_changes_nothing(case, tmp_path):
    line, replacements, expected = CASES[case]
    trajs(tmp_path / 'trajs.h5')
    (tmp_path / 'folder').mkdir()
    spec(tmp_path, *replacements)
    for name, make in FILES.items():
        if name in line:
            make(tmp_path / name)
    before = state(tmp_path)
    script, *args = line.split()
    done = run_command(script, *args, cwd=tmp_path, rc=2)
    prog = os.path.basename(script).removesuffix('.py')
    assert re.fullmatch(rf'{prog}: error: [^\n]+\n', done.stderr), done.stderr
    assert expected in done.stderr, done.stderr
    assert state(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_without_write_permission_is_named(tmp_path):
    locked = tmp_path / 'locked'
    locked.mkdir(mode=0o555)
    done = run_command('run_rl_mj.py', '--env_name', 'CartPole-v0', '--log', locked / 'x.h5', cwd=tmp_path, rc=2)
    assert 'no write permission' in done.stderr
