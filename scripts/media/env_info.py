#!/usr/bin/env python3
"""Run policyopt/commands/env_info.py with the packages of this checkout."""

from _checkout import run

if __name__ == '__main__':
    run(__file__)
