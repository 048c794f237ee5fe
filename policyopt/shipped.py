"""The files that come with the package: those of the checkout, or in a wheel its package data."""

from __future__ import annotations

import importlib.resources
import os
import shlex
import sys

PACKAGE = str(importlib.resources.files('policyopt'))  # the folder that holds this file
_DATA = os.path.join(PACKAGE, 'data')
IN_CHECKOUT = not os.path.isdir(_DATA)


def shipped(path: str) -> str:
    """Say where a file of the checkout, such as pipelines/classic.yaml, lies in this installation, whether or not it is there.

    A wheel has no scripts/: the commands that they call stand in for them.
    """
    if IN_CHECKOUT:
        return os.path.join(os.path.dirname(PACKAGE), path)
    if os.path.normpath(path).split(os.sep)[0] == 'scripts':
        return os.path.join(PACKAGE, 'commands', os.path.basename(path))
    return os.path.join(_DATA, path)


def here_or_shipped(path: str) -> str:
    """Return `path` itself, or where it leads to nothing, the file of that name that comes with the package if there is one."""
    ours = shipped(path)
    return ours if not os.path.exists(path) and os.path.exists(ours) else path


def as_typed(command: str) -> str:
    """Return a command of ours as the user types it: `python scripts/im_pipeline.py …`, or from a wheel `gail-pipeline im_pipeline …`."""
    return f'python scripts/{command}' if IN_CHECKOUT else f'gail-pipeline {command.replace(".py", "", 1)}'


def continuing_command() -> str:
    """The command line of this process with --resume, to be typed again after an interruption."""
    script, *options = sys.argv
    options += [] if '--resume' in options else ['--resume']
    if not IN_CHECKOUT and os.path.realpath(script).startswith(os.path.realpath(PACKAGE) + os.sep):
        return as_typed(shlex.join([os.path.basename(script), *options]))  # where a wheel is, nobody types a path
    return shlex.join(['python', script, *options])
