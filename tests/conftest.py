"""What the tests share: where the reference data lies, and how to run the real command lines."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# One thread per process, before numpy and torch are loaded: small arrays gain nothing from more, and sums stay equal.
ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMEXPR_NUM_THREADS'), '1')
os.environ.update(ONE_THREAD)

# A shell that runs tests in the background lets them ignore Ctrl-C, and what they start inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402
import pipeline_tools  # noqa: E402
import pytest  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
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


def script_env(**extra):
    """The environment of a command run by a test: this checkout first on the path, one thread, no colour, wide lines."""
    path = os.pathsep.join(p for p in (str(REPO), os.environ.get('PYTHONPATH')) if p)
    # COLUMNS keeps argparse from folding lines that a test compares
    return {**os.environ, **ONE_THREAD, 'PYTHONPATH': path, 'NO_COLOR': '1', 'COLUMNS': '200', 'MPLBACKEND': 'Agg', **extra}


@pytest.fixture
def run_script(tmp_path):
    """Run a real command line: run_script('imitate_mj.py', '--mode', 'ga', …, rc=0) -> CompletedProcess with text.

    The script is one of scripts/ (or an absolute path); it runs in a fresh temporary folder unless `cwd` says otherwise.
    `rc` is the exit code that is expected, None for any. Keywords of `env` are added to the environment.
    """

    def run(script, *args, rc=0, cwd=None, timeout=300, env=None, stdin=None):
        cmd = [sys.executable, str(REPO / 'scripts' / script), *map(str, args)]
        done = subprocess.run(
            cmd, cwd=cwd or tmp_path, env=script_env(**(env or {})), input=stdin or '', capture_output=True, text=True, timeout=timeout
        )
        if rc is not None and done.returncode != rc:
            pytest.fail(f'{" ".join(cmd)}\nexit code {done.returncode}, expected {rc}\n{done.stdout}\n{done.stderr}', pytrace=False)
        return done

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
