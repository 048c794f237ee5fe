"""Lead the scripts to the packages of this checkout, whatever folder they are called from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt import commands


def run(script: str) -> None:
    """Do what the command of a script's name does with the arguments of this process, and end with its exit code."""
    sys.exit(commands.run(Path(script).stem))
