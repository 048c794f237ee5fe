"""The three stages: sample the experts, train every run, evaluate every learned policy. Each skips what is done when resumed.

`run_stage` is what scripts/im_pipeline.py calls; `sample_trajs`, `train` and `evaluate` are the stages as functions. Each returns
the command that comes next, or None.
"""

import dataclasses
import os
import sys

from policyopt.pipeline import clusters, folder, launch, templates
from policyopt.pipeline.spec import load_spec, select_runs
from policyopt.util import RunFailed, UserError, as_typed, closest, provenance

STAGES = ('0_sampletrajs', '1_train', '2_eval')


@dataclasses.dataclass(frozen=True)
class How:
    """How a stage is carried out: the options of im_pipeline.py, with their defaults."""

    jobs: int | None = None  # None: all cores, or on a cluster as many as it likes
    resume: bool = False
    keep_going: bool = False
    dry_run: bool = False
    estimate: bool = False  # say how long training will take: instead of it, or in a run of all stages before it
    only: list | tuple = ()
    exclude: list | tuple = ()
    executor: str = 'local'
    yes: bool = False
    wait: bool = False
    threads: int | None = None
    device: str | None = None
    verbosity: int = 0
    task_list: str | None = None  # hidden: an array task of a cluster does the run in line `task_index` of this file
    task_index: int | None = None


def run_stage(stage, spec_path, overrides, summary, how):
    """Do what `im_pipeline.py SPEC STAGE` asks for; returns an exit code."""
    names = {name: [name] for name in STAGES} | {name[0]: [name] for name in STAGES} | {'all': list(STAGES)}
    if stage not in names:
        raise UserError(f"stage '{stage}': expected 0_sampletrajs, 1_train, 2_eval, their digit, or all.{closest(stage, names)}")
    spec = load_spec(spec_path, overrides)
    if summary:
        if how.estimate:
            raise UserError('--estimate with --summary: one measures, the other touches nothing; give one of them')
        return show_summary(spec, how)
    if how.estimate and (how.dry_run or names[stage] not in (['1_train'], list(STAGES))):
        seen = '--dry-run, which runs nothing' if how.dry_run else f"stage '{stage}'"
        raise UserError(f'--estimate with {seen}; expected 1_train or all, whose training it measures')
    if how.executor != 'local' and names[stage] != ['1_train'] and not (stage == 'all' and (how.wait or how.dry_run)):
        raise UserError(f"-e {how.executor} with stage '{stage}': only 1_train runs on a cluster; for all, add --wait")
    functions = {'0_sampletrajs': sample_trajs, '1_train': show_estimate if how.estimate and stage != 'all' else train, '2_eval': evaluate}
    try:
        for name in names[stage]:
            following = functions[name](spec, how)
    except launch.Stopped as e:
        print(f'im_pipeline: {e}', file=sys.stderr)
        return 130 if e.interrupted else launch.STOPPED_AFTER_CHECKPOINT
    if following:
        print(f'next: {as_typed(following)}', file=sys.stderr)
    return 0


def show_summary(spec, how):
    """Print what is there and what is not; touches nothing, and may be asked while others work."""
    runs = select_runs(spec.runs(folder.base_seed(spec, store=False, quiet=True)), how.only, how.exclude)
    trajs = {spec.traj_path(r.task, r.dataset) for r in runs}
    print(f'{spec.run_name}: {sum(map(os.path.exists, trajs))} of {len(trajs)} trajectory files in {spec.traj_dir}')
    print(folder.summary(spec, runs))
    print(f'results: {spec.results_path if os.path.exists(spec.results_path) else "not evaluated yet"}')
    done = all(s == 'done' for s in folder.states(spec, runs).values())
    if done and os.path.exists(spec.results_path):
        following = f'analyze_results.py {spec.results_path}'
    else:
        following = spec.command('2_eval' if done else '1_train --resume')
    print(f'next: {as_typed(following)}', file=sys.stderr)
    return 0


def _selected(spec, how, seed):
    return select_runs(spec.runs(seed), how.only, how.exclude)


def _unseeded(spec, how):
    """The selected runs for checks that come before anything is written, a seed that is drawn included."""
    for path in (spec.traj_dir, spec.checkpt_dir):
        folder.check_place(path)
    return _selected(spec, how, folder.known_seed(spec) or 0)


# 0_sampletrajs ------------------------------------------------------------------------------------------------------------------


def sample_trajs(spec, how):
    """Stage 0: let each task's expert play full_dataset_num_trajs episodes, and an untrained policy eval_num_trajs.

    Refuses to overwrite; resumed, it keeps whole files that belong to this experiment and makes the others.
    """
    wanted = list(dict.fromkeys((r.task, r.dataset) for r in _unseeded(spec, how)))
    if how.dry_run:
        for task, dataset in wanted:
            print(f'0_sampletrajs would sample {spec.traj_path(task, dataset)}', file=sys.stderr)
        return None
    from policyopt.pipeline import experts

    plan = experts.check_all(spec, wanted, folder.known_seed(spec), how.resume)
    seed = folder.base_seed(spec, store=True)
    folder.make_dir(spec.traj_dir)
    with folder.stage_lock(spec, '0_sampletrajs'):
        experts.sample_all(spec, plan, seed)
    return spec.command('1_train')


# 1_train ------------------------------------------------------------------------------------------------------------------------


def train(spec, how):
    """Stage 1: one command for each algorithm × task × dataset size × run.

    Refuses a folder that holds runs, unless resumed: then finished runs are skipped and unfinished ones go on. A dry run prints
    the bare command lines and nothing else on stdout.
    """
    if how.task_index is not None:
        return _array_task(spec, how)
    if not how.dry_run:
        _check_ready(spec, _unseeded(spec, how))
    seed = folder.base_seed(spec, store=not how.dry_run)
    runs = [_with_device(r, how.device) for r in _selected(spec, how, seed)]
    if how.dry_run:
        return _dry_run(spec, how, runs)
    folder.prepare(spec, seed, how.resume)
    pending = [folder.with_resume(r) for r in runs if not os.path.exists(r.out)]
    if len(pending) < len(runs):
        print(f'{len(runs) - len(pending)} of {len(runs)} runs are done', file=sys.stderr)
    if pending and how.executor != 'local':
        if how.estimate:
            print(f'no estimate: --estimate measures on this computer, and the runs go to {how.executor}', file=sys.stderr)
        array = clusters.prepare_array(how.executor, spec, runs, pending, how.jobs, how.threads, how.device)
        job_id = clusters.submit(array, spec, how.yes)
        if not how.wait:
            return spec.command('1_train --summary') + '   (and 2_eval when the job is over)'
        clusters.wait(array, spec, runs, job_id)
    elif pending:
        if how.estimate:
            _print_estimate(spec, how, seed, optional=True)
        _run_here(spec, how, pending)
    return spec.command('2_eval')


def show_estimate(spec, how):
    """Print how long stage 1 would take from here; writes nothing into the experiment's folders."""
    if how.executor != 'local':
        raise UserError(f'--estimate with -e {how.executor}: it measures on this computer; expected it without -e')
    runs = _unseeded(spec, how)
    _check_ready(spec, runs)
    _print_estimate(spec, how, folder.known_seed(spec) or 0)
    return spec.command('1_train --resume' if any(not os.path.exists(r.out) for r in runs) else '2_eval')


def _print_estimate(spec, how, seed, optional=False):
    """Print how long it takes; where that is optional, only a command that fails stands in the way of training (without -k)."""
    from policyopt.pipeline.estimate import MeasuredRunFailed, estimate

    def runs_of(some_spec):
        return [_with_device(r, how.device) for r in _selected(some_spec, how, seed)]

    try:
        sentence = estimate(spec, runs_of, how.jobs, how.threads, how.verbosity)
    except launch.Stopped:
        raise
    except (RunFailed, UserError, OSError) as e:
        if not optional:
            raise
        if isinstance(e, MeasuredRunFailed) and not how.keep_going:
            raise RunFailed(f'{e}; nothing was trained (-k trains all the same)') from e
        print(f'no estimate: {e}; training goes on', file=sys.stderr, flush=True)
    else:
        print(sentence, flush=True)


def _with_device(run, device):
    return run if device is None else dataclasses.replace(run, command=templates.with_option(run.command, '--device', device))


def _run_here(spec, how, pending):
    num_jobs = min(how.jobs or launch.num_cores(), len(pending))
    launch.warn_about_cores(num_jobs, how.threads)
    outcomes = launch.run_local([folder.job(spec, r) for r in pending], num_jobs, how.keep_going, how.threads, how.verbosity)
    bad = [o for o in outcomes if o.state != 'ok']
    if bad:
        left = len(pending) - len(outcomes)
        rest = f', {left} were not started (-k starts them all the same)' if left else ''
        first = f'{bad[0].job.id} ({bad[0].detail})'
        raise RunFailed(f'{len(bad)} of {len(pending)} runs did not finish, first {first}{rest}. Go on with --resume')


def _dry_run(spec, how, runs):
    if how.resume:
        runs = [folder.with_resume(r) for r in runs if not os.path.exists(r.out)]
    if how.executor != 'local':
        print(clusters.prepare_array(how.executor, spec, runs, runs, how.jobs, how.threads, how.device).script, end='')
        return
    if not os.path.isdir(spec.checkpt_dir):
        print(f'note: these commands need the folder {spec.checkpt_dir}; 0_sampletrajs makes it', file=sys.stderr)
    done = sum(os.path.exists(r.out) for r in runs)
    if done:
        print(f'note: {done} of these {len(runs)} runs are done; --resume leaves them out', file=sys.stderr)
    sys.stdout.writelines(r.command + '\n' for r in runs)
    sys.stdout.flush()


def _check_ready(spec, runs):
    """Raise UserError unless every run's program and expert data are there and fit."""
    for run in {r.alg: r for r in runs}.values():
        script = templates.missing_script(run.command)
        if script:
            i = [a.name for a in spec.training.algorithms].index(run.alg)
            where = f'{spec.file}: training.algorithms[{i}].cmd'
            raise UserError(f"{where}: no such file '{script}'; expected a script, seen from {os.getcwd()} or from our checkout")
    paths = {(r.task, r.dataset): spec.traj_path(r.task, r.dataset) for r in runs}
    missing = [p for p in paths.values() if not os.path.exists(p)]
    if missing:
        way = f'Make them with: {spec.command("0_sampletrajs")}'
        raise UserError(f'{missing[0]}: no such file; expected the expert trajectories. {way}')
    from policyopt.pipeline import experts

    for (task, _), path in paths.items():
        experts.check_trajs(spec, spec.task(task), path)


def _array_task(spec, how):
    """One task of a cluster's array: the run in line `task_index` of the list, continued if it was begun."""
    with open(how.task_list, encoding='utf-8') as f:
        ids = f.read().split()
    if not 1 <= how.task_index <= len(ids):
        raise UserError(f'--task-index {how.task_index}: {how.task_list} lists {len(ids)} runs; expected 1 to {len(ids)}')
    run_id = ids[how.task_index - 1]
    seed = folder.known_seed(spec)
    if seed is None:
        raise UserError(f'{spec.checkpt_dir}/seed.txt: no such file; expected the base seed of these runs. Submit again with -e')
    run = next((r for r in spec.runs(seed) if r.id == run_id), None)
    if run is None:
        raise UserError(f'{how.task_list}: {spec.file} has no run {run_id}; submit again with -e')
    if os.path.exists(run.out):
        print(f'{run_id} is done already', file=sys.stderr)
        return
    _run_here(spec, how, [folder.with_resume(_with_device(run, how.device))])


# 2_eval -------------------------------------------------------------------------------------------------------------------------


def evaluate(spec, how):
    """Stage 2: every learned policy plays eval_num_trajs episodes with its most likely actions, on the true reward.

    Every run must be there. Refuses an existing results file; resumed, it keeps a complete one, and rows evaluated before.
    """
    runs = _unseeded(spec, how)
    if how.dry_run:
        print(f'2_eval would evaluate {len(runs)} runs into {spec.results_path}', file=sys.stderr)
        return None
    missing = [r.out for r in runs if not os.path.exists(r.out)]
    if missing:
        listing = ''.join(f'\n  {path}' for path in missing)
        raise UserError(
            f'{spec.checkpt_dir}: {len(missing)} of {len(runs)} runs are missing; expected all of them. '
            f'Train them with 1_train --resume, or leave them out with --only or --exclude:{listing}'
        )
    seed = folder.base_seed(spec, store=True)
    runs = _selected(spec, how, seed)
    from policyopt.files import results
    from policyopt.pipeline import evaluating

    if os.path.exists(spec.results_path):
        if not how.resume:
            way = 'move it away, or keep it with --resume'
            raise UserError(f'{spec.results_path}: exists already, and results are never overwritten; {way}')
        rows = results.read_results(spec.results_path).rows
        stored, wanted = ({(r.alg, r.task, r.num_trajs, r.run) for r in some} for some in (rows, runs))
        if stored != wanted:
            seen = f'holds {len(stored)} runs that are not the {len(wanted)} of {spec.file}'
            raise UserError(f'{spec.results_path}: {seen}; move it away to evaluate again')
        print(f'{spec.results_path}: already evaluated', file=sys.stderr)
    else:
        with folder.stage_lock(spec, '2_eval'):
            rows, task_rows = evaluating.evaluate_runs(spec, runs, seed, how)
            attrs = {'spec': spec.text, 'run_name': spec.run_name} | provenance() | evaluating.training_facts(runs)
            results.write_results(spec.results_path, rows, task_rows, attrs)
            evaluating.forget_rows(spec)
    print(results.cell_table(rows))
    print(f'results: {spec.results_path}')
    return f'analyze_results.py {spec.results_path}'
