"""The three stages: sample the experts, train every run, evaluate every learned policy. With --resume, each skips finished work.

`run_stage` is what scripts/im_pipeline.py calls; `sample_trajs`, `train_runs` and `evaluate_runs` are the stages as functions of a Spec
and a `How`. Each checks its plan before anything is written, carries it out, and returns the command that comes next, or None.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from policyopt.errors import RunFailed, UserError, closest
from policyopt.files.atomic import check_link, read_utf8
from policyopt.pipeline import clusters, estimate, experiment_dir, launch
from policyopt.pipeline.clusters import Cluster, cluster_for
from policyopt.pipeline.command import fields_of
from policyopt.pipeline.plan import How, Plan, chosen_runs, make_plan
from policyopt.pipeline.spec import PlannedRun, Spec, load_spec
from policyopt.provenance import provenance
from policyopt.shipped import as_typed
from policyopt.signals import INTERRUPTED, STOPPED, Stopped, stoppable, stopping_after

if TYPE_CHECKING:
    from policyopt.pipeline import evaluate_stage

FIRST_COMMANDS = 3  # of a dry run on a terminal
MAX_STALE = 5  # rows that are named one by one
STAGES = ('0_sampletrajs', '1_train', '2_eval')


def run_stage(stage: str, spec_path: str, overrides: Sequence[str], summary: bool, how: How) -> int:
    """Do what `im_pipeline.py SPEC STAGE` asks for; returns an exit code."""
    names = {name: [name] for name in STAGES} | {name[0]: [name] for name in STAGES} | {'all': list(STAGES)}
    if stage not in names:
        raise UserError(f"stage '{stage}': expected 0_sampletrajs, 1_train, 2_eval, their digit, or all.{closest(stage, names)}")
    spec = load_spec(spec_path, overrides)
    if (how.task_list is None) != (how.task_index is None):
        raise UserError('--task-list and --task-index go together; give both, as the script of a cluster job does')
    if summary:
        if how.estimate:
            raise UserError('--estimate with --summary: one measures, the other touches nothing; give one of them')
        return show_summary(spec, how)
    cluster = cluster_for(spec, how)
    if how.estimate:
        expected = 'expected 1_train or all on this computer, whose training it measures'
        if how.dry_run:
            raise UserError(f'--estimate with --dry-run, which runs nothing; {expected}')
        if cluster and stage != 'all':
            raise UserError(f'--estimate with -e {how.executor}; {expected}')
        if '1_train' not in names[stage]:
            raise UserError(f"--estimate with stage '{stage}'; {expected}")
    if cluster and stage == 'all' and not (how.wait or how.dry_run):
        why = 'a stage needs what the one before it makes'
        raise UserError(f"-e {how.executor} with stage 'all': {why}; for all, add --wait, or submit one stage after the other")
    if how.rerun and '2_eval' not in names[stage]:
        raise UserError(f"--rerun with stage '{stage}': it is about the evaluation; expected 2_eval or all")
    if cluster:
        how = dataclasses.replace(how, resume=True)  # a submitted job never repeats finished work
    if '2_eval' in names[stage]:
        _check_actions(spec)  # before anything is trained or written
    functions = {
        '0_sampletrajs': sample_trajs,
        '1_train': functools.partial(train_runs, only_estimate=how.estimate and stage != 'all'),
        '2_eval': functools.partial(evaluate_runs, trained=stage != 'all' or not how.dry_run),
    }
    if not how.dry_run or names[stage] != ['1_train']:  # a list of training commands may be meant for another machine
        for path in (spec.traj_dir, spec.checkpt_dir):
            experiment_dir.check_place(path)
    following = None
    try:
        with stoppable(), stopping_after(how.stop_after):
            for name in names[stage]:
                if cluster and how.dry_run and name != '1_train':
                    chosen_runs(spec, 0, how)  # rejects a selection without runs
                    print(cluster.stage(name).script, end='')
                else:
                    following = functions[name](spec, how)
    except Stopped as e:
        print(f'im_pipeline: {e}', file=sys.stderr)
        clusters.requeue(e.signum, how.requeue)
        return INTERRUPTED if e.interrupted else STOPPED
    if following:
        print(f'next: {as_typed(following)}', file=sys.stderr)
    return 0


def show_summary(spec: Spec, how: How) -> int:
    """Print which files exist and which are missing; writes nothing, and may run while other pipelines work."""
    from policyopt.pipeline import evaluate_stage, sample_stage

    seed = experiment_dir.base_seed(spec)
    plan = make_plan(spec, seed, how)
    sets = _all_sets(spec, plan.runs)
    trajs = [path for path in itertools.starmap(spec.traj_path, sets) if os.path.exists(path)]
    unfit = sample_stage.unfit_sets(spec, sets)
    sampled = len(trajs) - len(unfit)
    print(f'{spec.run_name}: {sampled} of {len(sets)} trajectory files in {spec.traj_dir}')
    print(plan.summary())
    evaluated = os.path.exists(spec.results_path)
    state = evaluate_stage.standing(spec, plan.runs, seed, how) if evaluated else None
    num = len(plan.runs) - len(state.todo) if state else 0
    print(f'results: {f"{num} of {len(plan.runs)} runs in {spec.results_path}" if evaluated else "not evaluated yet"}')
    if unfit:
        print(f'note: {unfit[0]}', file=sys.stderr)
    if state:
        _name_stale(state)
    done = all(s == 'done' for s in plan.states().values())
    if done and state and not state.todo:
        following = f'analyze_results.py {spec.results_path}'
    elif sampled < len(sets):
        following = how.command(spec, '0_sampletrajs --resume')
    else:
        following = how.evaluation(spec) if done else how.command(spec, '1_train --resume')
    print(f'next: {as_typed(following)}', file=sys.stderr)
    return 0


def sample_trajs(spec: Spec, how: How) -> str | None:
    """Stage 0: let each task's expert play full_dataset_num_trajs episodes, and an untrained policy eval_num_trajs.

    Refuses to overwrite. With --resume it keeps complete files of this experiment and makes the others.
    """
    seed = experiment_dir.base_seed(spec)
    wanted = _all_sets(spec, chosen_runs(spec, seed, how))
    cluster = cluster_for(spec, how)
    outputs = [*(spec.traj_path(*one) for one in wanted), *(spec.random_path(name) for name in dict.fromkeys(task for task, _ in wanted))]
    from policyopt.pipeline import sample_stage

    to_sample = sample_stage.check_all(spec, wanted, experiment_dir.known_seed(spec), how.resume)
    if how.dry_run:
        for one in to_sample[0]:
            print(f'0_sampletrajs would sample {spec.traj_path(*one)}', file=sys.stderr)
        return None
    experiment_dir.store_seed(spec, seed)
    experiment_dir.make_dir(spec.traj_dir)
    if cluster and not all(map(os.path.exists, outputs)):
        done = cluster.submit([cluster.stage('0_sampletrajs')], 'stage 0_sampletrajs', outputs)
        return how.command(spec, '1_train') + ('' if done else '   (when the job is over)')
    with experiment_dir.stage_lock(spec, '0_sampletrajs'):
        sample_stage.sample_all(spec, to_sample, seed)
    return how.command(spec, '1_train --resume' if experiment_dir.held_runs(spec) else '1_train')


def train_runs(spec: Spec, how: How, only_estimate: bool = False) -> str | None:
    """Stage 1: one command for each algorithm × task × dataset size × run.

    Refuses a folder that holds runs. With --resume it skips finished runs and continues unfinished ones. A dry run prints the command
    lines to stdout and nothing else. only_estimate: print how long the training takes, and write nothing.
    """
    if how.task_index is not None:
        _array_task(spec, how)
        return None
    cluster, seed = cluster_for(spec, how), experiment_dir.base_seed(spec)
    plan = make_plan(spec, seed, how)
    if how.dry_run:
        if experiment_dir.known_seed(spec) is None:
            print(f'no training.seed: listing with a fresh seed {seed}, which is not stored', file=sys.stderr)
        return show_plan(cluster, plan)
    _check_plan(plan, how)
    if only_estimate:
        print(estimate.estimate(plan, how), flush=True)
        return how.command(spec, '1_train --resume') if plan.todo else how.evaluation(spec)
    experiment_dir.store_seed(spec, seed)
    experiment_dir.prepare_folder(spec, seed, how.resume, {r.id for r in plan.runs})
    if len(plan.todo) < len(plan.runs):
        print(f'{len(plan.runs) - len(plan.todo)} of {len(plan.runs)} runs are done', file=sys.stderr)
    if not plan.todo:
        return how.evaluation(spec)
    if how.estimate and cluster:
        print(f'no estimate: --estimate measures on this computer, and the runs go to {how.executor}', file=sys.stderr)
    elif how.estimate:
        _print_estimate(plan, how)
    return cluster.execute(plan) if cluster else launch.execute(plan, how)


def show_plan(cluster: Cluster | None, plan: Plan) -> None:
    """Do a dry run: print the commands or job scripts to stdout and notes to stderr; write no file.

    A terminal gets a table and the first commands, a file or a pipe gets all commands.
    """
    if not plan.todo:
        return
    for note in cluster.notes(plan) if cluster else launch.notes(plan):
        print(note, file=sys.stderr)
    commands = [cluster.script(plan)] if cluster else [run.command.text + '\n' for run in plan.todo]
    rest = len(commands) - FIRST_COMMANDS
    if not cluster and sys.stdout.isatty() and rest > 0:
        commands = [plan.summary(), '\n\n', *commands[:FIRST_COMMANDS], f'… and {rest} more commands; -n | cat prints all\n']
    print(*commands, sep='', end='', flush=True)


def _print_estimate(plan: Plan, how: How) -> None:
    """Print how long the training takes, or why that is not known; raises RunFailed if a measured command fails (unless -k)."""
    try:
        print(estimate.estimate(plan, how), flush=True)
    except Stopped:
        raise
    except (RunFailed, UserError, OSError) as e:
        if isinstance(e, estimate.MeasuredRunFailed) and not how.keep_going:
            raise RunFailed(f'{e}; nothing was trained (-k trains all the same)') from e
        print(f'no estimate: {e}; training goes on', file=sys.stderr, flush=True)


def _array_task(spec: Spec, how: How) -> None:
    """Do one task of a cluster's array: the runs in line `task_index` of the list. A failed run does not stop the others."""
    assert how.task_index is not None
    try:
        tasks = read_utf8(how.task_list or '', 'ids of runs').splitlines()
    except OSError as e:
        raise UserError(f'--task-list {how.task_list}: no list of runs ({e.strerror}); submit again with -e') from e
    if not 1 <= how.task_index <= len(tasks):
        raise UserError(f'--task-index {how.task_index}: {how.task_list} lists {len(tasks)} tasks; expected 1 to {len(tasks)}')
    ids = tasks[how.task_index - 1].split()
    seed = experiment_dir.known_seed(spec)
    if seed is None:
        raise UserError(f'{spec.checkpt_dir}/seed.txt: no such file; expected the base seed of these runs. Submit again with -e')
    plan = make_plan(spec, seed, how).of(set(ids))
    unknown = set(ids) - {r.id for r in plan.runs}
    if unknown or not ids:
        raise UserError(f'{how.task_list}: {spec.file} has no run {min(unknown, default="in that line")}; submit again with -e')
    submitted = clusters.submitted_spec(how.task_list or '')
    if os.path.exists(submitted):
        before = {r.id: r.command.text.split() for r in load_spec(submitted).runs(seed)}
        for run in spec.runs(seed):
            if run.id in ids and before.get(run.id) != run.command.text.split():
                raise UserError(f'{spec.file}: the command of {run.id} is another one than in {submitted}; submit again with -e')
    for run_id in sorted(set(ids) - {r.id for r in plan.todo}):
        print(f'{run_id} is done already', file=sys.stderr)
    if plan.todo:
        launch.execute(plan, dataclasses.replace(how, jobs=how.jobs or 1, keep_going=True))


def _check_actions(spec: Spec) -> None:
    """Raise UserError if the results file exists and does not have the action choice (most likely or sampled) of this experiment."""
    if not os.path.exists(spec.results_path):
        return
    from policyopt.files.results_file import read_results, takes_most_likely_actions

    if takes_most_likely_actions(read_results(spec.results_path).attrs) != spec.options.eval_deterministic:
        seen = f'was played with other actions than options.eval_deterministic: {str(spec.options.eval_deterministic).lower()} asks for'
        raise UserError(f'{spec.results_path}: {seen}; give another options.results_filename, or move it away')


def _check_plan(plan: Plan, how: How) -> None:
    """Raise UserError if a program or expert data are missing or unfit, or if stage 2 would refuse the runs after the training."""
    from policyopt.pipeline import evaluate_stage, sample_stage

    spec, runs = plan.spec, plan.runs
    for run in {r.alg: r for r in runs}.values():
        if script := run.command.missing_script:
            where = f'{spec.file}: {spec.algorithm(run.alg).place}.cmd'
            raise UserError(f"{where}: no such file '{script}'; expected a script, seen from {os.getcwd()} or from our checkout")
    sets = _all_sets(spec, runs)
    sample_stage.check_sampled(spec, sets)
    for name, dataset in sets:
        sample_stage.check_trajs(spec, name, dataset)
    for name in dict.fromkeys(name for name, _ in sets):
        sample_stage.check_random(spec, spec.task(name))
    for alg, name in dict.fromkeys((run.alg, run.task) for run in runs):
        if 'policy' in fields_of(spec.algorithm(alg).cmd):
            sample_stage.expert_path(spec, spec.task(name))
    evaluate_stage.check_policies(spec, runs)
    evaluate_stage.standing(spec, runs, plan.seed, how)


def evaluate_runs(spec: Spec, how: How, trained: bool = True) -> str | None:
    """Stage 2: score every learned policy by the true reward of eval_num_trajs episodes.

    Actions are the most likely ones, or sampled ones with `eval_deterministic: false`. Refuses an existing results file; with --resume
    it adds the runs that are missing in the file and keeps all other rows. Runs that have changed since their evaluation are named;
    only --rerun evaluates them again. trained: every run must exist; False in a dry run of all stages.
    """
    from policyopt.files import results_file
    from policyopt.pipeline import evaluate_stage, sample_stage

    cluster = cluster_for(spec, how)
    seed, path = experiment_dir.base_seed(spec), spec.results_path
    runs = chosen_runs(spec, seed, how)
    check_link(path, 'the results')
    if os.path.exists(path) and not how.resume:
        raise UserError(f'{path}: exists already, and results are never overwritten; move it away, or add to it with --resume')
    state = evaluate_stage.standing(spec, runs, seed, how)
    missing = [r.out for r in state.todo if not os.path.exists(r.out)]
    if missing and trained:
        listing = ''.join(f'\n  {path}' for path in [*missing[:20], *([f'and {len(missing) - 20} more'] if len(missing) > 20 else [])])
        raise UserError(
            f'{spec.checkpt_dir}: {len(missing)} of {len(runs)} runs are missing; expected all of them. '
            f'Train them with 1_train --resume, or leave them out with --only or --exclude:{listing}'
        )
    if state.todo and trained:
        sample_stage.check_sampled(spec, _all_sets(spec, state.todo))
    if how.dry_run:
        if trained:
            evaluate_stage.read_runs(spec, state.todo)
        print(f'2_eval would evaluate {len(state.todo)} of {len(runs)} runs into {path}', file=sys.stderr)
        _name_stale(state)
        _name_other_commands(spec, seed, runs)
        return None
    experiment_dir.store_seed(spec, seed)
    if not state.todo:
        assert state.stored is not None
        rows = state.stored.rows
        print(f'{path}: already evaluated', file=sys.stderr)
    elif cluster:
        done = cluster.submit([cluster.stage('2_eval')], 'stage 2_eval', [path])
        return f'analyze_results.py {path}' + ('' if done else '   (when the job is over)')
    else:
        with experiment_dir.stage_lock(spec, '2_eval'):
            if os.path.exists(path) and not how.resume:
                raise RunFailed(f'{path}: another process has just written it, and it is kept; add to it with --resume')
            state = evaluate_stage.standing(spec, runs, seed, how)  # another pipeline may have changed it
            rows, task_rows, facts = evaluate_stage.evaluated_rows(spec, state.todo, seed, how, state.stored)
            said = {'spec': spec.text, 'run_name': spec.run_name, 'eval_deterministic': spec.options.eval_deterministic}
            said |= {'drawn_seed': seed} if spec.training.seed is None else {}
            results_file.write_results(path, rows, task_rows, said | provenance() | facts, replace=state.stored is not None)
            evaluate_stage.forget_rows(spec)
    _name_stale(state)
    _name_other_commands(spec, seed, runs)
    if not how.no_table:
        print(results_file.returns_table(rows))
    print(f'results: {path}')
    return f'analyze_results.py {path}'


def _name_stale(state: evaluate_stage.Standing) -> None:
    shown = list(state.stale.items())[:MAX_STALE]
    for name, change in shown:
        print(f'stale: {name}: {change}; evaluate it again with 2_eval --resume --rerun {name}', file=sys.stderr)
    if len(shown) < len(state.stale):
        print(f"stale: and {len(state.stale) - len(shown)} more; --rerun 'alg=*' evaluates all runs again", file=sys.stderr)


def _name_other_commands(spec: Spec, seed: int, runs: Iterable[PlannedRun]) -> None:
    try:
        files = experiment_dir.check_same_experiment(spec, seed, ())
    except UserError as e:  # for example, the stored copy of the YAML is not readable here
        print(f'note: whether the runs were made by the commands of {spec.file} is not known: {e}', file=sys.stderr)
        return
    others = [r.id for r in runs if r.id in files]
    if others:
        seen = f'{len(others)} of these runs, first {others[0]}, were made by other commands than {spec.file} has now'
        print(f'note: {seen}; {files[others[0]]} has its command', file=sys.stderr)


def _all_sets(spec: Spec, runs: Iterable[PlannedRun]) -> list[tuple[str, int]]:
    """[(task, expert set)]: all expert sets of the tasks of these runs. The evaluation needs all, whichever sets the runs learned from."""
    return list(itertools.product(dict.fromkeys(r.task for r in runs), range(spec.training.datasets)))
