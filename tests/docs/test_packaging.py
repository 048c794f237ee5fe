"""What is installed and when: the lock files, the extra for MuJoCo, and the pipelines that need it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPO, script_env

from policyopt.environments.rlgymenv import needs_mujoco, needs_seals
from policyopt.pipeline.spec import find_policy, load_spec


def locked(name):
    """{package: version} of a lock file; every line that is no comment is one."""
    lines = [line for line in (REPO / name).read_text().splitlines() if not line.startswith('#')]
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', line) for line in lines)
    return {line.partition('==')[0].lower().replace('_', '-'): line.partition('==')[2] for line in lines}


def test_the_mujoco_lock_adds_to_the_other_and_fits_the_extra():
    base, extra = locked('requirements.lock'), locked('requirements-mujoco.lock')
    assert not set(base) & set(extra)
    wanted = re.search(r'mujoco = \[(.*?)\]', (REPO / 'pyproject.toml').read_text()).group(1)
    assert f'"mujoco=={extra["mujoco"]}; ' in wanted
    assert all(re.split('[<>=]', item.strip(' "'))[0] in base | extra for item in wanted.split(','))


def test_the_seals_lock_adds_one_package_and_fits_the_extra():
    extra = locked('requirements-seals.lock')
    assert set(extra) == {'seals'} and f'seals = ["seals=={extra["seals"]}"]' in (REPO / 'pyproject.toml').read_text()
    assert 'seals' not in locked('requirements.lock') | locked('requirements-mujoco.lock') | locked('requirements-test.lock')


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
        ('seals:seals/Hopper-v1', True),
        ('seals:seals/Humanoid-v1', True),
        ('seals:seals/CartPole-v0', False),
        ('seals:seals/MountainCar-v0', False),
    ],
)
def test_tasks_that_need_mujoco_are_known_by_name(name, needed):
    assert needs_mujoco(name) == needed


def test_asking_for_mujoco_imports_none_of_it():
    code = (
        'import sys; from policyopt.environments.rlgymenv import needs_mujoco; '
        "assert needs_mujoco('Ant-v1') and needs_mujoco('Ant-v5') and needs_mujoco('seals:seals/Ant-v1'); "
        "assert not {'mujoco', 'torch', 'seals'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, '-c', code], env=script_env(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize(
    'name', ['quickstart', 'classic', 'quick_mujoco', 'modern', 'reacher_entropy', 'benchmark_seals', 'benchmark_seals_cartpole']
)
def test_pipelines_for_a_fresh_checkout_need_no_files_of_2016(name):
    spec = load_spec(str(REPO / 'pipelines' / f'{name}.yaml'))
    assert all(find_policy(task.policy) for task in spec.tasks)
    assert any(needs_mujoco(task.env) for task in spec.tasks) == (name not in ('quickstart', 'classic', 'benchmark_seals_cartpole'))
    assert all(needs_seals(task.env) for task in spec.tasks) == name.startswith('benchmark_seals')


@pytest.mark.parametrize(
    'name, needs',
    [('modern', 'mujoco'), ('benchmark_seals', 'mujoco seals')],
)
def test_what_an_experiment_needs_is_said_before_it_is_installed(name, needs):
    done = run([sys.executable, '-m', 'policyopt.commands.run_all', '--needs', REPO / 'pipelines' / f'{name}.yaml'], env=script_env())
    assert done.stdout == f'{needs}\n'


@pytest.mark.parametrize('script', ['_venv.sh', 'run_all.sh', 'run_tests.sh'])
def test_the_shell_scripts_are_valid(script):
    subprocess.run(['bash', '-n', str(REPO / 'scripts' / script)], check=True)


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder into which a wheel was installed that was built, without a network, from what git would check out."""
    source, folder = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('installed')
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=REPO, capture_output=True, text=True).stdout.split('\0')
    for name in filter(None, tracked) if tracked[0] else [p.relative_to(REPO) for p in REPO.rglob('*') if p.is_file()]:
        if (REPO / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / name, source / name, follow_symlinks=False)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--no-cache-dir']
    offline = ['--no-index', '--no-deps', '--no-build-isolation']
    run([*pip, 'wheel', *offline, '--wheel-dir', source / 'dist', source])
    run([*pip, 'install', *offline, '--target', folder, *(source / 'dist').glob('policyopt-*.whl')])
    return folder


def run(command, code=0, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == code, f'{command}\n{done.stdout}\n{done.stderr}'
    return done


def gail_pipeline(installed, cwd, *args, code=0):
    """The installed command in a folder, with nothing of this checkout on its path."""
    env = script_env() | {'PYTHONPATH': str(installed)}
    return run([sys.executable, installed / 'bin' / 'gail-pipeline', *args], code, cwd=cwd, env=env)


def test_an_installed_wheel_does_a_whole_experiment_beside_a_users_own_environments(installed, tmp_path):
    (tmp_path / 'environments').mkdir()
    (tmp_path / 'environments' / '__init__.py').write_text('')
    (tmp_path / 'environments' / 'mine.py').write_text(
        "import gymnasium\ngymnasium.register('X-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
    )
    assert 'time limit   9 steps' in gail_pipeline(installed, tmp_path, 'env_info', 'environments.mine:X-v0').stdout
    small = ['training.runs=1', 'training.datasets=1', 'training.full_dataset_num_trajs=1', 'training.dataset_num_trajs=[1]']
    algorithms = ['training.algorithms.bclone.cmd=python scripts/imitate_mj.py --mode bclone --max_iter 21 --bclone_eval_freq 10 OPTIONS']
    algorithms += ['training.algorithms.gail.cmd=python scripts/imitate_mj.py --mode gail --max_iter 2 --min_total_sa 300 OPTIONS']
    options = '--env {env} --data {dataset} --limit_trajs {num_trajs} --log {out}'
    changes = [*small, 'options.eval_num_trajs=2', *(a.replace('OPTIONS', options) for a in algorithms)]
    done = gail_pipeline(installed, tmp_path, 'quickstart', '-j', '2', '--set', *changes)
    folder = tmp_path / 'runs' / 'quickstart' / 'checkpoints'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['environments', 'runs'] and len(list(folder.glob('alg=*.h5'))) == 2
    assert all((folder / f'results{end}').exists() for end in ('.h5', '.csv', '.md', '.html', '_figure1.png'))
    assert 'report   runs/quickstart/checkpoints/results.html\n' in done.stdout and 'next: gail-pipeline analyze_results ' in done.stderr
    log = next((folder / 'logs').glob('alg=gail,*')).read_text().replace(sys.executable, 'python')  # .venv may lie in the checkout
    assert str(installed / 'policyopt' / 'commands' / 'imitate_mj.py') in log and str(REPO) not in log
    assert f'gail-pipeline showlog {folder.relative_to(tmp_path)}/alg=gail' in log


def test_an_installed_wheel_says_how_to_go_on_in_its_own_words(installed, tmp_path):
    options = ['--env_name', 'CartPole-v0', '--min_total_sa', '200', '--sim_batch_size', '1', '--save_freq', '1', '--log', 'run.h5']
    words = [sys.executable, installed / 'bin' / 'gail-pipeline', 'rl', *options]
    env = script_env() | {'PYTHONPATH': str(installed)}
    with subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        next(line for line in process.stdout if line.split()[0] == '1')
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0].splitlines()[-1]
    command = said.partition('continue with: ')[2]
    assert command == f'gail-pipeline run_rl_mj {" ".join(options)} --resume'
    done = gail_pipeline(installed, tmp_path, *command.split()[1:], '--max_iter', '1', code=2)
    assert 'iterations already, more than --max_iter 1' in done.stderr


def test_an_installed_wheel_holds_every_shipped_pipeline_expert_and_published_number(installed, tmp_path):
    inside = installed / 'policyopt' / 'data'
    for pattern in ('pipelines/*.yaml', 'expert_policies/[cms]*/*.h5', 'results/p*/*'):
        ours = {p.relative_to(REPO): p.read_bytes() for p in REPO.glob(pattern)}
        assert ours and ours == {p.relative_to(inside): p.read_bytes() for p in inside.glob(pattern)}
    modules = {p.relative_to(REPO) for p in (REPO / 'policyopt').rglob('*.py')}
    modules |= {Path('policyopt', p.relative_to(REPO)) for p in (REPO / 'environments').rglob('*.py')}
    assert modules == {p.relative_to(installed) for p in (installed / 'policyopt').rglob('*.py')}
    assert [p.name for p in installed.iterdir() if p.is_dir() and (p / '__init__.py').exists()] == ['policyopt']
    done = gail_pipeline(installed, tmp_path, 'run', 'pipelines/classic.yaml', '1_train', '-n', '--only', 'run=0', 'alg=ga')
    assert len(done.stdout.splitlines()) == 12 and not list(tmp_path.iterdir())


def test_every_script_is_a_command_of_the_installed_wheel(installed, tmp_path):
    listing = gail_pipeline(installed, tmp_path, '--help').stdout
    for script in (REPO / 'scripts').rglob('[a-z]*.py'):
        assert re.search(rf'(?m)^{script.stem} ', listing), script
    assert 'usage: imitate_mj' in gail_pipeline(installed, tmp_path, 'imitate', '--help').stdout
    assert 'CartPole-v1\n' in gail_pipeline(installed, tmp_path, 'env-info', 'CartPole-v1').stdout
    done = gail_pipeline(installed, tmp_path, 'imitat', code=2)
    assert done.stderr == "gail-pipeline: error: no command 'imitat'; --help lists them. Did you mean 'imitate'?\n"
    done = gail_pipeline(installed, tmp_path, 'quickstart', '--only', 'alg=nobody', code=2)
    assert done.stderr.startswith("gail-pipeline: error: --only alg=nobody: no run has alg 'nobody'; expected one of bclone, ga")


def test_a_wheel_inside_of_another_checkout_does_not_claim_its_commit(installed, tmp_path):
    shutil.copytree(installed / 'policyopt', tmp_path / 'policyopt')
    git = ['git', '-C', tmp_path, '-c', 'user.name=x', '-c', 'user.email=x@example.org']
    run(['git', 'init', '-q', tmp_path])
    run([*git, 'commit', '-q', '--allow-empty', '-m', 'someone else'])
    code = 'from policyopt.provenance import git_hash; print(git_hash())'
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    assert run([sys.executable, '-c', code], cwd=tmp_path, env=env).stdout == 'unknown\n'


# ---- what a release is made with


def workflow(name):
    """A workflow of GitHub, whose `on` YAML 1.1 takes for a boolean."""
    return yaml.safe_load((REPO / '.github' / 'workflows' / f'{name}.yml').read_text())


def steps(job):
    return [step.get('uses') or step['run'] for step in job['steps']]


def test_every_version_that_is_promised_is_tested_on_linux_and_one_on_macos():
    jobs = workflow('ci')['jobs']
    matrix = jobs['tests']['strategy']['matrix']
    tested = {*matrix['python'], jobs['without-mujoco']['steps'][1]['with']['python-version']}
    promised = re.findall(r'Python :: (3\.\d+)"', (REPO / 'pyproject.toml').read_text())
    assert tested == set(promised) - {'3.10'}  # for which there are no locked versions
    assert [one['os'] for one in matrix['include']] == ['macos-latest']
    assert all(step['run'].split()[1] == '.ci/run' for step in jobs['tests']['steps'] if 'run' in step)


def test_what_is_published_was_built_and_tried_from_the_tag_and_needs_no_secret():
    publish = workflow('publish')
    assert publish[True] == {'push': {'tags': ['v*']}} and 'secrets.' not in (REPO / '.github/workflows/publish.yml').read_text()
    build, upload = publish['jobs']['build'], publish['jobs']['publish']
    assert 'bash .ci/package "${GITHUB_REF_NAME#v}"' in steps(build) and 'bash .ci/package' in steps(workflow('ci')['jobs']['package'])
    assert upload['needs'] == 'build' and upload['permissions'] == {'id-token': 'write'} and upload['environment'] == 'pypi'
    assert steps(upload)[-1].startswith('pypa/gh-action-pypi-publish@')
    subprocess.run(['bash', '-n', str(REPO / '.ci' / 'package')], check=True)


def test_the_image_does_the_two_commands_of_the_readme():
    lines = [line for line in (REPO / 'Dockerfile').read_text().splitlines() if line and not line.startswith('#')]
    readme = (REPO / 'README.md').read_text()
    assert 'COPY . /gail' in lines and lines[-1] == 'CMD ["bash", "scripts/run_all.sh"]' and 'bash scripts/run_all.sh\n' in readme
    for name in re.findall(r'(?:-r |bash )(\S+)', '\n'.join(line for line in lines if line.startswith('RUN'))):
        assert (REPO / name).is_file(), name


@pytest.mark.slow
def test_the_wheel_and_the_sdist_work_in_empty_environments(tmp_path):
    """As CI does it; it needs a package index."""
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=REPO, capture_output=True, text=True).stdout.split('\0')
    if not tracked[0]:
        pytest.skip('this is no git checkout')
    for name in filter(None, tracked):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO / name, tmp_path / name, follow_symlinks=False)
    env = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    done = subprocess.run(['bash', tmp_path / '.ci' / 'package', '9.9.9'], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    if 'the tag says 9.9.9' not in done.stderr:
        pytest.skip(f'no package could be built here: {done.stderr.strip().splitlines()[-1:]}')
    done = subprocess.run(['bash', tmp_path / '.ci' / 'package'], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count('works in an empty environment') == 2, done.stderr
