"""What the tests share: where the reference data lies, and how to run the real command lines."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from command_tools import ONE_THREAD, REPO, run_command, script_env

os.environ.update(ONE_THREAD)  # before numpy and torch are loaded

# A shell that runs tests in the background lets them ignore Ctrl-C, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pipeline_tools

# Vectors of the 2016 functions; parity tests take every file of a kind that they know from this folder.
GOLDEN_DIR = Path(os.environ.get('GOLDEN_DIR') or REPO / 'tests' / 'golden').resolve()
LEGACY_DIR = REPO.parent / 'shared' / 'legacy'

hypothesis.settings.register_profile('repo', derandomize=True, deadline=None, database=None, max_examples=50)
hypothesis.settings.load_profile('repo')


@pytest.fixture(scope='module', autouse=True)
def gradients_stay_as_they_are():
    """A run switches autograd off for its process, which later files must not notice."""
    yield
    if 'torch' in sys.modules:
        sys.modules['torch'].set_grad_enabled(True)


@pytest.fixture(scope='session')
def repo():
    """The root of the checkout."""
    return REPO


@pytest.fixture(scope='session')
def golden_dir():
    """The folder of the golden vectors: the environment variable GOLDEN_DIR, else tests/golden."""
    return GOLDEN_DIR


@pytest.fixture(scope='session')
def legacy_dir():
    """The folder with the files that the 2016 code wrote; the test is skipped where they are not at hand."""
    if not LEGACY_DIR.is_dir():
        pytest.skip('the files of 2016 are not here: no folder ../shared/legacy beside the checkout')
    return LEGACY_DIR


@pytest.fixture
def run_script(tmp_path):
    """`run_command` in a fresh temporary folder unless `cwd` says otherwise; keywords of `env` are added to the environment."""

    def run(*words, cwd=tmp_path, env=None, **options):
        return run_command(*words, cwd=cwd, env=script_env(**(env or {})), **options)

    return run


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    path = tmp_path / 'disk'
    path.mkdir()
    if shutil.which('mount') is None:
        pytest.skip('there is no mount here')
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', path], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f'cannot mount a small file system here: {mounted.stderr.strip()}')
    yield path
    subprocess.run(['umount', path], check=True)


@pytest.fixture(scope='session')
def slurm(tmp_path_factory):
    """The environment of a working Slurm: the machine's own, or one that is started for these tests."""
    if shutil.which('sbatch') is None:
        pytest.skip('there is no Slurm here (Debian: apt install slurm-wlm munge)')
    if subprocess.run(['sinfo', '-h'], capture_output=True).returncode == 0:
        yield pipeline_tools.environment()
        return
    yield from _started_slurm(tmp_path_factory.mktemp('slurm'))


@pytest.fixture(scope='session')
def small_slurm(tmp_path_factory):
    """The environment of a Slurm of ours whose arrays have four tasks at most."""
    if shutil.which('sbatch') is None:
        pytest.skip('there is no Slurm here (Debian: apt install slurm-wlm munge)')
    yield from _started_slurm(tmp_path_factory.mktemp('small_slurm'), MAX_ARRAY_SIZE='5')


def _started_slurm(folder, **settings):
    script = str(REPO / 'tests' / 'local_slurm.sh')
    started = subprocess.run([script, 'start', folder], capture_output=True, text=True, env=os.environ | settings)
    if started.returncode != 0:
        pytest.skip(f'no Slurm could be started here: {started.stderr.strip().splitlines()[-1]}')
    yield pipeline_tools.environment(SLURM_CONF=f'{folder}/slurm.conf')
    subprocess.run([script, 'stop', folder], check=True)
