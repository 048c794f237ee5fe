"""Where episodes end in recorded arrays: what flags, lengths, masks and next observations say, and the refusal where they disagree.

An end e is a number of steps: the last step of the episode is number e − 1.
Letters: R rows of a container, T steps of a row, Do observation dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policyopt.errors import UserError

# what others call the arrays that say where episodes end, and what each says of a step
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
class Row:
    """Steps one after the other: obs (T, Do), or (T + 1, Do) with what the last action led to; acts (T[, Da]).

    said: {array: what it says of each step, or of the row}; `whole`: whether the row is one episode, perhaps filled up on the right;
    `filled`: whether zeros at its end may be a filling, as in arrays that were made before their length was known.
    """

    where: str
    obs: Any
    acts: Any
    rews: Any = None
    next_obs: Any = None
    said: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    filled: bool = False


@dataclass
class Episode:
    """One episode: obs (T, Do), or (T + 1, Do) with what the last action led to; acts (T[, Da]); rews (T,).

    terminated: whether it ended in a terminal state; False: it was truncated; None: nothing says so.
    """

    where: str
    obs: Any
    acts: Any
    rews: Any = None
    terminated: bool | None = None


def numeric(where: str, name: str, x: Any, expected: str = 'numbers') -> np.ndarray:
    """An array of numbers, or UserError."""
    x = np.asarray(x)
    if x.dtype.kind not in 'biuf':
        raise UserError(f'{where}: {name} of type {x.dtype}; expected {expected}')
    return x


def per_step(where: str, name: str, x: Any, num: int, expected: str = 'numbers') -> np.ndarray:
    """An array with one number for each of `num` steps as (num,), or UserError."""
    x = numeric(where, name, x, expected)
    if x.size != num or x.shape[:1] != (num,):
        raise UserError(f'{where}: {name} has shape {x.shape} for {num} actions; expected one for each')
    return x.reshape(num)


def flags_of(where: str, name: str, x: Any, num: int) -> np.ndarray:
    """An array that says 0 or 1 of each of `num` steps, as bool (num,). Raises UserError for anything else."""
    x = per_step(where, name, x, num, '0 or 1 for each step')
    if not np.isin(x, (0, 1)).all():
        raise UserError(f'{where}: {name} holds {x[~np.isin(x, (0, 1))][0]}; expected 0 or 1 for each step')
    return x.astype(bool)


def ends_in_words(ends: np.ndarray) -> str:
    """Ends in words: '3 episodes, 120 steps (30, 50, 40)'."""
    lengths = np.diff(np.concatenate([[0], ends]))
    some = ', '.join(map(str, lengths[:3].tolist())) + (', …' if len(lengths) > 3 else '')
    return f'{len(lengths)} episode{"s" * (len(lengths) != 1)}, {int(lengths.sum())} steps ({some})'


def contradiction(where: str, readings: Mapping[str, np.ndarray]) -> UserError:
    """Two arrays that name different ends; --ends decides."""
    said = '; '.join(f'{name} says {ends_in_words(ends)}' for name, ends in readings.items())
    ways = ' or '.join(f'--ends {name.replace(" and ", ",")}' for name in readings)
    return UserError(f'{where}: {said}. They contradict each other; say which is right: {ways}')


def check_chosen(where: str, chosen: str | None, names: Iterable[str]) -> None:
    """Raise UserError unless each array that --ends names is there and says where episodes end."""
    there = [name for name in EVERY if name in names]
    for name in [] if chosen is None else chosen.split(','):
        if name not in there:
            raise UserError(f"{where}: --ends: no array '{name}' that says where episodes end; there is {', '.join(there) or 'none'}")


def is_padding(row: Row, start: int, num: int) -> bool:
    """Whether the steps from `start` on are filled up: nothing but zeros or NaN, or one step again and again."""
    after = len(row.obs) - num  # 1: obs holds what the last action led to
    arrays = [np.asarray(row.obs)[start + after :], *(np.asarray(x)[start:num] for x in (row.acts, row.rews) if x is not None)]
    if any(x.dtype.kind not in 'biuf' for x in arrays):
        return False
    empty = all(((x == 0) | np.isnan(x.astype(np.float64))).all() for x in arrays)
    frozen = num - start > 1 and all((x == x[:1]).all() for x in arrays)
    return bool(empty or frozen)


def _check_filling(row: Row, ends: np.ndarray, num: int) -> None:
    """Raise UserError where a row begins or ends in steps that may be padding, and nothing says whether they are."""
    arrays = [np.asarray(x)[:num].reshape(num, -1) for x in (row.obs, row.acts, row.rews) if x is not None]
    if not row.filled or any(name in LENGTHS for name in row.said) or any(x.dtype.kind not in 'biuf' for x in arrays):
        return
    closed = any(name in MASKS or name not in (STARTS, *IDS) and np.ravel(x)[-1] for name, x in row.said.items())
    used = np.flatnonzero(np.logical_or.reduce([((x != 0) & ~np.isnan(x)).any(axis=1) for x in arrays]))
    moves = np.flatnonzero(np.logical_or.reduce([(x[1:] != x[:-1]).any(axis=1) for x in arrays])) + 1
    still = moves[-1] if len(moves) else 0  # the first of the steps at the end that are all the same
    doubtful = None
    if ends[-1] == num and not closed:
        if not len(used) or used[-1] < num - 1:
            doubtful = used[-1] + 1 if len(used) else 0, num - 1, 'hold nothing but zeros'
        elif row.whole and num - still > 2:
            doubtful = still, num - 1, 'are all the same'
    if doubtful is None and row.whole and len(used) and used[0] > 1:
        doubtful = 0, used[0] - 1, 'hold nothing but zeros'
    if doubtful:
        first, last, what = doubtful
        raise UserError(
            f'{row.where}: steps {first} to {last} {what}, and nothing says whether they are padding; '
            "cut them off before the arrays are saved, or where they are real, add an array 'lengths'"
        )


def follows(next_T_Do: np.ndarray, obs_T_Do: np.ndarray) -> np.ndarray:
    """(T − 1,) whether next_obs at t is the observation at t + 1, as far as the coarser of both types can say."""
    kinds = [x.dtype for x in (next_T_Do, obs_T_Do) if x.dtype.kind == 'f']
    eps = max((float(np.finfo(kind).eps) for kind in kinds), default=0.0)
    if eps < 1e-10 and any(np.array_equal(x, x.astype(np.float32)) for x in (next_T_Do, obs_T_Do)):
        eps = float(np.finfo(np.float32).eps)  # numbers of single precision that are stored in double
    with np.errstate(invalid='ignore', over='ignore'):  # NaN and infinity follow nothing, and are refused later by their step
        a, b = next_T_Do[:-1].astype(np.float64), obs_T_Do[1:].astype(np.float64)
        scale_Do = np.abs(obs_T_Do).max(axis=0).astype(np.float64) if len(obs_T_Do) else 0.0
        close: np.ndarray = np.abs(a - b) <= 4 * eps * np.maximum(np.abs(a), scale_Do)
    return np.asarray(close.all(axis=tuple(range(1, close.ndim))))


def ends_of(row: Row, num: int, chosen: str | None, notes: list[str]) -> np.ndarray:
    """Every end in a row of `num` steps; steps behind the last one are padding. Raises UserError where nothing or both is said."""
    where, last = row.where, np.array([num])
    said, only_flags = _said_ends(row, num, chosen)
    ends = next(iter(said.values()), None)
    if row.next_obs is not None:
        may_lack = ends is None or only_flags
        ends = _ends_beside_next_obs(row, num, next(iter(said), ''), ends, notes=notes, may_lack=may_lack, is_chosen=chosen is not None)
    elif only_flags and chosen is None and not row.whole and _is_late(row, next(iter(said.values()))):
        name = next(iter(said))
        raise UserError(
            f'{where}: {name} is up at the first step and not at the last, as where it says that an episode begins. Then call it '
            f'episode_starts. --ends {name.replace(" and ", ",")} takes it as it is'
        )
    if ends is None and not row.whole:
        expected = "an array 'dones', 'terminals', 'timeouts' or 'lengths' beside obs and acts"
        raise UserError(f'{where}: nothing says where an episode ends; expected {expected}')
    return last if ends is None else ends


def _said_ends(row: Row, num: int, chosen: str | None) -> tuple[dict[str, np.ndarray], bool]:
    """({array, or all flags: the ends that it names}, whether they are flags that may leave out time limits).

    Raises UserError where two of them contradict each other.
    """
    where, last = row.where, np.array([num])
    said = {name: x for name, x in row.said.items() if chosen is None or name in chosen.split(',')}
    readings: dict[str, np.ndarray] = {}
    flags = {name: flags_of(where, name, x, num) for name, x in said.items() if name in FLAGS}
    all_flags = ' and '.join(flags)
    if flags:
        readings[all_flags] = np.flatnonzero(np.logical_or.reduce(list(flags.values()))) + 1
    for name, x in said.items():
        if name in LENGTHS:
            readings[name] = _checked_lengths(f'{where}: {name}', np.atleast_1d(x), num, row.whole)
        elif name == STARTS:
            readings[name] = np.union1d(np.setdiff1d(np.flatnonzero(flags_of(where, name, x, num)), [0]), last)
        elif name == ENDS and np.asarray(x).dtype.kind in 'iu' and np.asarray(x).shape != (num,):
            readings[name] = _checked_lengths(
                f'{where}: the lengths by {name}', np.diff(np.concatenate([[0], np.ravel(x)])), num, row.whole
            )
        elif name == ENDS:
            readings[name] = np.flatnonzero(flags_of(where, name, x, num)) + 1
        elif name in IDS:
            readings[name] = _ends_of_ids(where, name, x, num, is_chosen=chosen is not None)
        elif name in MASKS:
            readings[name] = _ends_of_mask(row, name, flags_of(where, name, x, num), num)
    cut: dict[str, np.ndarray] = {}
    for name, ends in readings.items():
        full = name in (*LENGTHS, STARTS, *MASKS, *IDS) or (name == ENDS and bool(len(ends)))
        if row.whole and len(ends) and is_padding(row, ends[0], num) and ends[0] < num:
            ends = ends[:1]  # flags may stay up to the end of the padding
        elif not full or not row.whole and (not len(ends) or ends[-1] != num):
            ends = np.union1d(ends, last)
        cut[name] = ends
    for name in list(cut):
        if len(cut) > 1 and not len(readings[name]):
            del cut[name]  # no flag is up, as in an array of time limits alone: it contradicts nothing
    no_limits = all_flags in cut and not any(name in TRUNCATED for name in flags)
    if no_limits and len(cut) > 1 and all(np.isin(readings[all_flags], ends).all() for ends in cut.values()):
        del cut[all_flags]
    first = next(iter(cut), '')
    for name, ends in cut.items():
        if not np.array_equal(ends, cut[first]):
            raise contradiction(where, {first: cut[first], name: ends})
    return cut, no_limits and len(cut) == 1 and all_flags in cut


def _ends_beside_next_obs(
    row: Row, num: int, name: str, ends: np.ndarray | None, *, notes: list[str], may_lack: bool, is_chosen: bool
) -> np.ndarray | None:
    """The ends of a row that has next_obs, of which `name` says `ends`; where it may lack some, a break of next_obs is one too.

    is_chosen: the user has chosen `name`, which decides then.
    """
    where, last = row.where, np.array([num])
    jumps = np.flatnonzero(~follows(row.next_obs, np.asarray(row.obs)[:num])) + 1
    inner = np.setdiff1d(jumps, [] if ends is None else ends)
    if ends is not None and len(ends) > 1 and not np.isin(ends[:-1], jumps).any():
        if len(inner) and not is_chosen:
            raise UserError(
                f'{where}: {name} says {ends_in_words(ends)}, but next_obs goes on there and breaks off elsewhere: '
                f'{ends_in_words(np.union1d(inner, last))}. Is {name} that of the step before? Then call it episode_starts. '
                f'--ends {name.replace(" and ", ",")} takes it as it is'
            )
        notes.append('next_obs goes on into the next episode where one ends, and is not used')
        row.next_obs = None
    elif len(inner) > max(1, num // 2):
        if may_lack and not is_chosen:
            raise UserError(
                f'{where}: next_obs is not the next observation at {len(inner)} of {num} steps; was it normalised, or were the steps '
                'shuffled? --ends ARRAY names the array that says where episodes end, and next_obs is left out then'
            )
        notes.append('where next_obs does not continue the observations of an episode, it is not used')
        row.next_obs = None
    elif may_lack and not is_chosen:
        return np.union1d(last if ends is None else ends, inner)
    elif len(inner):
        notes.append(f'next_obs does not continue at {len(inner)} steps where {name} says that the episode goes on')
    return ends


def _is_late(row: Row, ends: np.ndarray) -> bool:
    """Whether flags may be those of the step before: up at the first step and not at the last, which ends all the same."""
    is_last_up = any(name in FLAGS and bool(np.ravel(x)[-1]) for name, x in row.said.items())
    return len(ends) > 2 and ends[0] == 1 and not is_last_up


def _ends_of_ids(where: str, name: str, x: Any, num: int, is_chosen: bool) -> np.ndarray:
    """The ends where the number of the episode changes; a number that comes back is refused unless the user has chosen."""
    ids = per_step(where, name, x, num)
    starts = np.concatenate([[0], np.flatnonzero(ids[1:] != ids[:-1]) + 1])  # a difference of integers may overflow
    again = np.setdiff1d(np.arange(len(starts)), np.unique(ids[starts], return_index=True)[1])
    if len(again) and not is_chosen:  # of several NaN `starts` has each, and np.unique one
        step = starts[again[0]]
        raise UserError(
            f'{where}: {name} is {ids[step]} again at step {step}, after another episode; expected the steps of an episode side by side. '
            f'Sort the steps by episode, or give each episode a number of its own; --ends {name} takes it as it is'
        )
    return np.append(starts[1:], num)


def _checked_lengths(what: str, lengths: np.ndarray, num: int, whole: bool) -> np.ndarray:
    if lengths.dtype.kind == 'f' and (lengths == np.rint(lengths)).all() and (np.abs(lengths) <= num).all():
        lengths = lengths.astype(np.int64)
    good = lengths.dtype.kind in 'iu' and len(lengths) and (lengths > 0).all()
    if not good or (lengths.sum() > num if whole else lengths.sum() != num):
        wanted = f'a whole number, 1 to {num}' if whole else f'whole numbers that add up to {num}'
        raise UserError(f'{what} are {np.array2string(lengths, threshold=5)}; expected {wanted}')
    return np.cumsum(lengths)


def _ends_of_mask(row: Row, name: str, on_T: np.ndarray, num: int) -> np.ndarray:
    """The end of a row whose mask is 1 on its steps, or 1 up to the step before its last, as 1 − done; the data say which."""
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


def episodes_of(row: Row, chosen: str | None, notes: list[str]) -> list[Episode]:
    """The episodes of a row, with what their last actions led to where obs or next_obs holds it."""
    where, num = row.where, len(row.acts)
    obs = numeric(where, 'observations', row.obs)
    if num == 0:
        raise UserError(f'{where}: has no step; expected at least one')
    if obs.ndim == 0 or len(obs) - num not in (0, 1):
        seen = f'observations of shape {obs.shape} for {num} actions'
        raise UserError(f'{where}: {seen}; expected as many, or one more, and at least one action')
    for name, x in (('rewards', row.rews), ('next_obs', row.next_obs)):
        wanted = num if name == 'rewards' else (num, *obs.shape[1:])
        if x is not None and (numeric(where, name, x).shape[:1] != (num,) or name == 'next_obs' and np.shape(x) != wanted):
            raise UserError(f'{where}: {name} of shape {np.shape(x)} for {num} actions; expected {wanted}')
    ends = ends_of(row, num, chosen, notes)
    if row.whole and len(ends) > 1:
        stream = ends_in_words(ends)
        raise UserError(
            f'{where}: holds {stream} one after the other, so its first axis may be the environment or the time; expected one episode '
            'a row, filled up with zeros. Say which axis is the time: --time_axis 0 or --time_axis 1'
        )
    _check_filling(row, ends, num)
    episodes = []
    for i, (a, b) in enumerate(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)):
        own = obs[a:b]
        if len(obs) > num and (b == num or row.whole):
            own = obs[a : b + 1]
        elif row.next_obs is not None:
            own = np.concatenate([own, row.next_obs[b - 1 : b]])
        alone = row.whole or len(ends) == 1 and where.rpartition(' ')[2].isdecimal()
        rews = None if row.rews is None else row.rews[a:b]
        name = where if alone else f'{where}: episode {i}'
        episodes.append(Episode(name, own, row.acts[a:b], rews, _terminated(row, b, num)))
    return episodes


def _terminated(row: Row, end: int, num: int) -> bool | None:
    """Whether the episode that ends at `end` ended in a terminal state; None where nothing says so."""
    up: dict[str, bool] = {}
    for kind, names in (('terminal', TERMINAL), ('truncated', TRUNCATED), ('done', DONE)):
        for name in names:
            if name in row.said:
                up[kind] = up.get(kind, False) or bool(flags_of(row.where, name, row.said[name], num)[end - 1])
    if 'terminal' in up:
        return up['terminal']
    if up.get('truncated'):
        return False
    if 'done' in up:
        return (True if 'truncated' in up else None) if up['done'] else False
    return None
