"""Where episodes end in recorded arrays, by flags, lengths, masks, ids and next observations; where they disagree, an error says so.

An end e is a number of steps: the last step of the episode is number e − 1.
Letters: R rows of a container, T steps of a row, Do observation dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from policyopt.errors import UserError

# the names that other programs give to arrays that say where episodes end, and what 1 at a step means
TERMINAL = ('terminal', 'terminals', 'terminations', 'terminated')  # a terminal state follows
TRUNCATED = ('timeouts', 'truncations', 'truncateds', 'truncated')  # a time limit or the recorder ended it
DONE = ('dones', 'done')  # one or the other
STARTS, ENDS = 'episode_starts', 'episode_ends'
LENGTHS = ('lengths', 'lens', 'ep_lens', 'ep_lengths', 'episode_lengths', 'traj_lengths', 'seq_lens')
MASKS = ('masks', 'mask')
IDS = ('episode', 'episode_id', 'episode_ids', 'episode_index', 'traj_id', 'traj_ids', 'trajectory_id', 'trajectory_ids')  # of each step
FLAGS = (*TERMINAL, *TRUNCATED, *DONE)
EVERY = (*FLAGS, STARTS, ENDS, *LENGTHS, *MASKS, *IDS)


@dataclass
class Episode:
    """One episode: obs (T, Do), or (T + 1, Do) with the observation after the last action; acts (T[, Da]); rews (T,).

    terminated: True in a terminal state, False where it was truncated, None where nothing says which.
    """

    where: str
    obs: Any
    acts: Any
    rews: Any = None
    terminated: bool | None = None


@dataclass
class Row(Episode):
    """Steps one after the other, before they are cut into episodes.

    said: {name of an array that says where episodes end: its numbers, for each step or for the row}.
    whole: whether the row is one episode, perhaps padded on the right.
    filled: whether zeros at its end may be padding. They may be where an array was made before the number of steps was known.
    is_chosen: whether the user chose the arrays of `said`. Then they are right even where next_obs contradicts them.
    """

    next_obs: Any = None
    said: Mapping[str, np.ndarray] = field(default_factory=dict)
    whole: bool = False
    filled: bool = False
    is_chosen: bool = False


def numeric(where: str, name: str, x: Any, expected: str = 'numbers') -> np.ndarray:
    """An array of numbers, or UserError."""
    x = np.asarray(x)
    if x.dtype.kind not in 'biuf':
        raise UserError(f'{where}: {name} of type {x.dtype}; expected {expected}')
    return x


def shaped(x: Episode) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(obs (T, Do) or (T + 1, Do), acts (T, Da), rews (T,)) of an episode or a row; missing rewards are 0. Raises UserError."""
    obs, acts = numeric(x.where, 'observations', x.obs), numeric(x.where, 'actions', x.acts)
    if obs.ndim != 2 or obs.shape[1] == 0:
        raise UserError(f'{x.where}: observations of shape {obs.shape}; expected (steps, numbers): one flat vector a step')
    if acts.ndim == 1:
        acts = acts[:, None]
    if acts.ndim != 2 or acts.shape[1] == 0:
        raise UserError(f'{x.where}: actions of shape {acts.shape}; expected (steps,) or (steps, numbers)')
    num = len(acts)
    if num == 0 or len(obs) - num not in (0, 1):
        raise UserError(f'{x.where}: {len(obs)} observations for {num} actions; expected as many, or one more, and at least one step')
    return obs, acts, np.zeros(num) if x.rews is None else per_step(x.where, 'rewards', x.rews, num)


def per_step(where: str, name: str, x: Any, num: int, expected: str = 'numbers') -> np.ndarray:
    """An array with one number for each of `num` steps as (num,), or UserError."""
    x = numeric(where, name, x, expected)
    if x.size != num or x.shape[:1] != (num,):
        raise UserError(f'{where}: {name} has shape {x.shape} for {num} actions; expected one for each')
    return x.reshape(num)


def flags_of(where: str, name: str, x: Any, num: int) -> np.ndarray:
    """An array of 0 or 1 for each of `num` steps, as bool (num,). Raises UserError for anything else."""
    x = per_step(where, name, x, num, '0 or 1 for each step')
    if not np.isin(x, (0, 1)).all():
        raise UserError(f'{where}: {name} holds {x[~np.isin(x, (0, 1))][0]}; expected 0 or 1 for each step')
    return x.astype(bool)


def ends_in_words(ends: np.ndarray) -> str:
    """Ends in words: '3 episodes, 120 steps (30, 50, 40)'."""
    lengths = np.diff(np.concatenate([[0], ends]))
    some = ', '.join(map(str, lengths[:3].tolist())) + (', …' if len(lengths) > 3 else '')
    return f'{len(lengths)} episode{"s" * (len(lengths) != 1)}, {int(lengths.sum())} steps ({some})'


def _filling(row: Row, num: int) -> tuple[np.ndarray, int]:
    """(the steps that hold more than zeros and NaN, the step from which on all are the same).

    A step is its action, its reward, and the observation after it if obs has one more; otherwise its own observation.
    """
    arrays = [x[len(x) - num :].reshape(num, -1) for x in (row.obs, row.acts, row.rews)]
    moves = np.flatnonzero(np.logical_or.reduce([(x[1:] != x[:-1]).any(axis=1) for x in arrays]))
    used = np.flatnonzero(np.logical_or.reduce([((x != 0) & ~np.isnan(x)).any(axis=1) for x in arrays]))
    return used, moves[-1] + 1 if len(moves) else 0


def is_padding(row: Row, start: int, num: int) -> bool:
    """Whether the steps from `start` on look like padding: they hold only zeros or NaN, or the same step several times."""
    used, frozen = _filling(row, num)
    return not (used >= start).any() or num - start > 1 and start >= frozen


def _check_filling(row: Row, ends: np.ndarray, num: int) -> None:
    """Raise UserError where the first or the last steps of a row look like padding, and nothing says whether they are."""
    if not row.filled or any(name in LENGTHS for name in row.said):
        return
    is_last_said = any(name in MASKS or name in (*FLAGS, ENDS) and np.ravel(x)[-1] for name, x in row.said.items())
    is_end_open = ends[-1] == num and not is_last_said
    used, frozen = _filling(row, num)
    first_used, behind_used = (used[0], used[-1] + 1) if len(used) else (0, 0)
    if is_end_open and behind_used < num:
        first, last, what = behind_used, num - 1, 'hold nothing but zeros'
    elif is_end_open and row.whole and num - frozen > 2:
        first, last, what = frozen, num - 1, 'are all the same'
    elif row.whole and first_used > 1:
        first, last, what = 0, first_used - 1, 'hold nothing but zeros'
    else:
        return
    raise UserError(
        f'{row.where}: steps {first} to {last} {what}, and nothing says whether they are padding; '
        "cut them off before the arrays are saved, or where they are real, add an array 'lengths'"
    )


def follows(next_T_Do: np.ndarray, obs_T_Do: np.ndarray) -> np.ndarray:
    """(T − 1,) whether next_obs at t equals the observation at t + 1, up to the rounding of the coarser type of the two."""
    kinds = [x.dtype for x in (next_T_Do, obs_T_Do) if x.dtype.kind == 'f']
    eps = max((float(np.finfo(kind).eps) for kind in kinds), default=0.0)
    if eps < 1e-10 and any(np.array_equal(x, x.astype(np.float32)) for x in (next_T_Do, obs_T_Do)):
        eps = float(np.finfo(np.float32).eps)  # single precision, stored in double
    with np.errstate(invalid='ignore', over='ignore'):  # NaN and infinity equal nothing; they are refused later, with their step
        a, b = next_T_Do[:-1].astype(np.float64), obs_T_Do[1:].astype(np.float64)
        scale_Do = np.abs(obs_T_Do).max(axis=0).astype(np.float64) if len(obs_T_Do) else 0.0
        close: np.ndarray = np.abs(a - b) <= 4 * eps * np.maximum(np.abs(a), scale_Do)
    return np.asarray(close.all(axis=tuple(range(1, close.ndim))))


class _Reading(NamedTuple):
    """What one array says, or all flags together: the ends that it names, and the ends of the row that follow from them."""

    name: str
    named: np.ndarray
    ends: np.ndarray
    may_lack_limits: bool  # these are flags, none of them tells truncation, and no other array tells the time limits


def ends_of(row: Row, num: int, notes: list[str]) -> np.ndarray:
    """Every end in a row of `num` steps; the steps behind the last end are padding.

    Raises UserError where arrays contradict each other, and where nothing says where an episode ends.
    """
    said = _said_ends(row, num)
    ends = None if said is None else said.ends
    is_complete = row.is_chosen or said is not None and not said.may_lack_limits
    if row.next_obs is not None:
        ends, is_used = _ends_beside_next_obs(row, num, said, is_complete, notes)
        if not is_used:
            row.next_obs = None
    elif said is not None and not is_complete and not row.whole:
        _check_not_starts(row, said, num)
    if ends is None and not row.whole:
        expected = "an array 'dones', 'terminals', 'timeouts' or 'lengths' beside obs and acts"
        raise UserError(f'{row.where}: nothing says where an episode ends; expected {expected}')
    return np.array([num]) if ends is None else ends


def _check_not_starts(row: Row, flags: _Reading, num: int) -> None:
    """Raise UserError where flags seem to mark the first step of each episode instead of its last."""
    if len(flags.ends) > 2 and flags.named[0] == 1 and flags.named[-1] < num:
        raise UserError(
            f'{row.where}: {flags.name} is up at the first step and not at the last, as where it says that an episode begins. Then call it '
            f'episode_starts. {_taken_as_it_is(flags.name)}'
        )


def _taken_as_it_is(name: str) -> str:
    return f'--ends {name.replace(" and ", ",")} takes it as it is'


def _said_ends(row: Row, num: int) -> _Reading | None:
    """The reading on which all arrays agree; None where there is no array. Raises UserError where two contradict each other."""
    readings = _readings(row, num)
    # an array that names no end contradicts nothing, as one of time limits alone where none was reached
    readings = [x for x in readings if len(x.named)] or readings[-1:]
    if not readings:
        return None
    if len(readings) > 1 and readings[0].may_lack_limits and all(np.isin(readings[0].named, x.ends).all() for x in readings):
        del readings[0]  # the other arrays name the ends of the flags, and those by time limits too
    first, *others = readings
    for other in others:
        if not np.array_equal(other.ends, first.ends):
            seen = '; '.join(f'{x.name} says {ends_in_words(x.ends)}' for x in (first, other))
            ways = ' or '.join(f'--ends {x.name.replace(" and ", ",")}' for x in (first, other))
            raise UserError(f'{row.where}: {seen}. They contradict each other; say which is right: {ways}')
    return first._replace(may_lack_limits=first.may_lack_limits and not others)


def _readings(row: Row, num: int) -> list[_Reading]:
    """What the arrays of a row say: one reading of all flags together, then one of each other array."""
    readings = []
    flags = {name: x for name, x in row.said.items() if name in FLAGS}
    if flags:
        named = np.flatnonzero(np.logical_or.reduce(list(flags.values()))) + 1
        ends = _ends_of_row(row, named, num, is_flags=True)
        readings.append(_Reading(' and '.join(flags), named, ends, may_lack_limits=not any(name in TRUNCATED for name in flags)))
    for name, x in row.said.items():
        if name not in FLAGS:
            named = _ends_by(row, name, x, num)
            readings.append(_Reading(name, named, _ends_of_row(row, named, num), may_lack_limits=False))
    return readings


def _ends_of_row(row: Row, named: np.ndarray, num: int, is_flags: bool = False) -> np.ndarray:
    """The ends of a row of which an array, or several flags, name these ends."""
    if row.whole and len(named):
        if named[0] < num and is_padding(row, named[0], num):
            return named[:1]  # flags may stay up to the end of the padding
        if not is_flags:
            return named
    return np.union1d(named, [num])


def _ends_by(row: Row, name: str, x: np.ndarray, num: int) -> np.ndarray:
    """The ends that an array names, if it is none of FLAGS."""
    if name in LENGTHS:
        return _checked_lengths(f'{row.where}: {name}', np.atleast_1d(x), num, row.whole)
    if name in IDS:
        return _ends_of_ids(row, name, x, num)
    if name == ENDS and x.dtype.kind in 'iu' and x.shape != (num,):
        return _checked_lengths(f'{row.where}: the lengths by {name}', np.diff(np.ravel(x), prepend=0), num, row.whole)
    on_T = flags_of(row.where, name, x, num)
    if name in MASKS:
        return _ends_of_mask(row, name, on_T, num)
    return np.append(np.flatnonzero(on_T[1:]) + 1, num) if name == STARTS else np.flatnonzero(on_T) + 1


def _ends_beside_next_obs(row: Row, num: int, said: _Reading | None, is_complete: bool, notes: list[str]) -> tuple[np.ndarray | None, bool]:
    """(the ends of a row that has next_obs, whether next_obs is used). Raises UserError where next_obs contradicts what is said.

    next_obs breaks off at a step where it is not the next observation. If what is said may be incomplete, each break is an end too.
    """
    name, ends = ('', None) if said is None else (said.name, said.ends)
    breaks = np.flatnonzero(~follows(row.next_obs, row.obs[:num])) + 1
    unsaid = np.setdiff1d(breaks, [] if ends is None else ends)
    if ends is not None and len(ends) > 1 and not np.isin(ends[:-1], breaks).any():
        if len(unsaid) and not row.is_chosen:
            raise UserError(
                f'{row.where}: {name} says {ends_in_words(ends)}, but next_obs goes on there and breaks off elsewhere: '
                f'{ends_in_words(np.union1d(unsaid, [num]))}. Is {name} that of the step before? Then call it episode_starts. '
                f'{_taken_as_it_is(name)}'
            )
        notes.append('next_obs goes on into the next episode where one ends, and is not used')
        return ends, False
    if len(unsaid) > max(1, num // 2):
        if not is_complete:
            raise UserError(
                f'{row.where}: next_obs is not the next observation at {len(unsaid)} of {num} steps; was it normalised, or were the steps '
                'shuffled? --ends ARRAY names the array that says where episodes end, and next_obs is left out then'
            )
        notes.append('where next_obs does not continue the observations of an episode, it is not used')
        return ends, False
    if not is_complete:
        return np.union1d([num] if ends is None else ends, unsaid), True
    if len(unsaid):
        notes.append(f'next_obs does not continue at {len(unsaid)} steps where {name} says that the episode goes on')
    return ends, True


def _ends_of_ids(row: Row, name: str, x: np.ndarray, num: int) -> np.ndarray:
    """The ends by the number of the episode of each step. Raises UserError if a number comes back, unless the user chose the array."""
    ids = per_step(row.where, name, x, num)
    starts = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1])  # not np.diff, which may overflow
    again = np.setdiff1d(np.arange(len(starts)), np.unique(ids[starts], return_index=True)[1])
    if len(again) and not row.is_chosen:  # several NaN are refused too: each differs from the next, but np.unique keeps one
        step = starts[again[0]]
        raise UserError(
            f'{row.where}: {name} is {ids[step]} again at step {step}, after another episode; expected the steps of an episode side by '
            f'side. Sort the steps by episode, or give each episode a number of its own; {_taken_as_it_is(name)}'
        )
    return np.append(starts[1:], num)


def _checked_lengths(what: str, lengths: np.ndarray, num: int, whole: bool) -> np.ndarray:
    if lengths.dtype.kind == 'f' and (lengths == np.rint(lengths)).all() and (np.abs(lengths) <= num).all():
        lengths = lengths.astype(np.int64)
    good = lengths.dtype.kind in 'iu' and len(lengths) and (lengths > 0).all()
    if not good or (lengths.sum() > num if whole else lengths.sum() != num):
        wanted = f'a whole number, 1 to {num}' if whole else f'whole numbers that add up to {num}'
        raise UserError(f'{what} are {np.array2string(lengths, threshold=5)}; expected {wanted}')
    return np.cumsum(lengths, dtype=np.int64)  # joined with signed ones, unsigned ends would become floats


def _ends_of_mask(row: Row, name: str, on_T: np.ndarray, num: int) -> np.ndarray:
    """The end of a row by its mask: 1 on each step of the episode, or 1 − done, which is 0 on the last. The data say which it is."""
    off = int(np.argmin(on_T)) if not on_T.all() else num
    if not row.whole:
        raise UserError(f"{row.where}: {name} can mean that an episode ends or that a step counts; give 'dones', or 'lengths', instead")
    if off == num:
        return np.array([num])
    if not on_T[off:].any():
        return np.array([off if is_padding(row, off, num) else off + 1])
    if not on_T[off + 1 :].all() or not is_padding(row, off + 1, num):
        again = off + int(np.argmax(on_T[off:]))
        raise UserError(
            f"{row.where}: {name} is 0 at step {off} and 1 at step {again}; expected 1 on an episode's steps and 0 behind its last. "
            'Is its first axis the time? Then swap the first two axes of all arrays'
        )
    return np.array([off + 1])


def episodes_of(row: Row, notes: list[str]) -> list[Episode]:
    """The episodes of a row, each with the observation after its last action if obs or next_obs holds it."""
    has_rews = row.rews is not None
    row.obs, row.acts, row.rews = shaped(row)
    num = len(row.acts)
    if row.next_obs is not None and numeric(row.where, 'next_obs', row.next_obs).shape != (num, row.obs.shape[1]):
        seen = f'next_obs of shape {row.next_obs.shape} for {num} actions'
        raise UserError(f'{row.where}: {seen}; expected {(num, row.obs.shape[1])}')
    row.said = _said_by_step(row, num)
    ends = ends_of(row, num, notes)
    if row.whole and len(ends) > 1:
        stream = ends_in_words(ends)
        raise UserError(
            f'{row.where}: holds {stream} one after the other, so its first axis may be the environment or the time; expected one episode '
            'a row, filled up with zeros. Say which axis is the time: --time_axis 0 or --time_axis 1'
        )
    _check_filling(row, ends, num)
    episodes = []
    for i, (a, b) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        own = row.obs[a:b]
        if len(row.obs) > num and (b == num or row.whole):
            own = row.obs[a : b + 1]
        elif row.next_obs is not None:
            own = np.concatenate([own, row.next_obs[b - 1 : b]])
        name = row.where if len(ends) == 1 else f'{row.where}: episode {i}'
        episodes.append(Episode(name, own, row.acts[a:b], row.rews[a:b] if has_rews else None, _terminated(row, b)))
    return episodes


def _said_by_step(row: Row, num: int) -> dict[str, np.ndarray]:
    """`said` for each step, FLAGS as bool (num,). The one number of a whole episode moves to its last step; its id is left out."""
    said = {}
    for name, x in row.said.items():
        if row.whole and x.size == 1 and name in IDS:
            continue
        if row.whole and x.size == 1 and name not in LENGTHS:
            x = np.append(np.zeros(num - 1, x.dtype), x)
        said[name] = flags_of(row.where, name, x, num) if name in FLAGS else x
    return said


def _terminated(row: Row, end: int) -> bool | None:
    """Whether the episode whose end is `end` ended in a terminal state; None where nothing says so."""

    def is_up(names: Iterable[str]) -> bool | None:
        flags = [bool(row.said[name][end - 1]) for name in names if name in row.said]
        return any(flags) if flags else None

    terminal, truncated, done = map(is_up, (TERMINAL, TRUNCATED, DONE))
    if terminal is not None:
        return terminal
    if truncated:
        return False
    return None if done and truncated is None else done
