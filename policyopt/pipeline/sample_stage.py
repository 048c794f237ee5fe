"""Stage 0: the expert's trajectories, and the returns of a policy that has learned nothing.

The random policy is that of the paper: finite actions are equally likely, continuous ones uniform in the task's action box.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from policyopt.errors import RunFailed, UserError
from policyopt.files.atomic import check_link
from policyopt.files.hdf5 import attr_text, numbers, open_h5, set_attrs, write_h5
from policyopt.files.results_file import mean_sd
from policyopt.pipeline.spec import Spec, Task, find_policy
from policyopt.provenance import derive_seed, provenance
from policyopt.shipped import as_typed

if TYPE_CHECKING:
    from policyopt.policies import Policy
    from policyopt.sampling.mdp import MDP
    from policyopt.trajectories import TrajBatch

    ExpertPlan = tuple[list[tuple[str, int]], dict[str, MDP], dict[str, Policy]]  # returned by check_all

_WHAT = 'an expert trajectory file (obs_B_T_Do, a_B_T_Da, r_B_T, len_B)'


def check_sampled(spec: Spec, sets: Iterable[tuple[str, int]]) -> None:
    """Raise UserError unless the trajectory files of these expert sets, (task name, set index), are there."""
    for name, dataset in sets:
        path = spec.traj_path(name, dataset)
        if not os.path.exists(path):
            make = f'Make them with: {as_typed(spec.command("0_sampletrajs --resume"))}'
            way = f"Put your recordings there, or give the task '{name}' a policy" if spec.task(name).policy is None else make
            raise UserError(f'{path}: no such file; expected the expert trajectories. {way}')


def check_all(spec: Spec, wanted: list[tuple[str, int]], seed: int | None, resume: bool) -> ExpertPlan:
    """Check everything that sampling the expert sets [(task name, set index)] needs, and load it, before anything is written.

    seed: None if not drawn yet. Returns the argument of sample_all: the sets to make, {task: MDP} and {task: policy}.
    """
    from policyopt.evaluation import load_policy
    from policyopt.sampling.mdp import MDP

    todo = []
    for name, dataset in wanted:
        path = spec.traj_path(name, dataset)
        check_link(path, 'the trajectories')
        if os.path.exists(path):
            if not resume:
                way = 'keep it with --resume, or choose another options.storagedir'
                raise UserError(f'{path}: exists already, and trajectories are never overwritten; {way}')
            num = check_trajs(spec, name, dataset, seed)
            is_whole = num >= spec.training.full_dataset_num_trajs
            print(f'{path}: {"kept" if is_whole else f"its {num} trajectories are kept, and more are added"}', file=sys.stderr)
            if is_whole:
                continue
        todo.append((name, dataset))
    mdps = {name: MDP(spec.task(name).env) for name in dict.fromkeys(name for name, _ in wanted)}
    for name in mdps:
        check_random(spec, spec.task(name))
    policies = {name: load_policy(expert_path(spec, spec.task(name)), mdps[name]) for name in dict.fromkeys(name for name, _ in todo)}
    return todo, mdps, policies


def sample_all(spec: Spec, plan: ExpertPlan, seed: int) -> None:
    """Sample the expert sets that `check_all` has planned and the random returns of their tasks; print the returns."""
    todo, mdps, policies = plan
    for name, dataset in todo:
        path = spec.traj_path(name, dataset)
        grows = os.path.exists(path)
        if grows and check_trajs(spec, name, dataset, seed) >= spec.training.full_dataset_num_trajs:
            continue  # another process has made it after the plan was made
        its_seed = set_seed(seed, name, dataset)
        _sample_expert(spec, spec.task(name), policies[name], mdp=mdps[name], path=path, seed=its_seed, grows=grows)
    for name, mdp in mdps.items():
        random_returns(spec, spec.task(name), seed, mdp)


def set_seed(seed: int, task_name: str, dataset: int) -> int:
    return derive_seed(seed, 'expert', task_name, dataset)


def expert_path(spec: Spec, task: Task) -> str:
    """The path of the expert's policy; UserError if the task names none or its file is missing."""
    i = spec.tasks.index(task)
    if task.policy is None:
        raise UserError(
            f"{spec.file}: tasks[{i}]: the key 'policy' is missing; expected the expert that 0_sampletrajs lets play, or your own data in "
            f'{" and ".join(spec.traj_path(task.name, i) for i in range(spec.training.datasets))}, kept with --resume'
        )
    path = find_policy(task.policy)
    if path is None:
        expected = 'FILE.h5/snapshots/iter0000100 of a trained policy'
        raise UserError(f"{spec.file}: tasks[{i}].policy: no file for '{task.policy}'; expected {expected}")
    return path


def _sample_expert(spec: Spec, task: Task, policy: Policy, mdp: MDP, path: str, seed: int, grows: bool) -> None:
    from policyopt.evaluation import sample_episodes
    from policyopt.files.trajectory_file import save_trajs
    from policyopt.rl import mean_entropy

    t = spec.training
    trajs = sample_episodes(
        policy, mdp, t.full_dataset_num_trajs, seed, deterministic=t.deterministic_expert, max_traj_len=task.max_traj_len
    )
    attrs = {'env_name': task.env, 'policy': task.policy, 'deterministic': t.deterministic_expert, 'seed': seed, 'task': task.name}
    if grows:
        _check_begins_with(trajs, path)
    save_trajs(path, trajs, attrs | provenance(), replace=grows)
    print(
        f'{task.name}: expert return {mean_sd(trajs.returns, 2)}, mean reward {trajs.r.stacked.mean():.4f}, '
        f'length {mean_sd(trajs.lengths, 2)}, entropy {mean_entropy(policy, trajs.adist):.4f} ({len(trajs)} trajectories in {path})',
        flush=True,
    )


def _check_begins_with(trajs: TrajBatch, path: str) -> None:
    """Raise RunFailed unless the first of these trajectories are those of a file, to the bit."""
    from policyopt.files.trajectory_file import load_trajs

    old = load_trajs(path)
    num = int(old.lengths.sum())
    same = np.array_equal(trajs.lengths[: len(old)], old.lengths)
    for ours, theirs in ((trajs.obs, old.obs), (trajs.a, old.a), (trajs.r, old.r)):
        if not same or not np.array_equal(ours.stacked[:num], theirs.stacked):
            way = 'the file stays as it is. Add trajectories where it was made, or with the versions that made it'
            raise RunFailed(f'{path}: its {len(old)} trajectories come out with other bits here, so none can be added; {way}')


def check_trajs(spec: Spec, name: str, dataset: int, seed: int | None = None) -> int:
    """The number of trajectories of an expert set; UserError if they are too few, or were sampled for another experiment.

    seed: the base seed; if given, our own file may be too short, because stage 0 can add trajectories, but must have this seed.
    """
    task, path = spec.task(name), spec.traj_path(name, dataset)
    with open_h5(path, _WHAT) as h5:
        num = len(numbers(h5, 'len_B', _WHAT))
        said = {key: attr_text(h5.root, key) for key in ('env_name', 'policy', 'deterministic', 'seed')}
    ours = task.policy is not None and said['seed'] is not None
    if num < spec.training.full_dataset_num_trajs and not (ours and seed is not None):
        way = f'add more with: {as_typed(spec.command("0_sampletrajs --resume"))}' if ours else 'lower that, or put more into the file'
        wanted = f'training.full_dataset_num_trajs is {spec.training.full_dataset_num_trajs}'
        raise UserError(f'{path}: holds {num} trajectories, but {wanted}; {way}')
    expected = {'env_name': task.env}
    if task.policy is not None:  # else the data are the user's own, from any source
        expected |= {'policy': task.policy, 'deterministic': str(spec.training.deterministic_expert).lower()}
        expected |= {} if seed is None else {'seed': str(set_seed(seed, name, dataset))}
    for key, value in expected.items():
        if said[key] is not None and said[key] != value:
            raise UserError(
                f"{path}: was sampled with {key} '{said[key]}', but {spec.file} now asks for '{value}'; expected the same. "
                'Undo the change, move the file away and sample again, or choose another storagedir'
            )
    return num


def unfit_sets(spec: Spec, sets: Iterable[tuple[str, int]]) -> list[str]:
    """A sentence for each existing trajectory file that cannot be used: it is too short, or belongs to another experiment."""
    reasons = []
    for name, dataset in sets:
        if os.path.exists(spec.traj_path(name, dataset)):
            try:
                check_trajs(spec, name, dataset)
            except UserError as e:
                reasons.append(str(e))
    return reasons


def expert_returns(spec: Spec, path: str) -> tuple[np.ndarray, np.ndarray]:
    """(returns, lengths) of the first full_dataset_num_trajs trajectories of a file."""
    num = spec.training.full_dataset_num_trajs
    with open_h5(path, _WHAT) as h5:
        r_B_T, len_B = numbers(h5, 'r_B_T', _WHAT)[:num], numbers(h5, 'len_B', _WHAT)[:num]
    if len(len_B) < num:
        raise UserError(f'{path}: holds {len(len_B)} trajectories, but training.full_dataset_num_trajs is {num}; lower that, or add more')
    mask_B_T = np.arange(r_B_T.shape[1]) < len_B[:, None]
    return np.where(mask_B_T, r_B_T, 0.0).sum(axis=1), len_B.astype(np.int64)


def check_random(spec: Spec, task: Task) -> tuple[np.ndarray, np.ndarray] | None:
    """(returns, lengths) in the file of the random policy, None without one; UserError if it belongs to another experiment."""
    path, what = spec.random_path(task.name), 'the returns of the random policy'
    check_link(path, what)
    if not os.path.exists(path):
        return None
    with open_h5(path, what) as h5:
        env, returns_B, len_B = attr_text(h5.root, 'env_name'), *(numbers(h5, n, what) for n in ('returns_B', 'len_B'))
    num = spec.options.eval_num_trajs
    if env != task.env or returns_B.shape != (num,) or len_B.shape != (num,):
        seen = f"holds {len(returns_B)} episodes of env '{env}'"
        raise UserError(f"{path}: {seen}, but {spec.file} asks for {num} of '{task.env}'; delete it to measure again")
    return returns_B, len_B


def random_returns(spec: Spec, task: Task, seed: int, mdp: MDP | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(returns, lengths) of eval_num_trajs episodes of the random policy; the file next to the trajectories is made if missing."""
    path = spec.random_path(task.name)
    if (stored := check_random(spec, task)) is not None:
        return stored
    from policyopt.sampling.mdp import MDP, sample_randomly

    mdp = mdp or MDP(task.env)
    random_seed = derive_seed(seed, 'random', task.name)
    trajs = sample_randomly(mdp, spec.options.eval_num_trajs, random_seed, task.max_traj_len)
    with write_h5(path) as h5:
        h5.create_array('/', 'returns_B', trajs.returns)
        h5.create_array('/', 'len_B', trajs.lengths)
        set_attrs(h5.root, {'env_name': task.env, 'seed': random_seed} | provenance())
    said = f'random return {mean_sd(trajs.returns, 2)}, length {mean_sd(trajs.lengths, 2)}'
    print(f'{task.name}: {said} ({len(trajs)} trajectories in {path})', flush=True)
    return trajs.returns, trajs.lengths
