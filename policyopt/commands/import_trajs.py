"""Convert demonstrations of other programs into a trajectory file.

    python scripts/import_trajs.py cartpole/expert-v0 trajs_cartpole.h5
    python scripts/import_trajs.py rollouts.npz trajs_mine.h5 --env_name CartPole-v1
    python scripts/import_trajs.py folder_of_csvs/ trajs_mine.h5

SOURCE is an .npz file, an HDF5 file of D4RL or robomimic, a CSV file or a folder of them, a folder
of the package imitation (pip install -e '.[hf]'), or the id of a Minari data set (pip install -e
'.[minari]').
The layout is recognised; --inspect says what was understood.

An .npz holds obs_0, acts_0, rews_0, obs_1, … (an episode each), or obs, acts and rews with axes for
episodes and steps, or flat arrays as of imitation and D4RL, or a buffer of Stable-Baselines3.
A CSV file has the columns obs…, act… and rew…, and holds one episode or several. Where episodes end
is said by terminals, timeouts, dones, lengths, masks, episode_starts, episode_ends or episode_id.
What the last action led to is kept where next_obs holds it and the end is known.
Rewards may be missing. Pickles are rejected: reading one runs code.
"""

import shlex
import sys

from policyopt.command_line import Parser
from policyopt.errors import UserError, printable
from policyopt.files.atomic import check_output
from policyopt.files.importers import ReadOptions, batch_of, check_task, described, import_trajs, read_source
from policyopt.shipped import as_typed


def main(argv):
    p = Parser('import_trajs', __doc__)
    p.add_argument('source', metavar='SOURCE', help='a file, a folder, or the id of a Minari data set')
    p.add_argument('out', metavar='OUT.h5', nargs='?', help='the trajectory file to write')
    p.add_argument('--inspect', action='store_true', help='say what is understood and write nothing')
    p.add_argument('--ends', metavar='A,B,…', help='the arrays that say where episodes end, where several contradict each other')
    p.add_argument('--time_axis', type=int, choices=[0, 1], help='which axis is time, of arrays with one for environments')
    p.add_argument('--obs_keys', metavar='A,B,…', help='the parts of an observation to put side by side, where it has several')
    p.add_argument('--force', action='store_true', help='store --env_name though the task cannot be made here')
    p.add_argument('--env_name', '--env', help='the task that the data belong to (default: what the source says)')
    p.add_argument('--download', action='store_true', help='fetch a Minari data set that is not on this computer')
    args = p.parse_args(argv)
    obs_keys = None if args.obs_keys is None else tuple(args.obs_keys.split(','))
    choices = {'download': args.download, 'ends': args.ends, 'time_axis': args.time_axis, 'obs_keys': obs_keys}
    if args.inspect:
        found = read_source(args.source, ReadOptions(**choices))
        trajs = batch_of(found.episodes, args.source)
        if args.env_name:
            check_task(trajs, args.env_name, args.source, args.force)
        print(described(found, trajs))
        return 0
    if args.out is None:
        raise UserError('OUT.h5 is missing: the trajectory file to write; or say --inspect')
    check_output(args.out, 'the trajectories')
    trajs, env_name = import_trajs(args.source, args.out, args.env_name, force=args.force, **choices)
    size = f'{len(trajs)} trajectories, {len(trajs.r.stacked)} pairs'
    env = printable(env_name or '')
    print(f'{args.out}: {size}, average return {trajs.returns.mean():.2f}' + (f' (env {env})' if env else ''))
    options = f'--env_name {shlex.quote(env or "ENV")} --data {shlex.quote(args.out)} --max_iter 100 --log run.h5'
    print('next:', as_typed(f'imitate_mj.py --mode gail {options}'), file=sys.stderr)
