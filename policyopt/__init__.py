"""Generative adversarial imitation learning as of 2016, on PyTorch and Gymnasium.

Names are imported on first use, so that a dry run needs neither torch nor gymnasium.
"""

import importlib

_HOME = {
    'api': ['Demonstrations', 'Evaluation', 'TrainedRun', 'evaluate', 'train', 'write_run'],
    'options': ['ImitationOptions', 'RLOptions'],
    'policies': ['GibbsPolicy', 'GaussianPolicy', 'Policy', 'make_policy'],
    'valuefuncs': ['ValueFunc', 'LinearValueFunc', 'ConstantValueFunc'],
    'rl': ['SamplingPolicyOptimizer'],
    'evaluation': ['load_policy'],
    'cloning': ['BehavioralCloningOptimizer'],
    'rewards': ['TransitionClassifier', 'LinearReward'],
    'imitation': ['ImitationOptimizer'],
    'nn': ['Standardizer', 'FeedforwardNet'],
    'files.snapshots': ['TrainingLog', 'read_snapshot'],
    'sampling.tasks': ['MDP', 'SimConfig', 'sample_trajectories'],
    'files.trajectories': ['ContinuousSpace', 'FiniteSpace', 'RaggedArray', 'Trajectory', 'TrajBatch', 'load_trajs', 'save_trajs'],
    'util': ['RunFailed', 'UserError'],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'policyopt' has no attribute '{name}'")
    return getattr(importlib.import_module(f'policyopt.{_MODULE_OF[name]}'), name)


def __dir__():
    return sorted({*globals(), *__all__})
