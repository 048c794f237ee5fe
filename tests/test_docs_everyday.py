"""What docs/everyday.md and docs/own_algorithm.md show works as it stands there."""

import csv
import importlib.util
import os
import re
import subprocess
import sys

import pytest
from conftest import REPO, script_env

# As much of Stable-Baselines3 as the example touches, so that it need not be installed: a policy that always pushes right.
STAND_IN = """
import json

class PPO:
    def __init__(self, policy, env, seed, device):
        self.action = 1
    def learn(self, total_timesteps):
        pass
    def save(self, path):
        with open(path, 'w') as f:
            json.dump(self.action, f)
    @classmethod
    def load(cls, path, device):
        model = cls.__new__(cls)
        with open(path) as f:
            model.action = json.load(f)
        return model
    def predict(self, observation, deterministic=False):
        import numpy
        return numpy.array(self.action), None
"""


def blocks(name):
    """[(language, text)] of the fenced blocks of a page."""
    return re.findall(r'^```(\w*)\n(.*?)^```$', (REPO / 'docs' / name).read_text(encoding='utf-8'), re.M | re.S)


def checkout(folder):
    """A folder that looks like a checkout, so that commands can be typed as they stand."""
    for name in ('scripts', 'expert_policies'):
        os.symlink(REPO / name, folder / name)
    return folder


def run(text, folder):
    """Run the commands of a block; returns all that they print."""
    text = text.replace('python ', f'{sys.executable} ')
    done = subprocess.run(['bash', '-ec', text], cwd=folder, env=script_env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f'{text}\n{done.stdout}\n{done.stderr}'
    assert 'Traceback' not in done.stderr
    return done.stdout + done.stderr


def test_the_page_of_everyday_use(tmp_path):
    folder, said, tried = checkout(tmp_path), '', []
    for language, text in blocks('everyday.md'):
        if language == 'python':
            run(f"python - <<'END'\n{text}\nEND", folder)
        elif language == 'yaml':
            (folder / 'sweep.yaml').write_text(text)
        elif language == '':
            said += run(text, folder)
        elif language == 'tensorboard' and importlib.util.find_spec('tensorboard'):
            said += run(text, folder)
        elif language == 'video' and importlib.util.find_spec('pygame'):
            assert 'return: ' in run(text, folder)
        tried.append(language)
    assert {'', 'python', 'yaml', 'minari', 'tensorboard', 'video'} == set(tried)
    assert 'trajs_imported.h5: 3 trajectories, 120 pairs, average return 40.00 (env CartPole-v1)' in said
    assert 'done: gail.h5' in said and '31 rows of 1 logs: log.csv' in said and 'trajs_imported.h5: is no training log: skipped' in said
    assert re.search(r'^task +algorithm +reward_lr +reward_steps +2 trajs +expert$', said, re.M)
    with open(folder / 'sweep.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert [(r['reward_lr'], r['reward_steps']) for r in rows] == [('0.003', '1'), ('0.003', '4'), ('0.01', '1'), ('0.01', '4')]
    assert (folder / 'curves.png').exists() and (folder / 'runs/sweep/checkpoints/results_figure1.png').exists()
    assert re.search(r'^ga\+reward_lr=0.003\+reward_steps=4 +cartpole +1 ', said, re.M) and 'reward_lr=0.01+reward_steps=4  c' not in said


def test_the_page_of_your_own_algorithm(tmp_path):
    folder = checkout(tmp_path)
    train, policy, spec, commands = (text for _, text in blocks('own_algorithm.md'))
    for name, text in (('train_sb3.py', train), ('sb3_policy.py', policy), ('own.yaml', spec), ('stable_baselines3.py', STAND_IN)):
        (folder / name).write_text(text)
    assert len(policy.splitlines()) < 15
    said = run(commands, folder)
    assert re.search(r'^cartpole +ppo +(9|10)\.\d', said, re.M) and re.search(r'^cartpole +bclone ', said, re.M)
    assert (folder / 'own.png').exists()
    assert (folder / 'runs/own/checkpoints/alg=ppo,task=cartpole,num_trajs=2,run=0.h5').read_text() == '1'


@pytest.mark.skipif(not importlib.util.find_spec('stable_baselines3'), reason='Stable-Baselines3 is not installed')
def test_the_page_of_your_own_algorithm_with_stable_baselines3(tmp_path):
    folder = checkout(tmp_path)
    train, policy, spec, commands = (text for _, text in blocks('own_algorithm.md'))
    for name, text in (('train_sb3.py', train), ('sb3_policy.py', policy), ('own.yaml', spec)):
        (folder / name).write_text(text)
    assert re.search(r'^cartpole +ppo +\d', run(commands, folder), re.M)
