#!/usr/bin/env python3
"""Convert demonstrations from elsewhere into a trajectory file for --data.

    python scripts/import_trajs.py cartpole/expert-v0 trajs_cartpole.h5
    python scripts/import_trajs.py rollouts.npz trajs_mine.h5 --env_name CartPole-v1
    python scripts/import_trajs.py folder_of_csvs/ trajs_mine.h5

SOURCE is the id of a Minari data set (pip install -e '.[minari]'), an .npz file, or a folder with one CSV file per episode.
An .npz holds obs_0, acts_0, rews_0, obs_1, … (an episode each), obs, acts, rews with one axis for episodes, or the flat arrays of the
package imitation and of D4RL: obs, acts, rews or next_obs, and terminal, dones or timeouts. A CSV has the columns obs…, act… and rew….
Rewards may be missing. Files with Python objects (pickles) are refused: reading one runs code.
"""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt.files.importing import import_trajs
from policyopt.util import Parser, as_typed, check_output, printable, run_main


def main(argv):
    p = Parser('import_trajs', __doc__)
    p.add_argument('source', metavar='SOURCE', help='a Minari id, an .npz file, or a folder of CSV files')
    p.add_argument('out', metavar='OUT.h5', help='the trajectory file to write')
    p.add_argument('--env_name', '--env', help='the task that the data belong to (default: what the source says)')
    p.add_argument('--download', action='store_true', help='fetch a Minari data set that is not on this computer')
    p.add_argument('--verbose', action='store_true', help='show a traceback on errors')
    args = p.parse_args(argv)
    check_output(args.out, 'the trajectories')
    trajs, env_name = import_trajs(args.source, args.out, args.env_name, args.download)
    size = f'{len(trajs)} trajectories, {len(trajs.r.stacked)} pairs'
    env = printable(env_name or '')
    print(f'{args.out}: {size}, average return {trajs.returns.mean():.2f}' + (f' (env {env})' if env else ''))
    options = f'--env_name {shlex.quote(env or "ENV")} --data {shlex.quote(args.out)} --max_iter 301 --min_total_sa 5000 --log run.h5'
    print('next:', as_typed(f'imitate_mj.py --mode ga {options}'), file=sys.stderr)


if __name__ == '__main__':
    sys.exit(run_main('import_trajs', main))
