"""Run an experiment: sample the experts, train and evaluate every run.

    python scripts/im_pipeline.py pipelines/quickstart.yaml all
    python scripts/im_pipeline.py pipelines/classic.yaml 1_train -j 4 --only alg=ga task=cartpole
    python scripts/im_pipeline.py pipelines/classic.yaml 1_train -n | parallel -j 8
    python scripts/im_pipeline.py pipelines/classic.yaml 1_train --estimate -j 4

Stages: 0_sampletrajs, 1_train, 2_eval (or their digits), or all. A run is done when its .h5 exists.
After an interruption, the same command with --resume continues.
Templates that call our imitate_mj.py get --seed (and a task's --max_traj_len) added unless they
have it; those of other programs stay as they are. `python` at the head of a template is the Python
that runs this command.
"""

import argparse
import sys

from policyopt.command_line import Parser, run_main, whole
from policyopt.pipeline.plan import How
from policyopt.pipeline.schedulers import SCHEDULERS
from policyopt.pipeline.stages import run_stage


def parsed(argv):
    """(experiment file, stage, assignments of --set, whether --summary is given, other options) of a command line."""
    p = Parser('im_pipeline', __doc__, verbose=False)
    p.add_argument('spec', metavar='SPEC.yaml', help='the experiment, for example pipelines/classic.yaml')
    p.add_argument('stage', metavar='STAGE', help='0_sampletrajs, 1_train, 2_eval, 0, 1, 2 or all')
    p.add_argument('-n', '--dry-run', action='store_true', help='run nothing, show what would be done; 1_train: bare commands to a pipe')
    p.add_argument('-j', '--jobs', type=whole(1), metavar='N', help='runs at a time (default: all cores; 1: one after the other)')
    p.add_argument('-k', '--keep-going', action='store_true', help='try all runs; else a failure starts no new ones (running ones finish)')
    p.add_argument('--resume', action='store_true', help='skip what is done, continue what was begun')
    filters = {'nargs': '+', 'action': 'extend', 'default': [], 'metavar': 'KEY=VALUE'}
    p.add_argument('--only', **filters, help='only these runs: alg=ga task=hopper num_trajs=4 run=0 (* and ? in values), or whole run ids')
    p.add_argument('--exclude', **filters, help='all but these runs')
    p.add_argument('--rerun', **filters, help='2_eval: evaluate these runs again, though the results have them; the others stay')
    p.add_argument('--set', **filters, help='replace keys of the YAML: training.runs=1 tasks.cartpole.data_subsamp_freq=5')
    p.add_argument('--estimate', action='store_true', help='say how long 1_train will take, measured; with all: before it trains')
    p.add_argument('--summary', action='store_true', help='show what is done, running, unfinished and missing')
    p.add_argument('-e', '--executor', choices=['local', *SCHEDULERS], default='local', help='where the stages run')
    p.add_argument('-y', '--yes', action='store_true', help='submit to the cluster without asking')
    p.add_argument('--wait', action='store_true', help='1_train: wait for the cluster, or for the runs that other machines do')
    p.add_argument('--no-table', action='store_true', help=argparse.SUPPRESS)  # run_all prints a wider one
    p.add_argument('--threads', type=whole(1), metavar='N', help='threads and sampling processes of each run (default: 1)')
    p.add_argument('--seed', type=int, metavar='N', help='as --set training.seed=N (equal bits on one kind of processor only)')
    p.add_argument('--device', help='cpu or cuda, passed on to imitate_mj.py')
    p.add_argument('-q', '--quiet', action='store_true', help='no progress on stderr, failures only')
    p.add_argument('-v', '--verbose', action='store_true', help='show each command as it starts, and tracebacks of errors')
    task = p.add_argument_group('for the jobs of a cluster, whose scripts give these')
    task.add_argument('--task-list', metavar='FILE', help='run ids: in line I those of array task I, done one by one (-j: N at a time)')
    index = 'do these runs, each continued if it was begun; exit code 75: stopped, and all is saved'
    task.add_argument('--task-index', type=int, metavar='I', help=index)
    task.add_argument('--stop-after', type=whole(1), metavar='S', help='stop after S seconds as at SIGUSR1, the warning of a time limit')
    task.add_argument('--requeue', metavar='CMD', help='the command that starts this job again, called once such a warning has stopped it')
    args = vars(p.parse_args(argv))
    overrides = args.pop('set') + ([] if args['seed'] is None else [f'training.seed={args["seed"]}'])
    args['verbosity'] = args.pop('verbose') - args.pop('quiet')
    del args['seed']
    return args.pop('spec'), args.pop('stage'), overrides, args.pop('summary'), How(**args)


def main(argv):
    path, stage, overrides, summary, how = parsed(argv)
    return run_stage(stage, path, overrides, summary, how)


if __name__ == '__main__':
    sys.exit(run_main('im_pipeline', main))
