"""Who carries out a plan: this computer or a cluster. And a dry run, which shows what they would do."""

import sys

from policyopt.pipeline.clusters import Cluster
from policyopt.pipeline.launch import Local
from policyopt.pipeline.plan import How, Plan
from policyopt.pipeline.schedulers import ArrayJobs, Pbs, Slurm

FIRST_COMMANDS = 3  # of a dry run on a terminal
EXECUTORS = {executor.name: executor for executor in (Local, Slurm, Pbs, ArrayJobs)}  # by the word after -e


def executor_for(how: How) -> Local | Cluster:
    """The executor that the options ask for."""
    return EXECUTORS[how.executor](how)


def cluster_for(how: How) -> Cluster | None:
    """The cluster that the options ask for, None for this computer."""
    executor = executor_for(how)
    return executor if isinstance(executor, Cluster) else None


def show_plan(executor: Local | Cluster, plan: Plan) -> None:
    """Do a dry run: what the executor would carry out goes to stdout, its notes to stderr, and nothing is touched.

    A terminal gets a table and the first commands, a file or a pipe all of them.
    """
    if not plan.todo:
        return
    for note in executor.notes(plan):
        print(note if note.startswith('warning: ') else f'note: {note}', file=sys.stderr)
    commands = executor.script(plan).splitlines(keepends=True)
    rest = 0 if isinstance(executor, Cluster) or not sys.stdout.isatty() else len(commands) - FIRST_COMMANDS
    if rest > 0:
        commands = [plan.summary(), '\n\n', *commands[:FIRST_COMMANDS], f'… and {rest} more commands; -n | cat prints all\n']
    print(*commands, sep='', end='', flush=True)
