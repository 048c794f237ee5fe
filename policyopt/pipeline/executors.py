"""Who carries out a plan: a list on the screen, this computer, or a cluster. One class each, all with the interface of `Executor`."""

import sys
from typing import Protocol

from policyopt.pipeline.clusters import Pbs, Slurm
from policyopt.pipeline.launch import Local
from policyopt.pipeline.plan import How, Plan

EXECUTORS = {executor.name: executor for executor in (Local, Slurm, Pbs)}  # by the word after -e


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
    """A dry run: what another executor would carry out goes to stdout, its notes to stderr, and nothing is touched."""

    def __init__(self, executor: Executor):
        self.executor, self.name, self.away = executor, executor.name, executor.away

    def script(self, plan: Plan) -> str:
        return self.executor.script(plan)

    def notes(self, plan: Plan) -> list[str]:
        return self.executor.notes(plan)

    def execute(self, plan: Plan) -> None:
        if plan.todo:
            for note in self.notes(plan):
                print(f'note: {note}', file=sys.stderr)
            sys.stdout.write(self.script(plan))
            sys.stdout.flush()


def executor_for(how: How) -> Executor:
    """The executor that the options ask for."""
    executor = EXECUTORS[how.executor](how)
    return Printing(executor) if how.dry_run else executor
