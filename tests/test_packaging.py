"""What is installed and when: the lock files, the extra for MuJoCo, and the pipelines that need it."""

import re
import subprocess
import sys

import pytest
from conftest import REPO, script_env

from environments.rlgymenv import needs_mujoco
from policyopt.pipeline.spec import find_policy, load_spec


def locked(name):
    """{package: version} of a lock file; every line that is no comment is one."""
    lines = [line for line in (REPO / name).read_text().splitlines() if not line.startswith('#')]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', line) for line in lines)
    return {line.partition('==')[0].lower().replace('_', '-'): line.partition('==')[2] for line in lines}


def test_the_mujoco_lock_adds_to_the_other_and_fits_the_extra():
    base, extra = locked('requirements.lock'), locked('requirements-mujoco.lock')
    assert not set(base) & set(extra)
    wanted = re.search(r"'mujoco': \[(.*?)\]", (REPO / 'setup.py').read_text()).group(1)
    assert f"'mujoco=={extra['mujoco']}; " in wanted
    assert all(re.split('[<>=]', item.strip(" '"))[0] in base | extra for item in wanted.split(','))


@pytest.mark.parametrize(
    'name, needed',
    [
        ('Hopper-v1', True),
        ('legacy/Reacher-v1', True),
        ('Ant-v5', True),
        ('HalfCheetah-v4', True),
        ('Hopper', True),
        ('CartPole', False),
        ('', False),
        ('CartPole-v0', False),
        ('Acrobot-v0', False),
        ('Pendulum-v1', False),
        ('NoSuchTask-v0', False),
        ('some.module:Robot-v0', False),
    ],
)
def test_tasks_that_need_mujoco_are_known_by_name(name, needed):
    assert needs_mujoco(name) == needed


def test_asking_for_mujoco_imports_none_of_it():
    code = (
        'import sys; from environments.rlgymenv import needs_mujoco; '
        "assert needs_mujoco('Ant-v1') and needs_mujoco('Ant-v5') and not {'mujoco', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], env=script_env(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('name', ['quickstart', 'classic', 'quick_mujoco', 'modern', 'reacher_entropy'])
def test_pipelines_for_a_fresh_checkout_need_no_files_of_2016(name):
    spec = load_spec(str(REPO / 'pipelines' / f'{name}.yaml'))
    assert all(find_policy(task.policy) for task in spec.tasks)
    assert any(needs_mujoco(task.env) for task in spec.tasks) == (name not in ('quickstart', 'classic'))


@pytest.mark.parametrize('script', ['_venv.sh', 'run_all.sh', 'run_tests.sh'])
def test_the_shell_scripts_are_valid(script):
    subprocess.run(['bash', '-n', str(REPO / 'scripts' / script)], check=True)
