"""Our imitation beside that of the package imitation 1.0.1: the same demonstrations, task, environment steps and evaluation episodes.

    python benchmarks/peers.py --env seals:seals/CartPole-v0 --expert expert_policies/seals/CartPole-v0.h5/snapshots/last \\
        --steps 200000 --batch 5000 --folder runs/peers/cartpole

Makes an environment for the package (a folder to throw away), records --trajs episodes of the expert, and trains every algorithm with every
seed on both sides, one run at a time. The package gets its tuned options (peer_imitation.py), ours those of ALGORITHMS. All policies
then play the same --episodes episodes, deterministically. Prints a Markdown table: mean return ± standard deviation over seeds, and
CPU seconds of a training run, start of the program included. Running it again resumes with the first run that --folder lacks.

After every --every environment steps GAIL, AIRL and our DAgger play the first --curve_episodes of those episodes, whose CPU
time does not count. --csv FILE writes these points and those of the final policies, a row each.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))
from policyopt import algorithms  # noqa: E402
from policyopt.command_line import Parser, run_main  # noqa: E402
from policyopt.errors import RunFailed, UserError  # noqa: E402
from policyopt.files.atomic import write_text  # noqa: E402
from policyopt.options import ImitationOptions  # noqa: E402

# The newest versions that this release of the package works with, and torch as in our lock file.
PEER = ['imitation==1.0.1', 'setuptools<81', 'numpy<2', 'pyarrow<18', 'datasets<4', 'mujoco==3.2.7', 'imageio', 'torch==2.13.0']
# name: (the title of a row, our options, which snapshot plays); an algorithm whose mode or reward this tree does not know is skipped.
# {iterations} × {batch} environment steps; DAgger's are {rounds} episodes, the package's --dagger_steps. GAIL has the batch of its mode.
ALGORITHMS = {
    'bc': ('BC', '--mode bclone --max_iter 10001 --bclone_eval_freq 500', 'best_valacc'),
    'dagger': ('DAgger', '--mode dagger --expert {expert} --dagger_rounds {rounds} --max_iter 10001 --bclone_eval_freq 500', 'last'),
    'gail': ('GAIL', '--mode gail --max_iter {gail_iterations}', 'last'),
    'ga': ('GAIL (2016)', '--mode ga --reward_type nn --min_total_sa {batch} --max_iter {iterations}', 'last'),
    'airl': ('AIRL', '--mode ga --reward_type airl --min_total_sa {batch} --max_iter {iterations}', 'last'),
}

OURS_ALONE = ('ga',)  # the package has one GAIL, which stands beside `gail`


def known(name):
    """Does this tree have the mode and the reward of an algorithm?"""
    words = ALGORITHMS[name][1].split()
    option = dict(zip(words[::2], words[1::2], strict=True))
    return option['--mode'] in algorithms.MODES and option.get('--reward_type', 'nn') in algorithms.rewards()


def run(command):
    """CPU seconds of a command that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    env = os.environ | {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f'{" ".join(map(str, command))}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peer_python(args):
    """The Python of the environment that has the package, made when it is not there."""
    if args.peer_python:
        return args.peer_python
    folder = args.folder / 'venv'
    python = folder / 'bin' / 'python'
    if not (folder / 'complete').exists():
        print(f'installing {PEER[0]} into {folder} (once) …', file=sys.stderr)
        run([sys.executable, '-m', 'venv', '--clear', folder])
        run([python, '-m', 'pip', 'install', '-q', *PEER])
        (folder / 'complete').touch()
    return python


def episode_seeds(seed, num):
    """The seeds of the environment in the first episodes that `sample_episodes` plays with this seed."""
    from policyopt.sampling.rollout import Streams

    streams = Streams((seed, 'evaluate'))
    return [int(streams.generator(i).integers(2**31)) for i in range(num)]


def record(args):
    """(our file of demonstrations, the same for the package, the expert's net for it, the demonstrations)."""
    from policyopt.evaluation import open_policy
    from policyopt.files.trajectory_file import load_trajs

    trajs, npz, net = (args.folder / name for name in ('trajs.h5', 'trajs.npz', 'expert.npz'))
    if not trajs.exists():
        record = [REPO / 'scripts' / 'vis_mj.py', args.expert, '--env_name', args.env, '--count', args.trajs, '--seed', 0, '--out', trajs]
        run([sys.executable, *record])
    demos = load_trajs(str(trajs))
    if len(demos.lengths) != args.trajs:
        raise UserError(f'{trajs}: holds {len(demos.lengths)} trajectories, not {args.trajs}; choose another folder')
    seeds = episode_seeds(0, args.trajs)
    np.savez(npz, seeds=seeds, lengths=demos.lengths, obs=demos.obs.stacked, a=demos.a.stacked)
    actor = open_policy(args.expert, args.env)[0].actor()
    affine = [layer for layer, _ in actor.layers if layer is not None]
    if {act for _, act in actor.layers} - {'tanh', None}:
        raise UserError(f'{args.expert}: has other layers than tanh, which peer_imitation.py does not know')
    arrays: dict[str, Any] = {'num_layers': len(affine)}
    arrays |= {f'W{i}': W for i, (W, _) in enumerate(affine)} | {f'b{i}': b for i, (_, b) in enumerate(affine)}
    arrays |= {k: v for k, v in (('mean', actor.mean), ('scale', actor.scale), ('stdev', actor.stdev)) if v is not None}
    np.savez(net, **arrays)
    return trajs, npz, net, demos


def train_ours(args, name, seed, trajs):
    """What one of our runs came to: returns, CPU seconds, environment steps, and the points on the way."""
    from policyopt.evaluation import open_policy, sample_episodes
    from policyopt.files.runfile import read_run

    log, job, out = (args.folder / f'{kind}_{name}_{seed}{end}' for kind, end in (('ours', '.h5'), ('job_ours', '.json'), ('ours', '.out')))
    values = {'expert': args.expert, 'batch': args.batch, 'iterations': args.steps // args.batch, 'rounds': args.dagger_rounds}
    values['gail_iterations'] = args.steps // ImitationOptions(mode='gail').min_total_sa
    words = [word.format(**values) for word in ALGORITHMS[name][1].split()] + args.ours.get(name, '').split()
    common = ['--env_name', args.env, '--data', trajs, '--sim_batch_size', 1, '--seed', seed, '--log', log]
    for rest in (log, log.with_name(log.name + '.part')):
        rest.unlink(missing_ok=True)
    told = {'options': [str(word) for word in common] + words, 'eval_seed': args.seed, 'out': str(out)}
    write_text(str(job), json.dumps(told | {'every': args.every, 'curve_episodes': args.curve_episodes}))
    run([sys.executable, REPO / 'benchmarks' / 'peer_ours.py', job])
    snapshot = f'{log}/snapshots/{read_run(str(log), ALGORITHMS[name][2]).name}'
    # in this process: the time of workers would be taken for that of a later run
    played = sample_episodes(*open_policy(snapshot, args.env), args.episodes, args.seed, deterministic=True, sim_batch_size=1)
    return json.loads(out.read_text()) | {'returns': played.returns.tolist()}


def train_peer(args, name, seed, python, npz, net):
    """What one run of the package came to."""
    job, out = args.folder / f'job_{name}_{seed}.json', args.folder / f'peer_{name}_{seed}.out'
    told = {'algorithm': name, 'env': args.env.rpartition(':')[2], 'seed': seed, 'demonstrations': str(npz), 'expert': str(net)}
    told |= {'steps': args.dagger_steps if name == 'dagger' else args.steps, 'eval_seeds': episode_seeds(args.seed, args.episodes)}
    told |= {'every': args.every, 'curve_episodes': args.curve_episodes}
    write_text(str(job), json.dumps(told | {'scratch': str(args.folder / f'scratch_{name}_{seed}'), 'out': str(out)}))
    run([python, REPO / 'benchmarks' / 'peer_imitation.py', job])
    found = json.loads(out.read_text())
    if found['difference'] > 1e-6:
        raise RunFailed(f"{args.env}: the package's environment does not repeat our demonstrations (by {found['difference']:.2g})")
    return found


def cell(found):
    """'mean (sd …)' of the runs' mean returns, and their mean CPU seconds; empty without runs."""
    if not found:
        return ' | '
    means = [np.mean(x['returns']) for x in found]
    spread = f' (sd {np.std(means, ddof=1):.1f})' if len(means) > 1 else ''
    return f'{np.mean(means):.1f}{spread} | {np.mean([x["cpu_seconds"] for x in found]):.0f}'


def write_points(path, demos, runs):
    """A CSV file of every point: the demonstrations, then of each run {(side, name, seed): found} those on the way and the final one."""
    rows = [('expert', '', '', 0, '', demos)]
    for key, found in runs.items():
        final = {k: found[k] for k in ('steps', 'cpu_seconds', 'returns')}
        rows += [(*key, x['steps'], f'{x["cpu_seconds"]:.2f}', x['returns']) for x in [*found['points'], final]]
    lines = [f'{",".join(map(str, row))},{len(returns)},{np.mean(returns):.2f},{np.std(returns):.2f}' for *row, returns in rows]
    write_text(path, '\n'.join(['side,algorithm,seed,steps,cpu_seconds,episodes,return_mean,return_sd', *lines]) + '\n')


def main(argv):
    p = Parser('peers', __doc__)
    p.add_argument('--env', required=True)
    p.add_argument('--expert', required=True, metavar='FILE.h5/snapshots/last')
    p.add_argument('--folder', type=Path, required=True, help='of all files')
    p.add_argument('--algorithms', nargs='+', choices=list(ALGORITHMS), default=list(ALGORITHMS))
    p.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    p.add_argument('--trajs', type=int, default=10, help='demonstrations (10)')
    p.add_argument('--steps', type=int, default=1_000_000, help='environment steps of GAIL and AIRL (1000000)')
    p.add_argument('--batch', type=int, default=20_000, help='of them in an iteration of our ga and airl (20000)')
    p.add_argument('--dagger_steps', type=int, default=60_000, help="environment steps of the package's DAgger (60000)")
    p.add_argument('--dagger_rounds', type=int, default=12, help='rounds of ours, an episode each (12)')
    p.add_argument('--episodes', type=int, default=50, help='that every policy plays (50)')
    p.add_argument('--seed', type=int, default=12345, help='of these episodes')
    p.add_argument('--every', type=int, default=20_000, help='environment steps between two points of a learning curve (20000)')
    p.add_argument('--curve_episodes', type=int, default=10, help='episodes of such a point (10)')
    p.add_argument('--csv', metavar='FILE', help='write every point to this file')
    p.add_argument('--ours', nargs='+', default=[], metavar='NAME="OPTIONS"', help='more options for ours, e.g. gail="--reward_lr .003"')
    p.add_argument('--peer_python', help='a Python that has the package already')
    args = p.parse_args(argv)
    args.ours = dict(word.partition('=')[::2] for word in args.ours)
    args.folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in args.algorithms if known(name)]
    for name in set(args.algorithms) - set(names):
        print(f'{ALGORITHMS[name][0]}: skipped, this tree has no {ALGORITHMS[name][1]}', file=sys.stderr)
    python, (trajs, npz, net, demos) = peer_python(args), record(args)
    print(f'{args.env}: {args.trajs} demonstrations ({demos.lengths.sum()} pairs), {len(args.seeds)} seeds, '
          f'{args.episodes} deterministic episodes\n')  # fmt: skip
    print('| algorithm | environment steps | ours | CPU s | imitation 1.0.1 | CPU s |\n|---|---:|---:|---:|---:|---:|')
    runs = {}
    for name in names:
        found = {'ours': [], 'peer': []}
        for seed in args.seeds:
            for side in ['ours'] if name in OURS_ALONE else found:
                kept = args.folder / f'{side}_{name}_{seed}.json'
                if not kept.exists():
                    got = train_ours(args, name, seed, trajs) if side == 'ours' else train_peer(args, name, seed, python, npz, net)
                    write_text(str(kept), json.dumps(got))
                runs[side, name, seed] = said = json.loads(kept.read_text())
                found[side].append(said)
                print(f'{name} {side} seed {seed}: {np.mean(said["returns"]):.1f}, {said["cpu_seconds"]:.0f} s', file=sys.stderr)
        steps = ' / '.join(dict.fromkeys(str(some[0]['steps']) for some in found.values() if some))
        print(f'| {ALGORITHMS[name][0]} | {steps} | {cell(found["ours"])} | {cell(found["peer"])} |', flush=True)
    if args.csv:
        write_points(args.csv, demos.returns, runs)


if __name__ == '__main__':
    sys.exit(run_main('peers', main))
