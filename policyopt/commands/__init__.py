"""The commands: a module with `main(argv)` for each, for `scripts/`, `gail-pipeline` and `python -m policyopt`."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import sys
from typing import Any, NoReturn

from policyopt.command_line import format_table, run_main
from policyopt.errors import UserError, closest
from policyopt.shipped import shipped

_HELP = """usage: gail-pipeline COMMAND …

    gail-pipeline quickstart                          a first table and figure, in runs/quickstart
    gail-pipeline all SPEC.yaml                       a whole experiment, as quickstart does it
    gail-pipeline run pipelines/classic.yaml 1_train

Each command is a script of the checkout: where a help text says `python scripts/imitate_mj.py`,
`gail-pipeline imitate_mj` (or `imitate`) is the same. `gail-pipeline COMMAND --help` shows the
options. Files that come with the package, such as pipelines/classic.yaml and
expert_policies/classic/…, are found from any folder.

commands:
"""
SHORT = {
    'im_pipeline': 'run',
    'imitate_mj': 'imitate',
    'run_rl_mj': 'rl',
    'vis_mj': 'vis',
    'analyze_results': 'analyze',
    'plot_results': 'plot',
    'check_progress': 'progress',
    'print_saved_returns': 'returns',
}
_MEDIA = 'env_info', 'random_returns', 'video_frames'  # their scripts are in scripts/media


def names() -> list[str]:
    """The commands that have a script, by name."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name != 'run_all']


def script_of(name: str) -> str:
    """The file that does a command when Python runs it."""
    return shipped(f'scripts/{"media/" if name in _MEDIA else ""}{name}.py')


def run(name: str, argv: list[str] | None = None) -> int:
    """Do a command with these arguments (None: those of this process); returns its exit code."""
    if argv is not None:
        sys.argv = [script_of(name), *argv]  # stored in every file we write, and repeated in advice
    return run_main(name, lambda words: _module(name).main(words))


def _module(name: str) -> Any:
    """The module of a command, loaded only now: --help of one does not wait for the libraries of another."""
    return importlib.import_module(f'{__name__}.{name}')


def _help() -> str:
    lines = [['quickstart', '', 'all pipelines/quickstart.yaml'], ['all', '', 'The three stages, then tables, report and figures.']]
    for name in names():
        with open(os.path.join(__path__[0], f'{name}.py'), encoding='utf-8') as f:
            doc = ast.get_docstring(ast.parse(f.read()))
        lines.append([name, SHORT.get(name, ''), (doc or '').partition('\n')[0]])
    return _HELP + format_table(lines, left=(0, 1, 2))


def main(argv: list[str]) -> int:
    """Do `COMMAND …`; returns an exit code."""
    if not argv or argv[0] in ('-h', '--help'):
        print(_help())
        return 0 if argv else 2
    command, *rest = argv
    if command in ('quickstart', 'all'):
        if command == 'all' and (not rest or (rest[0].startswith('-') and rest[0] not in ('-h', '--help'))):
            raise UserError('all: expected SPEC.yaml first, such as pipelines/classic.yaml, then options of im_pipeline')
        return _module('run_all').run_all(rest if command == 'all' else ['pipelines/quickstart.yaml', *rest])
    long = {short: name for name, short in SHORT.items()}
    name = command.removesuffix('.py').replace('-', '_')
    name = long.get(name, name)
    if name not in names():
        raise UserError(f"no command '{command}'; --help lists them.{closest(command, ['quickstart', 'all', *long, *names()])}")
    return run(name, rest)


def console() -> NoReturn:
    """The entry point `gail-pipeline`."""
    sys.exit(run_main('gail-pipeline', main))
