"""The checkpoint folder: the stored copy of its experiment, its base seed, and checks before runs are added."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import sys
import time
from collections.abc import Collection, Iterator

from policyopt.errors import RunFailed, UserError
from policyopt.files.atomic import read_utf8, replacing
from policyopt.files.names import is_part, is_run, name_of
from policyopt.files.yamlfile import read_text
from policyopt.pipeline import locks
from policyopt.pipeline import spec as specs
from policyopt.pipeline.spec import Spec
from policyopt.provenance import draw_seed, git_hash


@contextlib.contextmanager
def stage_lock(spec: Spec, name: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock of that name; RunFailed when another process keeps it longer than `wait_s`."""
    folder, deadline = os.path.join(spec.checkpt_dir, 'locks'), time.monotonic() + wait_s
    make_dir(folder)
    while True:
        try:
            lock = locks.acquire_leased(os.path.join(folder, name + '.lock'))
            break
        except locks.Held as held:
            if time.monotonic() >= deadline:
                raise RunFailed(f'{spec.checkpt_dir}: {name} {held}. Try again with --resume when it is over') from held
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def base_seed(spec: Spec) -> int:
    """The seed from which all others are derived: training.seed, else the folder's, else a new one."""
    seed = known_seed(spec)
    return draw_seed() if seed is None else seed


def store_seed(spec: Spec, seed: int) -> None:
    """Write the base seed to seed.txt in the checkpoint folder, so that all later stages agree.

    Raises UserError when the folder holds runs of another seed, RunFailed when another process has just drawn another one.
    """
    path = _seed_path(spec)
    with stage_lock(spec, 'folder', wait_s=30):
        stored = _stored_seed(spec)
        if stored == seed:
            return
        if spec.training.seed is None:
            if stored is not None:
                raise RunFailed(f'{path}: another process has just drawn the base seed {stored}; it is kept, continue with --resume')
            print(f'no training.seed: drew {seed} and stored it in {path}', file=sys.stderr)
        elif stored is not None and held_runs(spec):
            raise UserError(
                f'{path}: the runs in this folder belong to the base seed {stored}, but training.seed is {seed}; '
                f'set it to {stored}, or choose another options.storagedir'
            )
        _store(path, f'{seed}\n')


def known_seed(spec: Spec) -> int | None:
    """training.seed, else the base seed stored in the folder, else None."""
    return _stored_seed(spec) if spec.training.seed is None else spec.training.seed


def _seed_path(spec: Spec) -> str:
    return os.path.join(spec.checkpt_dir, 'seed.txt')


def _stored_seed(spec: Spec) -> int | None:
    path = _seed_path(spec)
    try:
        content = read_utf8(path, 'the base seed of this folder, a whole number', 100).strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch('[0-9]{1,19}', content):
        raise UserError(f'{path}: {content[:40]!r}; expected the base seed of this folder, a whole number')
    return int(content)


def check_place(path: str, setting: str = 'options.storagedir') -> None:
    """Raise UserError unless this folder, which comes from `setting`, is there or could be made; makes nothing."""
    at = os.path.abspath(path)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    if not os.path.isdir(at):
        raise UserError(f'{path}: a file is in the way ({at}); choose another {setting}')
    if not os.access(at, os.W_OK):
        raise UserError(f'{path}: cannot write into {at} (no write permission); choose another {setting}')


def make_dir(path: str) -> None:
    """Make a folder of the experiment, or say in one sentence why that cannot be."""
    check_place(path)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise UserError(f'{path}: cannot make this folder ({e.strerror}); choose another options.storagedir') from e


def held_runs(spec: Spec) -> list[str]:
    """The names of files of runs, finished or not, that the checkpoint folder holds."""
    if not os.path.isdir(spec.checkpt_dir):
        return []
    return sorted(n for n in os.listdir(spec.checkpt_dir) if is_run(n))


def prepare_folder(spec: Spec, seed: int, resume: bool, chosen: Collection[str]) -> None:
    """Prepare the folder for stage 1: refuse one that holds runs unless resumed, and store the experiment next to the runs.

    chosen: ids of the runs to be made now.

    Original: "don't remove this functionality! It's too easy to override your old data files"; there is no way to overwrite.
    """
    folder = spec.checkpt_dir
    make_dir(os.path.join(folder, 'logs'))
    with stage_lock(spec, 'folder', wait_s=30):
        held = held_runs(spec)
        if held and not resume:
            done = sum(not is_part(n) for n in held)
            raise UserError(
                f'{folder}: already holds {done} finished and {len(held) - done} unfinished runs; expected an empty folder. '
                'Add --resume (it skips the finished runs and continues the others), or choose another options.storagedir'
            )
        others = check_same_experiment(spec, seed, chosen)
        locks.remove_leftovers(folder)
        if others:
            print(f'{len(others)} runs in {folder} were made by other commands than {spec.file} has now; they stay', file=sys.stderr)
            _keep_copy(folder, list(others))
        _store(os.path.join(folder, 'pipeline.yaml'), spec.text)
        _note_commit(os.path.join(folder, 'git_hash.txt'))


def check_same_experiment(spec: Spec, seed: int, chosen: Collection[str]) -> dict[str, str]:
    """Raise UserError if a `chosen` run was begun with another command; new tasks, sizes, runs and algorithms may be added.

    Returns {run: the file with its command} of runs that have other commands but are not `chosen`: they stay unchanged.
    """
    # the folder may have been moved: compare the commands as if both experiments had the same folders
    places = {key: getattr(spec.options, key) for key in ('storagedir', 'traj_subdir', 'checkpt_subdir')}
    have, others = {name_of(n) for n in held_runs(spec)}, {}
    if not have:
        return {}
    before = {}
    for path, ids in _copies(spec.checkpt_dir):
        old = specs.load_spec(path)
        old = dataclasses.replace(old, options=dataclasses.replace(old.options, **places))
        before |= {r.id: (r.command.text.split(), path) for r in old.runs(seed) if ids is None or r.id in ids}
    for run in spec.runs(seed):
        words = run.command.text.split()
        old_words, path = before.get(run.id, (words, ''))
        if run.id in have and old_words != words:
            if run.id not in chosen:
                others[run.id] = path
                continue
            was, now = next((pair for pair in zip(old_words, words, strict=False) if pair[0] != pair[1]), ('fewer words', 'more words'))
            raise UserError(
                f"{spec.file}: the command of {run.id} has changed since this folder was begun (first difference: '{was}' is now '{now}'; "
                f'{path} has the old one); expected the same, since one folder holds one experiment. '
                'Undo the change, or choose another options.storagedir'
            )
    return others


def _copies(folder: str) -> list[tuple[str, list[str] | None]]:
    """[(path, run ids)] of the experiments stored in a folder; the newest comes first, with None for all runs.

    An older experiment is kept if runs were made by its commands and the commands have changed since.
    """
    found: list[tuple[str, list[str] | None]] = [(path, None) for path in [os.path.join(folder, 'pipeline.yaml')] if os.path.exists(path)]
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'pipeline.before-*.runs'))):
        found.append((f'{path.removesuffix(".runs")}.yaml', read_utf8(path, 'ids of runs').split()))
    return found


def _keep_copy(folder: str, ids: list[str]) -> None:
    """Keep a copy of the stored experiment for these runs, unless an older copy has them already."""
    copies = _copies(folder)
    ids = [i for i in ids if not any(theirs and i in theirs for _, theirs in copies)]
    if ids:
        name = os.path.join(folder, f'pipeline.before-{len(copies):04d}')
        _store(f'{name}.yaml', read_text(os.path.join(folder, 'pipeline.yaml')))
        _store(f'{name}.runs', '\n'.join(ids) + '\n')  # last, because without it the copy is ignored


def _store(path: str, content: str) -> None:
    """Write a small text file, whole or not at all, unless it already has these contents."""
    if os.path.exists(path):
        if read_utf8(path, 'what this folder remembers of its experiment; move it away') == content:
            return
    try:
        with replacing(path) as tmp, open(tmp, 'w', encoding='utf-8') as f:
            f.write(content)
    except OSError as e:
        raise OSError(e.errno, f'{e.strerror}; finished runs are kept, continue with --resume', path) from e


def _note_commit(path: str) -> None:
    """git_hash.txt: the commit of the first start, and one more line whenever a later start has another."""
    lines = []
    if os.path.exists(path):
        lines = read_utf8(path, 'commits of the code').split()
    commit = git_hash()
    if commit not in lines[-1:]:
        _store(path, '\n'.join([*lines, commit]) + '\n')
