"""The experiment file: YAML → checked, frozen dataclasses → the list of runs.

Keys and template fields are those of 2016, with a few new ones. Everything that can be wrong in the file is found here,
before anything is computed. Neither torch nor gymnasium is imported.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import os
import pathlib
import re
import shlex
from collections.abc import Sequence
from typing import Any

from policyopt import algorithms
from policyopt.errors import Unfit, UserError, closest
from policyopt.files import yamlfile
from policyopt.files.atomic import begins_as_hdf5
from policyopt.files.names import KEYS, MAX_RUNS, done_file, id_of
from policyopt.files.yamlfile import boolean, key, list_of, matching, one_of, place, section, show_value, text, whole
from policyopt.options import MAX_TRAJS
from policyopt.pipeline import cluster_options, locks, sweep
from policyopt.pipeline.command import Command, check_quotes, check_template, fields_of, fill
from policyopt.provenance import derive_seed
from policyopt.shipped import here_or_shipped, shipped

_FUNCTION = {'pattern': r'[A-Za-z_][\w.]*:[A-Za-z_]\w*', 'expected': 'a function as package.module:load, called with the file of a run'}
_H5_NAME = {'pattern': r'[\w.+-]+\.h5', 'expected': 'a plain file name that ends in .h5, such as results.h5'}
_A_REFERENCE = 'a CSV of published results such as results/paper/results_per_run.csv'


def _file_word(value: Any) -> str:
    """A name that can stand in file names, in run ids and in --only."""
    word = text(value, 'a name')
    if not re.fullmatch(r'[\w.+-]+', word, re.ASCII) or word[0] in '.-' or len(word) > 80:
        hint = " ',', '=' and '/' would break the names of files" if re.search('[,=/]', word) else ''
        raise Unfit(show_value(word), 'a name of at most 80 letters, digits and _ . + - that begins with a letter, digit or _', hint)
    return word


def expand_folder(path: str) -> str:
    """A folder with ~ and environment variables replaced by their values."""
    return os.path.expanduser(os.path.expandvars(path))


def _storage(value: Any) -> str:
    """The folder of an experiment, whose environment variables must be set."""
    folder = text(value, 'a folder')
    user = folder.partition('/')[0]
    if expand_folder(folder).startswith('~') and not os.path.isdir(user):
        raise Unfit(f'{show_value(folder)}, and there is no user {user[1:]!r} here', 'a folder')
    for match in re.finditer(r'\$\{?(\w+)[^/]*', folder):
        # a folder's name may contain a $ that starts no variable; then the folder exists
        if not os.environ.get(match[1]) and not os.path.isdir(expand_folder(folder[: match.end()])):
            seen = f'{show_value(folder)}, and the environment variable {match[1]} is not set here'
            raise Unfit(seen, 'a folder', ' Set it, or write the folder out')
    return folder


def _reference(value: Any) -> str | None:
    """A file name, or null: with null, --set can remove the comparison."""
    return None if value is None else text(value, _A_REFERENCE)


def _template(value: Any) -> str:
    """A command template whose quotes balance, as one line: a line break is a blank, as in 2016 (a backslash before it is dropped)."""
    line = re.sub(r'\s*\\?\n\s*', ' ', text(value, 'a command template with {out}', lines=True).strip())
    check_quotes(line)
    return line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """An environment, its expert, and how its expert data are used."""

    name: str = key(_file_word)
    env: str = key(text, example='an environment id such as CartPole-v0')
    policy: str | None = key(text, None, example='an expert such as expert_policies/classic/CartPole-v0.h5/snapshots/iter0000100')
    cuts_off_on_success: bool = key(boolean)
    data_subsamp_freq: int = key(whole)
    max_traj_len: int | None = key(whole, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """A command template, and the rule by which stage 2 chooses a snapshot.

    eval: the rule, one of algorithms.RULES. policy: 'package.module:load' if the runs are policies of another program; the rule is not
    used for these. vary: the settings of the sweep that the algorithm comes from. place: its position in the file.
    """

    name: str = key(_file_word)
    cmd: str = key(_template)
    eval: str = key(one_of, '', choices=algorithms.RULES)
    policy: str | None = key(matching, None, **_FUNCTION)
    vary: tuple[tuple[str, tuple[str, ...]], ...] = key(sweep.settings, ())
    place: str = ''


def _algorithms(value: Any) -> tuple[AlgorithmSpec, ...]:
    """The algorithms of the list; an item with `vary` gives one for each combination of settings."""
    found = []
    for i, item in enumerate(list_of(value, item=section, described=AlgorithmSpec)):
        with place(f'[{i}]'):
            alg = dataclasses.replace(item, eval=_rule(item), place=f'training.algorithms[{i}]')
            variants = sweep.variants(alg.name, alg.cmd, dict(alg.vary))
            for _, cmd in variants:
                with place('.cmd'):
                    check_template(cmd)
                for mode in Command(cmd).trainer_modes if alg.eval == 'best_valacc' and alg.policy is None else ():
                    if algorithms.MODES[mode].adversarial:
                        seen = f"best_valacc with --mode {mode}, whose log has no column 'valacc'"
                        raise Unfit(seen, 'eval: last', ' Add it to this algorithm', '.eval')
        found += [dataclasses.replace(alg, name=name, cmd=cmd) for name, cmd in variants]
    return tuple(found)


def _rule(alg: AlgorithmSpec) -> str:
    """The rule of an algorithm: its `eval` if given, else the rule that belongs to its name."""
    row = algorithms.find(alg.name)
    if rule := alg.eval or (row.rule if row else 'last' if alg.policy else ''):
        return rule
    *first, last = algorithms.ALGORITHMS
    known = f'a name that begins with {", ".join(first)} or {last}'
    hint = ' Or say which snapshot stage 2 shall judge: add `eval: last` or `eval: best_valacc` to this algorithm'
    raise Unfit(f'the evaluation does not know {show_value(alg.name)}', known, hint, '.name')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Sizes of the experiment; `datasets` is the number of independent expert sets per task (run r uses set r mod datasets)."""

    full_dataset_num_trajs: int = key(whole, high=MAX_TRAJS)
    dataset_num_trajs: tuple[int, ...] = key(list_of, item=whole)
    deterministic_expert: bool = key(boolean, False)
    runs: int = key(whole)
    algorithms: tuple[AlgorithmSpec, ...] = key(_algorithms)
    seed: int | None = key(whole, None, low=0, high=2**63 - 1)
    datasets: int = key(whole, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The folders, how the policies are evaluated, and the published results to compare with."""

    storagedir: str = key(_storage)
    traj_subdir: str = key(_storage, 'trajs')
    checkpt_subdir: str = key(_storage, 'checkpoints')
    eval_num_trajs: int = key(whole, 50, high=MAX_TRAJS)
    eval_deterministic: bool = key(boolean, True)
    results_filename: str = key(matching, 'results.h5', **_H5_NAME)
    reference: str | None = key(_reference, None)
    between_sets: tuple[str, ...] = key(list_of, (), item=text, example='a results file such as runs/five_sets/checkpoints/results.h5')
    pbs: cluster_options.PbsOptions = key(section, cluster_options.PbsOptions(), described=cluster_options.PbsOptions)
    slurm: cluster_options.SlurmOptions = key(section, cluster_options.SlurmOptions(), described=cluster_options.SlurmOptions)
    array: cluster_options.ArrayOptions | None = key(section, None, described=cluster_options.ArrayOptions)


@dataclasses.dataclass(frozen=True)
class Job:
    """A command, the file that it writes (`out`), and the paths of its log and its lock; is_log: whether `out` must be a training log."""

    id: str
    command: Command
    out: str
    log: str
    lock: str
    is_log: bool = True

    @property
    def renews(self) -> bool:
        """Whether the command calls our trainer, which holds and renews a second lock next to `out`."""
        return self.command.is_trainer

    @property
    def complete(self) -> bool:
        """Whether the output exists and, if its format is known, is complete."""
        return os.path.exists(self.out) and self.fault is None

    @property
    def fault(self) -> str | None:
        """Why stage 2 cannot evaluate the output; None if it can, or if the format is unknown."""
        if self.renews:  # our trainer writes the whole file in one step, so its beginning is enough
            return None if begins_as_hdf5(self.out) else 'not an HDF5 file'
        from policyopt.files.runfile import fault_of

        return fault_of(self.out) if self.is_log else None

    @property
    def done(self) -> bool:
        """Whether the output is complete. In an unknown format, it is complete if its lock is free: the program has ended normally."""
        return self.complete and (self.is_log or locks.inspect(self.lock)[0] == 'free')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedRun(Job):
    """A run of an experiment; `id` names the run and its files, `dataset` is the index of its expert set."""

    alg: str
    task: str
    num_trajs: int
    run: int
    dataset: int
    seed: int

    def with_option(self, flag: str, value: str | None = None) -> PlannedRun:
        """The run with an option added to its command, if the command calls our trainer."""
        return dataclasses.replace(self, command=self.command.with_option(flag, value))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole experiment; `text` is the YAML of `file` with the `overrides` of `--set` applied."""

    file: str
    overrides: tuple[str, ...]
    text: str
    tasks: tuple[Task, ...] = key(list_of, item=section, described=Task)
    training: Training = key(section, described=Training)
    options: Options = key(section, described=Options)
    run_name: str = key(_file_word, '')

    def command(self, stage: str) -> str:
        """The command that carries out a stage of this experiment."""
        sets = ['--set', *self.overrides] if self.overrides else []
        return ' '.join(['im_pipeline.py', shlex.quote(self.file), stage, shlex.join(sets)]).rstrip()

    @property
    def traj_dir(self) -> str:
        """The folder of the expert trajectories."""
        return os.path.join(expand_folder(self.options.storagedir), expand_folder(self.options.traj_subdir))

    @property
    def checkpt_dir(self) -> str:
        """The folder of the runs, their logs and the results."""
        return os.path.join(expand_folder(self.options.storagedir), expand_folder(self.options.checkpt_subdir))

    @property
    def results_path(self) -> str:
        """The results file, in the folder of the runs."""
        return os.path.join(self.checkpt_dir, self.options.results_filename)

    @property
    def reference_path(self) -> str | None:
        """The path of the published results, as given or in our own checkout; None if the experiment names none.

        Raises UserError if the file is in neither place.
        """
        name = self.options.reference
        if name is None:
            return None
        path = here_or_shipped(name)
        if os.path.isfile(path):
            return path
        raise UserError(
            f"{self.file}: options.reference: no such file '{name}'; expected {_A_REFERENCE}, seen from {os.getcwd()} or from our checkout"
        )

    def traj_path(self, task_name: str, dataset: int = 0) -> str:
        """The trajectory file of one expert set of a task."""
        suffix = '' if self.training.datasets == 1 else f'_set{dataset}'
        return os.path.join(self.traj_dir, f'trajs_{task_name}{suffix}.h5')

    def random_path(self, task_name: str) -> str:
        """The file with the returns of the random policy on a task."""
        return os.path.join(self.traj_dir, f'random_{task_name}.h5')

    def task(self, name: str) -> Task:
        return next(t for t in self.tasks if t.name == name)

    def algorithm(self, name: str) -> AlgorithmSpec:
        return next(a for a in self.training.algorithms if a.name == name)

    def runs(self, base_seed: int) -> list[PlannedRun]:
        """All runs in the order of 2016: algorithm, task, dataset size, run. A seed depends only on (base_seed, run id)."""
        t = self.training
        combinations = itertools.product(t.algorithms, self.tasks, t.dataset_num_trajs, range(t.runs))
        return [self._run(*combination, base_seed) for combination in combinations]

    def _run(self, alg: AlgorithmSpec, task: Task, num_trajs: int, run: int, base_seed: int) -> PlannedRun:
        run_id = id_of(alg.name, task.name, num_trajs, run)
        seed = derive_seed(base_seed, run_id)
        dataset = run % self.training.datasets
        out = os.path.join(self.checkpt_dir, done_file(run_id))
        line = fill(
            alg.cmd,
            {
                'env': task.env,
                'dataset': self.traj_path(task.name, dataset),
                'num_trajs': num_trajs,
                'cuts_off_on_success': int(task.cuts_off_on_success),
                'data_subsamp_freq': task.data_subsamp_freq,
                'out': out,
                'seed': seed,
                'run': run,
                'task': task.name,
                'policy': task.policy and (find_policy(task.policy) or task.policy),
            },
        )
        command = Command(line).resolved().with_option('--seed', seed)
        if task.max_traj_len is not None:
            command = command.with_option('--max_traj_len', task.max_traj_len)
        return PlannedRun(
            id=run_id,
            command=command,
            out=out,
            log=os.path.join(self.checkpt_dir, 'logs', f'{run_id}.txt'),
            lock=os.path.join(self.checkpt_dir, 'locks', f'{run_id}.lock'),
            is_log=command.is_trainer or alg.policy is None,
            alg=alg.name,
            task=task.name,
            num_trajs=num_trajs,
            run=run,
            dataset=dataset,
            seed=seed,
        )


def load_spec(path: str, overrides: Sequence[str] = ()) -> Spec:
    """Read and check a pipeline YAML, with `--set KEY=VALUE` assignments applied first.

    Raises UserError: "pipelines/classic.yaml: tasks[1].evn: unknown key 'evn'; expected one of name, env, policy, …. Did you mean 'env'?"
    """
    yaml_text = yamlfile.read_text(here_or_shipped(path))
    raw = yamlfile.parse_yaml(yaml_text, path)
    if raw is None:
        raise UserError(f'{path}: is empty; expected a pipeline YAML with the keys tasks, training, options')
    given: dict[str, str] = {}
    for assignment in overrides if isinstance(raw, dict) else ():
        yamlfile.override(raw, assignment, given)
    try:
        spec = section(raw, Spec, file=path, overrides=tuple(overrides), text=yaml_text)
        _check_together(spec)
    except Unfit as e:
        raise yamlfile.located(e, path, given) from e
    if overrides:
        header = ''.join('# --set ' + assignment.replace('\n', '\n#   ') + '\n' for assignment in overrides)
        spec = dataclasses.replace(spec, text=f'# {path} with\n{header}{yamlfile.dump_yaml(raw, path)}')
    return spec if spec.run_name else dataclasses.replace(spec, run_name=os.path.splitext(os.path.basename(path))[0])


def _check_together(spec: Spec) -> None:
    """Raise Unfit for keys that contradict each other."""
    t, options, tasks = spec.training, spec.options, spec.tasks
    for i, size in enumerate(t.dataset_num_trajs):
        if size > t.full_dataset_num_trajs:
            expected = f'at most training.full_dataset_num_trajs = {t.full_dataset_num_trajs}'
            raise Unfit(show_value(size), expected, ' Raise that, or drop this size', f'training.dataset_num_trajs[{i}]')
    _no_duplicates('tasks[{}].name', [task.name for task in tasks])
    _no_duplicates('training.dataset_num_trajs[{}]', t.dataset_num_trajs)
    _no_duplicates('training.algorithms[{}].name', [alg.name for alg in t.algorithms])
    if t.datasets > t.runs:
        hint = ' Run r uses set r mod datasets, so the others would never be used'
        raise Unfit(show_value(t.datasets), f'at most training.runs = {t.runs}', hint, 'training.datasets')
    num_runs = len(t.algorithms) * len(tasks) * len(t.dataset_num_trajs) * t.runs
    if num_runs > MAX_RUNS:
        raise Unfit(f'{num_runs} runs in all', f'at most {MAX_RUNS}', ' Lower training.runs', 'training.runs')
    lacking = next((i for i, task in enumerate(tasks) if task.policy is None), None)
    for alg in t.algorithms:
        if lacking is not None and 'policy' in fields_of(alg.cmd):
            expected = f"the expert of every task, and tasks[{lacking}] has no 'policy'"
            raise Unfit('the field {policy}', expected, " Add it, or name the expert's file in the command", f'{alg.place}.cmd')
        command = Command(alg.cmd)
        seed = command.options.get('--seed') or ''
        if t.runs > t.datasets and command.is_trainer and seed.isdecimal():
            hint = ' Runs of one seed on one data set are equal, and count as one'
            raise Unfit(f'--seed {seed} in all {t.runs} runs', '--seed {seed}, or none', hint, f'{alg.place}.cmd')
    name = options.results_filename
    if name.startswith(('trajs_', 'random_')) and os.path.realpath(spec.traj_dir) == os.path.realpath(spec.checkpt_dir):
        for task in tasks:  # the results in place of a file of stage 0
            paths = [spec.random_path(task.name), *(spec.traj_path(task.name, i) for i in range(t.datasets))]
            if name in map(os.path.basename, paths):
                seen = f"{show_value(name)}, a file of stage 0 for the task '{task.name}'"
                raise Unfit(seen, 'another name', path='options.results_filename')


def _no_duplicates(path: str, values: Sequence) -> None:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise Unfit(f'{show_value(value)} a second time', 'each only once', path=path.format(i))


def select_runs(
    runs: Sequence[PlannedRun], only: Sequence[str] = (), exclude: Sequence[str] = (), flag: str = '--only'
) -> list[PlannedRun]:
    """The runs that `--only` keeps and `--exclude` does not drop, in their order.

    All arguments without a comma form one filter of words KEY=VALUE. A run matches a filter if it has one of the values given for each
    key; a value may contain * and ?. Every argument with commas, such as a run id, is a filter of its own. `only` keeps a run that
    matches the first filter and, if there are others, one of them. `exclude` drops a run that matches any filter.

    flag: the option that messages name for `only`. Raises UserError if a word matches no run, or if no run is left.
    """
    keep, keep_one_of = _parse_filters(runs, only, flag)
    drop, drop_any_of = _parse_filters(runs, exclude, '--exclude')
    if drop:
        drop_any_of.append(drop)
    kept = [r for r in runs if _matches(r, keep) and (not keep_one_of or any(_matches(r, f) for f in keep_one_of))]
    chosen = [r for r in kept if not any(_matches(r, f) for f in drop_any_of)]
    if not chosen:
        words = ' '.join([*([flag, *only] if only else []), *(['--exclude', *exclude] if exclude else [])])
        raise UserError(f'{words}: leaves none of the {len(runs)} runs; expected a filter that matches some')
    return chosen


_Filter = dict[str, list[str]]  # {key: patterns}: a run must match one pattern of each key


def _matches(run: PlannedRun, wanted: _Filter) -> bool:
    return all(any(fnmatch.fnmatchcase(str(getattr(run, key)), value) for value in values) for key, values in wanted.items())


def _parse_filters(runs: Sequence[PlannedRun], arguments: Sequence[str], flag: str) -> tuple[_Filter, list[_Filter]]:
    """(one filter from all arguments without a comma, a filter from each argument with commas)."""
    common: _Filter = {}
    separate: list[_Filter] = []
    for argument in arguments:
        words, wanted = argument.split(','), common
        if len(words) > 1:
            separate.append(wanted := {})
        for word in words:
            key, eq, value = word.partition('=')
            if not eq or key not in KEYS:
                keys, said = ', '.join(KEYS), word or repr(argument)
                raise UserError(f"{flag} {said}: unknown key '{key}'; expected KEY=VALUE with one of {keys}.{closest(key, KEYS)}")
            there = list(dict.fromkeys(str(getattr(r, key)) for r in runs))
            if not fnmatch.filter(there, value):
                raise UserError(f"{flag} {word}: no run has {key} '{value}'; expected one of {', '.join(there)}.{closest(value, there)}")
            wanted.setdefault(key, []).append(value)
    return common, separate


def find_policy(policy: str) -> str | None:
    """The path of a policy `FILE.h5/snapshots/…`: as given, or in our own checkout; None if FILE is in neither place."""
    for candidate in (policy, shipped(policy)):
        if any(os.path.isfile(path) for path in (candidate, *pathlib.PurePath(candidate).parents)):
            return candidate
    return None
