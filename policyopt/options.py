"""The options of a training run: one definition for the command lines, for training.py and for Python. It needs no torch.

A frozen dataclass for each trainer holds its options under the names, in the order and with the defaults of 2016.
"""

import argparse
import dataclasses
import json
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from policyopt import algorithms
from policyopt.command_line import Parser
from policyopt.cores import MAX_WORKERS
from policyopt.errors import Unfit, UserError, closest

LARGEST = 1.7976931348623157e308  # of float64
MOST = 10**9
AT_LEAST_1, FRACTION = (1, MOST, f'1 or more, up to {MOST}'), (0, 1, '0 to 1')
ABOVE_0, FROM_0 = (2.2250738585072014e-308, LARGEST, 'above 0'), (0, LARGEST, '0 or more')
MAX_ITER = 1000000  # iterations of a training that is not told how many
MAX_TRAJS = 1_000_000  # trajectories of one file, or of one evaluation
WORKERS = (1, MAX_WORKERS, f'1 to {MAX_WORKERS}')
SEEDS = (0, 2**32 - 1, '0 to 4294967295')
CLONING, DAGGER, GAIL, AIRL, CLASSIFIER = (
    ('mode', ('bclone',)),
    ('mode', ('dagger',)),
    *(('reward_type', kinds) for kinds in (('nn',), ('airl',), ('nn', 'airl'))),
)
LINEAR = 'reward_type', ('l2ball', 'simplex')
ADVERSARIAL = ('mode', tuple(algorithms.adversarial_modes()))
Range = tuple[float, float, str]  # smallest and largest value, and both in words
# The groups of --help: title, the modes that use them (nothing: all), options.
GROUPS = (
    ('required', '', 'mode data env_name'),
    ('the run', '', 'log seed max_iter resume save_freq print_freq eval_every device dtype'),
    ('demonstrations', '', 'limit_trajs data_subsamp_freq obsnorm_mode enable_obsnorm'),
    ('environment and sampling', 'ga, gail, dagger', 'max_traj_len min_total_sa sim_batch_size max_envs clip_actions stop_at_return'),
    ('policy', '', 'policy_hidden_spec tiny_policy init_policy'),
    ('policy step', 'ga, gail', 'discount lam policy_max_kl policy_final_kl policy_cg_damping policy_ent_reg init_iterations'),
    ('value function', 'ga, gail', 'vf_steps vf_max_kl vf_cg_damping vf_include_time no_vf bootstrap_time_limit'),
    (
        'reward function',
        'ga, gail',
        'reward_type favor_zero_expert_reward reward_shift reward_lr reward_steps reward_hidden_spec reward_grad_penalty '
        'reward_ent_reg_weight reward_include_time save_reward',
    ),
    ('AIRL, --reward_type airl', 'ga, gail', 'airl_state_only airl_absorbing'),
    ('cloning', 'bclone, dagger', 'bclone_lr bclone_batch_size bclone_train_frac bclone_eval_freq num_actions'),
    ('DAgger', 'dagger', 'expert dagger_rounds dagger_round_trajs dagger_beta dagger_beta_schedule dagger_label'),
    ('learned reward', '', 'reward'),
    ('other', '', 'verbose'),
)
NO_EFFECT = ('bclone_eval_ntrajs', 'reward_max_kl', 'plot_freq', 'use_tanh')  # in command lines of 2016; --help leaves them out
ENV = 'gymnasium id, a 2016 name, or package.module:EnvId'
METAVARS = {'env_name': 'ENV', 'data': 'TRAJS.h5', 'log': 'RUN.h5', 'reward': 'RUN.h5', 'device': 'DEVICE'}
RELU_32 = '[{"type": "fc", "n": 32}, {"type": "nonlin", "func": "relu"}, {"type": "fc", "n": 32}, {"type": "nonlin", "func": "relu"}]'


class _ByMode:
    """Stands for the default value of the mode, which is known when the options are made."""

    def __repr__(self) -> str:
        return "<the mode's default>"


BY_MODE = _ByMode()


def option(default: Any, help: str, allowed: Range | None = None, choices: Any = None, required: bool = False,
           flags: tuple[str, ...] = (), only: tuple[str, tuple[str, ...]] | None = None, gail: Any = BY_MODE) -> Any:  # fmt: skip
    """A field of an options class.

    choices: a list, or a function that gives the choices of the moment. required: on the command line; flags: further names there;
    only: an option and the values of it that this one goes with.
    default: as in 2016; gail: the default of mode gail, where it is another one.
    """
    metadata = {'help': help, 'allowed': allowed, 'choices': choices, 'required': required, 'flags': flags, 'only': only}
    metadata |= {'default': default, 'by_mode': {} if gail is BY_MODE else {'gail': gail}}
    return dataclasses.field(default=default if gail is BY_MODE else BY_MODE, metadata=metadata)


def default_of(field: dataclasses.Field, mode: str | None) -> Any:
    """What an option is in a mode when it is not given."""
    return field.metadata['by_mode'].get(mode, field.metadata['default'])


def choices_of(field: dataclasses.Field) -> list:
    """The values that an option may have; empty where any of its type may."""
    given = field.metadata['choices']
    choices: Any = given() if callable(given) else given
    return list(choices or ())


def type_of(field: dataclasses.Field) -> Any:
    """int, float, str or bool: what a field holds when it is not None."""
    return next(t for t in (typing.get_args(field.type) or (field.type,)) if t is not types.NoneType)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that imitate_mj.py and run_rl_mj.py share. Raises UserError for a value of another type or outside its range."""

    env_name: str | None = option(None, ENV, required=True, flags=('--env',))
    max_traj_len: int | None = option(None, "steps per episode at most (default: the env's time limit)", AT_LEAST_1)
    policy_hidden_spec: str | None = option(None, 'JSON list of hidden layers (default: two of 100 tanh units)')
    tiny_policy: bool = option(False, 'two hidden layers of 64 tanh units')
    discount: float = option(0.995, 'discount factor γ of rewards', FRACTION, gail=0.97)
    lam: float = option(0.97, 'λ of generalised advantage estimation', FRACTION)
    max_iter: int | None = option(None, f'default: {MAX_ITER}, or with --resume what the run was started with', AT_LEAST_1)
    policy_max_kl: float = option(0.01, 'largest mean KL divergence of a policy step', ABOVE_0, gail=0.04)
    policy_cg_damping: float = option(0.1, "added to the curvature of the policy's step", FROM_0)
    vf_max_kl: float = option(0.01, "largest mean KL divergence of the value function's step", ABOVE_0)
    vf_cg_damping: float = option(0.1, "added to the curvature of the value function's step", FROM_0)
    sim_batch_size: int | None = option(None, '1: one process; default: worker processes where they pay', WORKERS)
    min_total_sa: int = option(50000, 'state-action pairs per iteration, at least', AT_LEAST_1, gail=2000)
    print_freq: int = option(1, 'iterations between printed lines', AT_LEAST_1)
    save_freq: int = option(20, 'iterations between snapshots', AT_LEAST_1)
    log: str | None = option(None, 'HDF5 file of the run; default: keep nothing')
    seed: int | None = option(None, 'default: drawn, printed and stored; equal seeds give equal bits on one kind of processor', SEEDS)
    device: str = option('cpu', 'cpu or cuda')
    dtype: str = option('float64', 'precision of the nets', choices=['float64', 'float32'])
    resume: bool = option(False, 'continue LOG.part bit for bit; a complete LOG is left alone')
    verbose: bool = option(False, 'show a traceback on errors')
    vf_steps: int = option(1, 'steps of the value function per iteration', AT_LEAST_1, only=ADVERSARIAL, gail=5)
    bootstrap_time_limit: int = option(
        0, '1: the value of the state at a time limit counts; 0: a time limit is a real end, as in 2016', choices=[0, 1], only=ADVERSARIAL
    )
    stop_at_return: float | None = option(
        None, 'end the run when the mean true return of 10 iterations reaches this', (-LARGEST, LARGEST, 'finite'), only=ADVERSARIAL
    )
    eval_every: int = option(
        0, 'iterations between evaluations: 10 episodes of most likely actions, column evalret; 0: none', (0, MOST, f'0 to {MOST}')
    )
    max_envs: int | None = option(None, 'environments made at most; 1 where only one can exist (same results)', AT_LEAST_1)
    clip_actions: int = option(0, '1: the environment and the classifier get actions clipped to the action box', choices=[0, 1], gail=1)

    left_out: typing.ClassVar[set[str]]  # of this object: the options that were not given and follow the mode

    def __post_init__(self):
        mode = getattr(self, 'mode', None)
        left_out = {field.name for field in dataclasses.fields(self) if getattr(self, field.name) is BY_MODE}
        object.__setattr__(self, 'left_out', left_out)
        for field in dataclasses.fields(self):
            value = default_of(field, mode) if field.name in left_out else getattr(self, field.name)
            object.__setattr__(self, field.name, validated(field, value))

    def as_json(self) -> str:
        """The options as they are stored with a run: without those that only other modes or rewards have."""
        return json.dumps({f.name: getattr(self, f.name) for f in dataclasses.fields(self) if self.has(f)})

    def has(self, field: dataclasses.Field) -> bool:
        """Does an option go with the others, or only with another mode or reward?"""
        only = field.metadata['only']
        return only is None or getattr(self, only[0], only[1][0]) in only[1]  # run_rl_mj.py has no modes


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ImitationOnly:
    mode: str = option('ga', 'behavioural cloning, DAgger, or adversarial imitation', choices=[*algorithms.MODES], required=True)
    data: str | None = option(None, 'expert trajectories (HDF5)', required=True)
    limit_trajs: int | None = option(None, 'use the first N trajectories only', AT_LEAST_1)
    data_subsamp_freq: int = option(1, 'keep every N-th pair of a trajectory (dagger: of those it plays too)', AT_LEAST_1)
    obsnorm_mode: str = option('expertdata', 'what observations are normalised with', choices=['none', 'expertdata', 'online'])
    bclone_lr: float = option(1e-3, "Adam's step size in cloning", FROM_0)
    bclone_batch_size: int = option(128, 'expert pairs per step of cloning', AT_LEAST_1)
    bclone_eval_ntrajs: int = option(20, 'kept from 2016; cloning does no rollouts')
    bclone_eval_freq: int = option(1000, 'iterations between validations, snapshots and printed lines', AT_LEAST_1)
    bclone_train_frac: float = option(0.7, 'share of the expert pairs to train with; the others validate', FRACTION)
    num_actions: int | None = option(
        None, 'bclone without --env_name: actions of a finite task (default: up to the largest in the data)', AT_LEAST_1, only=CLONING
    )  # fmt: skip
    no_vf: int = option(0, '1: baseline is the mean return of each time step', choices=[0, 1])
    policy_ent_reg: float = option(0.0, 'causal entropy bonus', FROM_0)
    reward_type: str = option('nn', 'GAIL, FEM, game-theoretic, AIRL', choices=algorithms.rewards)
    reward_max_kl: float = option(0.01, 'kept from 2016; no reward uses it')
    reward_lr: float = option(0.01, "Adam's step size of the classifier", FROM_0, gail=0.001)
    reward_steps: int = option(1, 'Adam steps of the classifier per iteration', AT_LEAST_1, gail=8)
    reward_ent_reg_weight: float = option(0.001, "weight of the classifier's entropy", FROM_0)
    reward_include_time: int = option(0, '1: the reward function sees the time', choices=[0, 1])
    favor_zero_expert_reward: int | None = option(
        0, "1 for tasks that end on success (gail: 1 where the expert's episodes end before the time limit); no effect on airl",
        choices=[0, 1], gail=None,
    )  # fmt: skip
    plot_freq: int = option(0, '0 only; use showlog.py', (0, 0, '0, and run scripts/showlog.py on the log instead'))
    airl_state_only: int = option(0, '1: the reward of airl is one of the state alone, which may transfer', choices=[0, 1], only=AIRL)
    airl_absorbing: int = option(1, '1: to airl terminal states last to the horizon; 0: nothing follows them', choices=[0, 1], only=AIRL)
    save_reward: int | None = option(None, '1: snapshots hold the reward function too (default: only those of airl)', choices=[0, 1])
    expert: str | None = option(None, 'dagger: the policy that labels, FILE.h5/snapshots/…; needed', only=DAGGER)
    dagger_rounds: int = option(
        10, 'dagger: rounds of play and labels after the demonstrations, evenly spaced over --max_iter; 0 is bclone',
        (0, MOST, f'0 to {MOST}'), only=DAGGER,
    )  # fmt: skip
    dagger_round_trajs: int = option(1, 'dagger: episodes played and labelled in each round', AT_LEAST_1, only=DAGGER)
    dagger_beta: float = option(
        0.0, 'dagger: chance β that the expert acts at a step of round 1; 0: never, in any round', FRACTION, only=DAGGER
    )
    dagger_beta_schedule: str = option(
        'exponential',
        'dagger: β of round r, dagger_beta^r or max(0, 1 − r(1 − dagger_beta))',
        choices=['exponential', 'linear'],
        only=DAGGER,
    )
    dagger_label: str = option(
        'mean', "dagger: labels are the expert's most likely actions, or drawn", choices=['mean', 'sampled'], only=DAGGER
    )
    reward_hidden_spec: str | None = option(
        None, "JSON list of the classifier's hidden layers (default: as the policy's; gail: 32-32 ReLU)", only=CLASSIFIER, gail=RELU_32
    )
    reward_grad_penalty: float = option(
        0.0, "weight of (‖∇s‖ − 1)², s the classifier's score between policy and expert pairs", FROM_0, only=GAIL, gail=0.5
    )
    init_policy: str | None = option(
        None,
        'start from this policy, FILE.h5/snapshots/…; of a whole RUN.h5 the last, of cloning the one with the highest valacc; '
        'a RUN.h5 of the same mode brings its classifier and value function too',
    )
    init_iterations: int = option(
        10,
        'first iterations that only fit classifier and value function to --init_policy',
        (0, MOST, f'0 to {MOST}'),
        only=ADVERSARIAL,
        gail=0,
    )
    policy_final_kl: float | None = option(
        None, 'policy_max_kl falls to this by the last iteration; not given: it stays', ABOVE_0, only=ADVERSARIAL, gail=0.004
    )
    reward_shift: str = option(
        'running', 'l2ball, simplex: the bound that gives rewards their sign is that of all rewards so far, of the batch, or there is none',
        choices=['running', 'batch', 'none'], only=LINEAR,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class _RLOnly:
    enable_obsnorm: int = option(1, '0: observations are not normalised', choices=[0, 1])
    use_tanh: int = option(0, 'kept from 2016; the built-in nets are tanh already', choices=[0, 1])
    vf_include_time: int = option(1, '0: the value function does not see the time', choices=[0, 1])
    reward: str | None = option(None, 'RUN.h5, whose learned reward is optimised instead of the true one (see --save_reward)')


# A dataclass takes the fields of its last base first: the order of the command lines of 2016.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImitationOptions(CommonOptions, _ImitationOnly):
    """Options of imitate_mj.py: behavioural cloning, DAgger and adversarial imitation.

    Original: section "Commands and their options" of the 2016 code, same names and defaults. Differs: seed, device, dtype, resume, and
    all options of DAgger.
    Raises UserError for a value of another type or outside its range.
    """

    env_name: str | None = option(None, f'{ENV}; bclone can do without', flags=('--env',))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RLOptions(CommonOptions, _RLOnly):
    """Options of run_rl_mj.py: TRPO on the true reward. Raises UserError for a value of another type or outside its range."""

    min_total_sa: int = option(100000, 'state-action pairs per iteration, at least', AT_LEAST_1)


AnyOptions = typing.TypeVar('AnyOptions', bound=CommonOptions)


def validated(field: dataclasses.Field, value: Any) -> Any:
    """The value of a field as its own type; raises Unfit "reward_lr -1; expected a number, 0 or more"."""
    kind, allowed, choices = type_of(field), field.metadata['allowed'], choices_of(field)
    if value is None and None in (field.metadata['default'], *field.metadata['by_mode'].values()):
        return None
    if kind is str:
        good = isinstance(value, str)
    elif isinstance(value, bool):
        good = kind is bool or choices == [0, 1]
    else:
        good = isinstance(value, numbers.Integral if kind is int else numbers.Real) and kind is not bool
    if good:
        value = kind(value)  # pyright: ignore[reportArgumentType] (checked above)
        good = (not choices or value in choices) and (not allowed or allowed[0] <= value <= allowed[1])  # in this order, NaN is rejected
    if not good:
        words = {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a text'}[kind]
        words += f', {allowed[2]}' if allowed else ''
        raise Unfit(f'{field.name} {value!r}', ' or '.join(map(repr, choices)) if choices else words)
    return value


def check_together(options: CommonOptions) -> None:
    """Raise Unfit for options that contradict each other."""
    if options.bootstrap_time_limit and getattr(options, 'no_vf', 0):
        raise Unfit('--bootstrap_time_limit 1, which needs a value function, with --no_vf 1', 'one of them')
    if options.tiny_policy and options.policy_hidden_spec is not None:
        raise Unfit('--tiny_policy and --policy_hidden_spec, which both choose the nets', 'one of them')
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not options.has(field) and value != default_of(field, getattr(options, 'mode', None)):
            name, wanted = field.metadata['only']
            raise Unfit(f'--{field.name} {value} with --{name} {getattr(options, name)}', f'it only with --{name} {" or ".join(wanted)}')


def option_names(cls: type[CommonOptions]) -> list[str]:
    """The names of a class's options, in their order."""
    return [field.name for field in dataclasses.fields(cls)]


def with_changes(options: AnyOptions, changes: Mapping[str, Any]) -> AnyOptions:
    """Options with other values; raises UserError for a name that is none of them."""
    known = option_names(type(options))
    for name in changes:
        if name not in known:
            raise UserError(f"there is no option '{name}'.{closest(name, known)} Options: {', '.join(known)}")
    given = {name: getattr(options, name) for name in known if name not in options.left_out}
    return type(options)(**(given | dict(changes)))  # what was not given follows a new mode


def add_options(parser: Parser, cls: type[CommonOptions]) -> None:
    """Give an argparse parser every option of a class, in the groups of --help."""
    fields, has_modes = {field.name: field for field in dataclasses.fields(cls)}, cls is ImitationOptions
    for title, modes, listed in GROUPS:
        group = parser.add_argument_group(f'{title} ({"mode" if modes.isalpha() else "modes"} {modes})' if modes and has_modes else title)
        for field in [fields.pop(name) for name in listed.split() if name in fields]:
            _add_option(group, field, cls)
        if title == 'other':
            group.add_argument('-h', '--help', action='help', help='show this text')
    for field in fields.values():
        _add_option(parser, field, cls)


def _add_option(group: Any, field: dataclasses.Field, cls: type[CommonOptions]) -> None:
    about, kind = field.metadata, type_of(field)
    words: dict[str, Any] = {'help': about['help'], 'required': about['required']}
    if kind is bool:
        words |= {'action': 'store_true'}
    else:
        words |= {'type': kind, 'choices': choices_of(field) or None, 'default': argparse.SUPPRESS}
        if not words['choices']:
            file = 'JSON' if field.name.endswith('_spec') else 'FILE'
            words['metavar'] = METAVARS.get(field.name, {int: 'N', float: 'X'}.get(kind, file))
        defaults = [(None, about['default']), *(about['by_mode'].items() if cls is ImitationOptions else ())]
        shown = [f'{mode + " " if mode else ""}{value}' for mode, value in defaults if value is not None and len(str(value)) < 30]
        if shown and not about['required']:
            words['help'] += f' (default: {"; ".join(shown)})'
    if field.name in NO_EFFECT:
        words['help'] = argparse.SUPPRESS
    group.add_argument(f'--{field.name}', *about['flags'], **words)


def parse_options(prog: str, doc: str | None, cls: type[AnyOptions], argv: list[str]) -> AnyOptions:
    """The options of a command line, of a command with the help text `doc`. Raises UserError, which names the flag."""
    needed = '--mode MODE --data TRAJS.h5 [--env_name ENV]' if cls is ImitationOptions else '--env_name ENV'
    parser = Parser(prog, doc, usage=f'{prog} {needed} [options]', add_help=False, verbose=False)
    add_options(parser, cls)
    values = vars(parser.parse_args(argv))
    try:
        return cls(**values)
    except UserError as e:
        raise UserError(f'--{e}') from e
