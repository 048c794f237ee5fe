"""Generative adversarial imitation learning as of 2016, on PyTorch and Gymnasium.

Names are imported on first use, so that a dry run needs neither torch nor gymnasium.
"""

# ruff: noqa: F401 (names that are imported for editors only)
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not look into _HOME
    from policyopt.airl import AIRLReward
    from policyopt.api import Demonstrations, Evaluation, TrainedRun, evaluate, train, write_run
    from policyopt.errors import RunFailed, UserError
    from policyopt.evaluation import load_policy, load_reward
    from policyopt.files.trajectory_file import load_trajs, save_trajs
    from policyopt.options import ImitationOptions, RLOptions
    from policyopt.policies import GaussianPolicy, GibbsPolicy, Policy, make_policy
    from policyopt.rewards import TransitionClassifier
    from policyopt.sampling.mdp import MDP
    from policyopt.trajectories import Batch, ContinuousSpace, FiniteSpace, TrajBatch

if sys.platform == 'win32':
    raise ImportError('policyopt runs on Linux and macOS, not on Windows itself; on Windows, use WSL (the Windows Subsystem for Linux)')

if not os.environ.get('OMP_NUM_THREADS', '1').lstrip('0').isdecimal():  # 0, or a list such as 4,2: cores.threads_from_env judges it
    os.environ.setdefault('NUMEXPR_NUM_THREADS', '1')  # numexpr, which PyTables imports, cannot be imported with it

_HOME = {
    'airl': ['AIRLReward'],
    'api': ['Demonstrations', 'Evaluation', 'TrainedRun', 'evaluate', 'train', 'write_run'],
    'errors': ['RunFailed', 'UserError'],
    'evaluation': ['load_policy', 'load_reward'],
    'files.trajectory_file': ['load_trajs', 'save_trajs'],
    'options': ['ImitationOptions', 'RLOptions'],
    'policies': ['GaussianPolicy', 'GibbsPolicy', 'Policy', 'make_policy'],
    'rewards': ['TransitionClassifier'],
    'sampling.mdp': ['MDP'],
    'trajectories': ['Batch', 'ContinuousSpace', 'FiniteSpace', 'TrajBatch'],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll] (the imports above say the same)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'policyopt' has no attribute '{name}'")
    return getattr(importlib.import_module(f'policyopt.{_MODULE_OF[name]}'), name)


def __dir__() -> list[str]:
    return __all__
