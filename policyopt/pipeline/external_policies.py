"""Policies of other programs in stage 2: `policy: package.module:load` of an algorithm is called with a run's file, whatever is in it.

What it returns has `act(obs)` (or is played as policyopt.sampling.actors.PlayerActor says): an action for one observation, both as the
environment has them. Such code is imported and called in a process of its own only (`apart`), because it may exit there, and be it
with code 0 on import.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

from policyopt.errors import RunFailed, UserError, reason_of
from policyopt.signals import follow_parent, holding_signals, signal_name


def apart(what: str, function: Callable, *args: Any) -> Any:
    """What function(*args) returns, computed in a process of its own; it must be a function of a module, and all values plain.

    Raises UserError and RunFailed as it does, and RunFailed named `what` for every other end: sys.exit, os._exit, a signal.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, what, function, args))
    try:
        with holding_signals():
            process.start()
        theirs.close()
        while not ours.poll(0.2) and process.is_alive():
            pass  # what it has started itself may keep the pipe open
        kind, value = ours.recv() if ours.poll() else (RunFailed, f'{what}: {_how_it_ended(process)}')
    except (EOFError, OSError) as e:
        process.join(5)
        raise RunFailed(f'{what}: {_how_it_ended(process)}') from e
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        ours.close()
    if kind is not None:
        raise kind(value)
    return value


def _how_it_ended(process: Any) -> str:
    code = process.exitcode
    if code is not None and code < 0:
        return f'was killed by {signal_name(-code)}; is there enough memory?'
    return f'ended its process with exit code {code} in the middle; expected it to return'


def _answer(conn: Any, what: str, function: Callable, args: tuple) -> None:
    """The other process: send (None, what the function returns), or (a class of exceptions, its text)."""
    follow_parent()
    try:
        answer = None, function(*args)
    except (UserError, RunFailed) as e:
        answer = (UserError if isinstance(e, UserError) else RunFailed), str(e)
    except BaseException as e:  # an exit or a Ctrl-C of a stranger's is a failure like any other
        answer = RunFailed, f'{what}: failed with {reason_of(e)}'
    conn.send(answer)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # no threads to wait for, no functions at exit


def check_loader(dotted: str, where: str) -> None:
    """Raise UserError or RunFailed unless this function can be imported, which a process of its own tries."""
    apart(f"{where}: '{dotted}'", _import, dotted, where)


def _import(dotted: str, where: str) -> None:
    loader(dotted, where)


def loader(dotted: str, where: str) -> Callable[[str], Any]:
    """The function `package.module:load`, sought in the working folder too; `where` names its place in the YAML file.

    To be called in a process of its own.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's own folder stands there instead; last, so that it shadows nothing
    module, _, name = dotted.partition(':')
    try:
        function = getattr(importlib.import_module(module), name, None)
    except BaseException as e:  # anything can go wrong in a module of the user's
        raise UserError(f"{where}: '{dotted}' cannot be imported: {reason_of(e)}") from e
    if not callable(function):
        raise UserError(f"{where}: '{dotted}': the module '{module}' has no function '{name}'; expected one that loads a policy")
    return function
