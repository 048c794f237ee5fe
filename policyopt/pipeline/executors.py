"""Who carries out a plan: a list on the screen, this computer, or a cluster. One class each, all with the interface of `Executor`."""

import sys
from collections.abc import Sequence
from typing import Protocol

from policyopt.pipeline.clusters import Cluster
from policyopt.pipeline.launch import Local
from policyopt.pipeline.plan import How, Plan
from policyopt.pipeline.schedulers import ArrayJobs, Pbs, Slurm
from policyopt.pipeline.spec import Spec

FIRST_COMMANDS = 3  # of a dry run on a terminal
EXECUTORS = {executor.name: executor for executor in (Local, Slurm, Pbs, ArrayJobs)}  # by the word after -e


class Executor(Protocol):
    """Made from a How.

    name: the word after -e. away: whether the runs are computed elsewhere, perhaps after the command has ended.
    """

    name: str
    away: bool

    def script(self, plan: Plan) -> str:
        """What would be carried out, as a text that a shell or the cluster takes."""
        ...

    def notes(self, plan: Plan) -> list[str]:
        """What somebody who takes that text should know."""
        ...

    def execute(self, plan: Plan) -> str | None:
        """Carry out what is to do; returns the command that comes next. Raises RunFailed when a run does not finish."""


class Printing:
    """A dry run: what another executor would carry out goes to stdout, its notes to stderr, and nothing is touched.

    A terminal gets a table and the first commands, a file or a pipe all of them.
    """

    def __init__(self, executor: Executor):
        self.executor, self.name, self.away = executor, executor.name, executor.away

    def script(self, plan: Plan) -> str:
        return self.executor.script(plan)

    def notes(self, plan: Plan) -> list[str]:
        return self.executor.notes(plan)

    def execute(self, plan: Plan) -> None:
        if plan.todo:
            for note in self.notes(plan):
                print(note if note.startswith('warning: ') else f'note: {note}', file=sys.stderr)
            commands = self.script(plan).splitlines(keepends=True)
            rest = 0 if self.away or not sys.stdout.isatty() else len(commands) - FIRST_COMMANDS
            if rest > 0:
                del commands[FIRST_COMMANDS:]
                more = f'… and {rest} more commands; -n | cat prints all\n'
                commands = [plan.summary(), '\n\n', *commands, more]
            sys.stdout.write(''.join(commands))
            sys.stdout.flush()

    def execute_stage(self, spec: Spec, stage: str, outputs: Sequence[str]) -> bool:
        assert isinstance(self.executor, Cluster)
        sys.stdout.write(self.executor.stage(spec, stage).script)
        sys.stdout.flush()
        return False


def cluster_for(how: How) -> Cluster | Printing | None:
    """The executor that carries out stages 0 and 2 elsewhere, if the options ask for one."""
    executor = executor_for(how)
    return executor if isinstance(executor, (Cluster, Printing)) and executor.away else None


def executor_for(how: How) -> Executor:
    """The executor that the options ask for."""
    executor = EXECUTORS[how.executor](how)
    return Printing(executor) if how.dry_run else executor
