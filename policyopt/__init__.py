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
    from policyopt.cloning import BehavioralCloningOptimizer
    from policyopt.dagger import DaggerOptimizer
    from policyopt.errors import RunFailed, UserError
    from policyopt.evaluation import load_policy, load_reward
    from policyopt.files.training_log import TrainingLog, read_snapshot
    from policyopt.files.trajectory_file import load_trajs, save_trajs
    from policyopt.imitation import ImitationOptimizer
    from policyopt.nn import FeedforwardNet
    from policyopt.options import ImitationOptions, RLOptions
    from policyopt.policies import GaussianPolicy, GibbsPolicy, Policy, make_policy
    from policyopt.rewards import LinearReward, TransitionClassifier
    from policyopt.rl import SamplingPolicyOptimizer
    from policyopt.sampling.mdp import MDP, sample_trajectories
    from policyopt.sampling.rollout import SimConfig
    from policyopt.standardizer import Standardizer
    from policyopt.torchutil import NetConfig
    from policyopt.trajectories import Batch, ContinuousSpace, FiniteSpace, RaggedArray, TrajBatch, Trajectory
    from policyopt.valuefuncs import ConstantValueFunc, LinearValueFunc, ValueFunc

if sys.platform == 'win32':
    raise ImportError('policyopt runs on Linux and macOS, not on Windows itself; on Windows, use WSL (the Windows Subsystem for Linux)')

if not os.environ.get('OMP_NUM_THREADS', '1').lstrip('0').isdecimal():  # 0, or a list such as 4,2: cores.threads_from_env judges it
    os.environ.setdefault('NUMEXPR_NUM_THREADS', '1')  # numexpr, which PyTables imports, cannot be imported with it

_HOME = {
    'api': ['Demonstrations', 'Evaluation', 'TrainedRun', 'evaluate', 'train', 'write_run'],
    'options': ['ImitationOptions', 'RLOptions'],
    'policies': ['GibbsPolicy', 'GaussianPolicy', 'Policy', 'make_policy'],
    'valuefuncs': ['ValueFunc', 'LinearValueFunc', 'ConstantValueFunc'],
    'rl': ['SamplingPolicyOptimizer'],
    'evaluation': ['load_policy', 'load_reward'],
    'airl': ['AIRLReward'],
    'cloning': ['BehavioralCloningOptimizer'],
    'dagger': ['DaggerOptimizer'],
    'rewards': ['TransitionClassifier', 'LinearReward'],
    'imitation': ['ImitationOptimizer'],
    'nn': ['FeedforwardNet'],
    'standardizer': ['Standardizer'],
    'torchutil': ['NetConfig'],
    'files.training_log': ['TrainingLog', 'read_snapshot'],
    'sampling.mdp': ['MDP', 'sample_trajectories'],
    'sampling.rollout': ['SimConfig'],
    'trajectories': ['Batch', 'ContinuousSpace', 'FiniteSpace', 'RaggedArray', 'Trajectory', 'TrajBatch'],
    'files.trajectory_file': ['load_trajs', 'save_trajs'],
    'errors': ['RunFailed', 'UserError'],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll] (the imports above say the same)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'policyopt' has no attribute '{name}'")
    return getattr(importlib.import_module(f'policyopt.{_MODULE_OF[name]}'), name)


def __dir__() -> list[str]:
    return __all__
