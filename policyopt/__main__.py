"""`python -m policyopt COMMAND …` is `gail-pipeline COMMAND …`."""

from policyopt.commands import console

if __name__ == '__main__':
    console()
