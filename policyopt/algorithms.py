"""The one table of algorithms: how each is trained, judged, drawn and estimated.

A new reward function is one class and one row of ALGORITHMS; a new way of training is one class and one row of MODES as well (see
docs/extending.md). Classes and functions are named 'module:name' and loaded when a run is built, so nothing heavy is imported here.
"""

import dataclasses
import importlib
import re
from typing import Any

RULES = ('best_valacc', 'last')  # by which snapshot stage 2 judges a run: that with the highest valacc in its log, or the last one


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way of training, the word after --mode of imitate_mj.py.

    optimizer: 'module:name' of what makes an `Optimizer` (interfaces.py) of (options, mdp, policy, expert, nets).
    probe_iterations: how many iterations an estimate measures, about a second on the classic tasks.
    save_option: the option that says how often a run is saved; a mode with its own also prints as often.
    depends_on_max_iter: whether --max_iter changes the iterations before it, so that a run cannot be made longer.
    adversarial: whether a reward function is learned.
    """

    optimizer: str
    probe_iterations: int
    save_option: str = 'save_freq'
    depends_on_max_iter: bool = False
    adversarial: bool = False


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """A row of the table.

    mode, rule: a key of MODES, one of RULES. A YAML file may replace the rule by `eval:`.
    label, colour, line, marker: of its curve, with matplotlib's words.
    reward_type, reward: the word after --reward_type and the 'module:class' of a `Reward` (interfaces.py); None learns no reward.
    saves_reward: whether snapshots hold the reward function too unless --save_reward says otherwise.
    """

    mode: str
    rule: str
    label: str
    colour: str
    line: str | tuple
    marker: str
    reward_type: str | None = None
    reward: str | None = None
    saves_reward: bool = False


MODES = {
    'bclone': Mode('policyopt.cloning:BehavioralCloningOptimizer', probe_iterations=300, save_option='bclone_eval_freq'),
    'dagger': Mode('policyopt.dagger:DaggerOptimizer', probe_iterations=300, save_option='bclone_eval_freq', depends_on_max_iter=True),
    'ga': Mode('policyopt.training:imitation_optimizer', probe_iterations=4, adversarial=True),
    'gail': Mode('policyopt.training:imitation_optimizer', probe_iterations=8, adversarial=True),
}

CLASSIFIER, LINEAR = 'policyopt.rewards:TransitionClassifier', 'policyopt.rewards:LinearReward'
ALGORITHMS = {
    'bclone': Algorithm(mode='bclone', rule='best_valacc', label='behavioural cloning (bclone)', colour='#D55E00', line='--', marker='s'),
    # not best_valacc: the pairs that validate are others in every round
    'dagger': Algorithm(mode='dagger', rule='last', label='DAgger (dagger)', colour='#E69F00', line=(0, (5, 1, 1, 1, 1, 1)), marker='P'),
    'gail': Algorithm(
        mode='gail', rule='last', label='GAIL', colour='#882255', line=(0, (8, 1)), marker='X', reward_type='nn', reward=CLASSIFIER,
    ),
    'ga': Algorithm(
        mode='ga', rule='last', label='GAIL (2016)', colour='#0072B2', line='-', marker='o', reward_type='nn', reward=CLASSIFIER,
    ),
    'fem': Algorithm(
        mode='ga', rule='last', label='feature expectation matching (fem)', colour='#009E73', line='-.', marker='^',
        reward_type='l2ball', reward=LINEAR,
    ),
    'simplex': Algorithm(
        mode='ga', rule='last', label='game-theoretic (simplex)', colour='#CC79A7', line=':', marker='D',
        reward_type='simplex', reward=LINEAR,
    ),
    'airl': Algorithm(
        mode='ga', rule='last', label='AIRL (airl)', colour='#56B4E9', line=(0, (3, 1, 1, 1)), marker='v',
        reward_type='airl', reward='policyopt.airl:AIRLReward', saves_reward=True,
    ),
}  # fmt: skip


def find(name: str) -> Algorithm | None:
    """The row of an algorithm in a YAML file, whose name begins with the word of the row (`ga_entreg-3` is `ga`, `garden` is none)."""
    word = re.match('[a-z]*', name)
    return ALGORITHMS.get(word[0]) if word else None


def label_of(name: str) -> str:
    """What a picture calls an algorithm: the label of the row of just that name, else the name."""
    return ALGORITHMS[name].label if name in ALGORITHMS else name


def rewards() -> dict[str, str]:
    """{word after --reward_type: 'module:class'}."""
    return {row.reward_type: row.reward for row in ALGORITHMS.values() if row.reward_type and row.reward}


def adversarial_modes() -> list[str]:
    """The modes that learn a reward function."""
    return [name for name, mode in MODES.items() if mode.adversarial]


def probe_iterations(mode: str | None) -> int:
    """How many iterations an estimate measures of a run whose command has this --mode; the fewest for one that is not known."""
    return MODES[mode].probe_iterations if mode in MODES else min(m.probe_iterations for m in MODES.values())


def load(dotted: str) -> Any:
    """The class or function 'module:name'."""
    module, _, name = dotted.partition(':')
    return getattr(importlib.import_module(module), name)
