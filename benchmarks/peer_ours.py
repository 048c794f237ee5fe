"""Our side of peers.py: one training run as imitate_mj.py does it, whose policy plays after every so many environment steps.

    python benchmarks/peer_ours.py JOB.json

The job names the options of imitate_mj.py, which keeps its log; the points of the learning curve go to a file of their own.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from policyopt import options, training
from policyopt.command_line import run_main
from policyopt.files.atomic import write_text
from policyopt.sampling.mdp import MDP, sample_trajectories


class Curve:
    """Plays the first episodes after every so many environment steps, and knows the CPU seconds that cost."""

    def __init__(self, job):
        self.job, self.mdp, self.steps, self.uncounted, self.points = job, None, 0, 0.0, []
        self.num_demonstrated = None  # labels before DAgger has played

    def seconds(self):
        """CPU seconds of the training so far, start of the program included."""
        return time.process_time() - self.uncounted

    def steps_after(self, row):
        """Environment steps up to a row of the log: those of TRPO, or labels of DAgger (here it labels every step), or none."""
        labels = row.get('nlabels', 0)
        if self.num_demonstrated is None:
            self.num_demonstrated = labels
        return row.get('nsa', labels - self.num_demonstrated)

    def add_point(self, run, row):
        steps = self.steps_after(row)
        if steps // self.job['every'] > self.steps // self.job['every']:
            started, seconds = time.process_time(), self.seconds()
            self.mdp = self.mdp or MDP(run.args.env_name)  # of its own: the environments of the run stay as they are
            horizon, key = self.mdp.longest(), (self.job['eval_seed'], 'evaluate')
            played = sample_trajectories(run.opt.policy.actor(), self.mdp, self.job['curve_episodes'], horizon, key, True, 1)
            self.points.append({'steps': steps, 'cpu_seconds': seconds, 'returns': played.returns.tolist()})
            self.uncounted += time.process_time() - started
        self.steps = steps


def main(argv):
    job = json.loads(Path(argv[0]).read_text())
    curve, iterate = Curve(job), training.Run.iterate

    def iterate_and_play(run):
        fields = iterate(run)
        curve.add_point(run, {name: value for name, value, _ in fields})
        return fields

    training.Run.iterate = iterate_and_play  # pyright: ignore[reportAttributeAccessIssue] (a method by another name)
    failed = training.train_imitation(options.parse_options('imitate_mj', __doc__, options.ImitationOptions, job['options']))
    write_text(job['out'], json.dumps({'cpu_seconds': curve.seconds(), 'steps': curve.steps, 'points': curve.points}))
    return failed


if __name__ == '__main__':
    sys.exit(run_main('peer_ours', main))
