"""Real command lines. Most run in a fork of this process, which has loaded torch and scipy once: two seconds less for each.

A forked script runs as its file does under `python`: as __main__, with its own arguments, environment, folder and streams. What an
interpreter reads only at its start (PYTHONPATH, the variables of BLAS, of numpy, of the linker) needs `fresh=True`. Systems other than
Linux always get a fresh interpreter.
"""

import atexit
import importlib
import logging
import multiprocessing.util
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
# One thread per process: small arrays gain nothing from more, and sums stay equal.
ONE_THREAD = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'NUMEXPR_NUM_THREADS'), '1')
# what commands load
HEAVY = 'policyopt.training', 'policyopt.evaluation', 'policyopt.reproduction.figures', 'policyopt.commands.im_pipeline'


def script_env(**extra):
    """The environment of a command run by a test: this checkout first on the path, one thread, no colour, wide lines."""
    path = os.pathsep.join(p for p in (str(REPO), os.environ.get('PYTHONPATH')) if p)
    # COLUMNS keeps argparse from folding lines that a test compares
    return {**os.environ, **ONE_THREAD, 'PYTHONPATH': path, 'NO_COLOR': '1', 'COLUMNS': '200', 'MPLBACKEND': 'Agg', **extra}


class Forked:
    """A script in a fork of this process; `pid` is its own, the streams are file descriptors."""

    def __init__(self, words, cwd, env, streams):
        for module in HEAVY:
            importlib.import_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that this process may have threads, of which the fork has none
            self.pid = os.fork()
        if self.pid == 0:
            _run_script(words, cwd, env, streams)
        self._fd = os.pidfd_open(self.pid)

    def wait(self, timeout):
        """The exit code, negative after a signal; one that takes longer is killed."""
        ended, _, _ = select.select([self._fd], [], [], timeout)
        os.close(self._fd)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if not ended:
            pytest.fail(f'it takes more than {timeout} s')
        return code


def _run_script(words, cwd, env, streams):
    """The child: become what `python SCRIPT …` would be, run the script, and end."""
    code = 1
    try:
        atexit._clear()  # the handlers of pytest
        multiprocessing.util._finalizer_registry.clear()
        multiprocessing.process._children.clear()
        atexit.register(multiprocessing.util._exit_function)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = open(0, encoding='utf-8', closefd=False)
        sys.stdout = open(1, 'w', buffering=1, encoding='utf-8', closefd=False)
        sys.stderr = open(2, 'w', buffering=1, encoding='utf-8', errors='backslashreplace', closefd=False)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter('ignore', category)
        warnings.showwarning = lambda *w, **_: sys.stderr.write(warnings.formatwarning(*w[:4]))  # pytest collects them
        logging.root.handlers.clear()
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        ours = [p for p in sys.path if p not in ('', str(REPO)) and not p.startswith(str(REPO / 'tests'))]
        sys.path[:] = [str(Path(words[0]).parent), *env['PYTHONPATH'].split(os.pathsep), *ours]
        _forget_other_tests()
        sys.argv = list(words)
        try:
            runpy.run_path(words[0], run_name='__main__')
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else int(e.code is not None)
        except BaseException:
            traceback.print_exc()
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _forget_other_tests():
    """Drop the modules that other tests imported from their folders, the environments in them, and what is said or asked only once."""
    # the checkout may lie in a folder for temporary files too
    theirs = {n for n, m in sys.modules.items() if f'{os.sep}pytest-of-' in (getattr(m, '__file__', None) or '')}
    for name in theirs:
        del sys.modules[name]
    importlib.invalidate_caches()
    registry = sys.modules['gymnasium'].registry
    for name, spec in list(registry.items()):
        entry = spec.entry_point
        if (entry.partition(':')[0] if isinstance(entry, str) else getattr(entry, '__module__', '')) in theirs:
            del registry[name]
    for function in vars(sys.modules['policyopt.environments.rlgymenv']).values():
        if hasattr(function, 'cache_clear'):
            function.cache_clear()


def run_command(script, *args, rc=0, cwd=None, env=None, stdin='', timeout=900, fresh=False):
    """Run a script of scripts/ or of the checkout; returns its CompletedProcess with text.

    rc: the exit code that is expected, None for any; env: its whole environment, by default `script_env()`.
    """
    file = REPO / 'scripts' / script
    words = [str(file if file.exists() else REPO / script), *map(str, args)]
    cwd, env = cwd or os.getcwd(), env or script_env()
    if fresh or sys.platform != 'linux':
        done = subprocess.run([sys.executable, *words], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=timeout)
    else:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin.encode())
            for file in (given, out, err):
                file.seek(0)
            code = Forked(words, cwd, env, [given.fileno(), out.fileno(), err.fileno()]).wait(timeout)
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode().replace('\r\n', '\n'))
            done = subprocess.CompletedProcess(words, code, *said)
    if rc is not None and done.returncode != rc:
        pytest.fail(f'{" ".join(words)}\nexit code {done.returncode}, expected {rc}\n{done.stdout}\n{done.stderr}', pytrace=False)
    return done
