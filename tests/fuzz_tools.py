"""What the fuzz tests share: odd values, and a command or a call in a fork, whose answer is judged."""

import contextlib
import importlib
import os
import re
import shutil
import signal
import sys
import time
import traceback

from exploits import ODD_NAMES, ODD_YAML
from hypothesis import strategies as st
from test_bad_input import state

from policyopt.command_line import run_main

LIMIT_S = 30

ODD_TEXTS = [
    '', ' ', '0', '-1', '1', '2', '0.5', '-0.0', 'nan', 'inf', '-inf', '1e308', '1e-320', '1e400', 'true', 'null', 'x', '９',
    '9' * 20, '9' * 5000, '\x1b[2J', 'a\nb', '[]', '{}', '[' * 20000,
    '../..', '.', '/', '~', 'é', '\u202e', '-', '=', '%s', '{out}', '0x10', '1,5',
    'x' * 300, 'x/../y',
    't.h5', 'p.h5', 'r.h5', 'folder', '/dev/null', '[{"type":"fc","n":1e3}]', '[{"type":"fc"}]', '[1]', '[{"type":"fc","n":10}]',
    'CartPole-v9',
    'nomodule:X-v0', ':', 'a:b:c', 'json:CartPole-v0',
    *ODD_YAML, *ODD_NAMES[:5],
]  # fmt: skip
ODD_VALUES = st.one_of(
    st.sampled_from(ODD_TEXTS), st.none(), st.booleans(), st.floats(), st.integers(-(10**30), 10**30), st.text(max_size=20),
    st.lists(st.integers(-2, 5), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip


def main_of(script):
    if script not in _MAINS:
        _MAINS[script] = importlib.import_module(f'policyopt.commands.{script}').main
    return _MAINS[script]


_MAINS = {}


def answer(place, script, args, main=None):
    """(exit code or −signal, stdout, stderr) of a command in a fork of this process."""
    files = [place.parent / f'{place.name}.{name}' for name in ('out', 'err')]
    pid = os.fork()
    if pid == 0:
        code = 99
        with contextlib.suppress(BaseException):
            os.chdir(place)
            os.setpgid(0, 0)
            signal.alarm(LIMIT_S)
            for file, stream in zip(files, (1, 2), strict=True):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.stdout, sys.stderr = (open(n, 'w', encoding='utf-8', closefd=False) for n in (1, 2))
            sys.argv = [f'{script}.py', *args]
            try:
                code = run_main(script, main or main_of(script), args)
            except SystemExit as e:
                code = e.code or 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status), *(f.read_text(encoding='utf-8', errors='replace') for f in files)


def judge(place, script, args, main=None):
    """A command, or another main function, must do its work or fail with one sentence and without a trace; returns (code, stdout)."""
    before, start = state(place), time.monotonic()
    code, out, err = answer(place, script, args, main)
    shown = f'{script} {[a[:300] for a in args]}\nexit code {code} after {time.monotonic() - start:.1f} s\n{out[-500:]}\n{err[-3000:]}'
    assert code in (0, 1, 2), shown
    assert 'Traceback' not in err and 'Warning' not in err, shown
    assert not re.search('[\x00-\x08\x0b-\x1f\x7f\u202e]', out + err), shown
    for path in place.glob('*.h5.part'):  # of a run that ended after its first save, which is kept
        assert code == 1, shown
        path.unlink()
    after = state(place)
    if code:
        errors = [line for line in err.splitlines() if line.startswith(f'{script}: error: ')]
        said = [line for line in err.splitlines() if not line.startswith('  ')]  # without a list of ours
        assert len(errors) == 1 and said[-1] == errors[0], shown
        assert after == before, shown
    for path in sorted(set(after) - set(before), reverse=True):  # what a command that worked has written
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    assert {p: after[p] for p in before if after.get(p) != before[p]} == {}, shown
    return code, out
