"""The command `gail-pipeline`: every script of ours by its name, from any folder, from a checkout or an installed wheel."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NoReturn

from policyopt.pipeline.whole import run_all, run_script
from policyopt.util import REPO, UserError, closest, format_table, run_main

_HELP = """usage: gail-pipeline COMMAND …

    gail-pipeline quickstart                          a first table and figure, in runs/quickstart
    gail-pipeline all SPEC.yaml                       a whole experiment, as quickstart does it
    gail-pipeline run pipelines/classic.yaml 1_train

Each command is a script of the checkout: where a help text says `python scripts/imitate_mj.py`, `gail-pipeline imitate_mj` (or
`imitate`) is the same. `gail-pipeline COMMAND --help` shows the options. Files that come with the package, such as
pipelines/classic.yaml and expert_policies/classic/…, are found from any folder. Equal seeds give equal bits on one kind of
processor only.

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


def scripts() -> dict[str, Path]:
    """{name: file below scripts/}."""
    root = Path(REPO, 'scripts')
    return {path.stem: path.relative_to(root) for path in sorted(root.rglob('*.py'))}


def _help() -> str:
    lines = [['quickstart', '', 'all pipelines/quickstart.yaml'], ['all', '', 'The three stages, then tables, report and figures.']]
    for name, script in scripts().items():
        doc = ast.get_docstring(ast.parse(Path(REPO, 'scripts', script).read_text(encoding='utf-8')))
        lines.append([name, SHORT.get(name, ''), (doc or '').partition('\n')[0]])
    return _HELP + format_table(lines, left=(0, 1, 2))


def main(argv: list[str]) -> int:
    """Do `COMMAND …`; returns an exit code."""
    if not argv or argv[0] in ('-h', '--help'):
        print(_help())
        return 0 if argv else 2
    command, *rest = argv
    if command == 'quickstart':
        return run_all(['pipelines/quickstart.yaml', *rest])
    if command == 'all':
        if not rest or (rest[0].startswith('-') and rest[0] not in ('-h', '--help')):
            raise UserError('all: expected SPEC.yaml first, such as pipelines/classic.yaml, then options of im_pipeline')
        return run_all(rest)
    ours, names = scripts(), {short: name for name, short in SHORT.items()}
    name = command.removesuffix('.py').replace('-', '_')
    name = names.get(name, name)
    if name not in ours:
        raise UserError(f"no command '{command}'; --help lists them.{closest(command, ['quickstart', 'all', *names, *ours])}")
    return run_script(str(ours[name]), *rest)


def console() -> NoReturn:
    """The entry point of the command."""
    sys.exit(run_main('gail-pipeline', main))
