"""Policies of other programs in stage 2: `policy: package.module:load` of an algorithm loads the policy from a run's file.

The file may have any format. The loaded policy has `act(obs)`, which returns an action for one observation, both as the environment has
them (see policyopt.sampling.actors.PlayerActor). This code is imported and called only in a process of its own (`apart`), because it
may exit, for example with code 0 on import.
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
    """Call function(*args) in a process of its own; the function must be at the top level of a module, and all values picklable.

    UserError and RunFailed of the function are raised here too. Any other end (sys.exit, os._exit, a signal) raises RunFailed, which
    names `what`.
    """
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, what, function, args))
    try:
        with holding_signals():
            process.start()
        theirs.close()
        while not ours.poll(0.2) and process.is_alive():
            pass  # its own child processes may keep the pipe open
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
    """In the other process: send (None, the function's result), or (an exception class, its text)."""
    follow_parent()
    try:
        answer = None, function(*args)
    except (UserError, RunFailed) as e:
        answer = (UserError if isinstance(e, UserError) else RunFailed), str(e)
    except BaseException as e:  # an exit or a KeyboardInterrupt in foreign code is a failure too
        answer = RunFailed, f'{what}: failed with {reason_of(e)}'
    conn.send(answer)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(0)  # do not wait for threads or run exit functions


def check_loader(dotted: str, where: str) -> None:
    """Raise UserError or RunFailed unless a process of its own can import this function."""
    apart(f"{where}: '{dotted}'", _import, dotted, where)


def _import(dotted: str, where: str) -> None:
    loader(dotted, where)


def loader(dotted: str, where: str) -> Callable[[str], Any]:
    """Import the function `package.module:load`, also from the working folder; where: its place in the YAML file.

    To be called in a process of its own.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # Python adds the script's folder, not this one; at the end, so that it shadows nothing
    module, _, name = dotted.partition(':')
    try:
        function = getattr(importlib.import_module(module), name, None)
    except BaseException as e:  # a module of the user may raise anything
        raise UserError(f"{where}: '{dotted}' cannot be imported: {reason_of(e)}") from e
    if not callable(function):
        raise UserError(f"{where}: '{dotted}': the module '{module}' has no function '{name}'; expected one that loads a policy")
    return function
