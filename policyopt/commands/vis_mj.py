"""Play a policy: evaluate it, record its trajectories, or watch it.

    python scripts/vis_mj.py FILE.h5/snapshots/iter0000100 --eval_only
    python scripts/vis_mj.py FILE.h5/snapshots/last --count 10 --out trajs_mine.h5
    python scripts/vis_mj.py FILE.h5/snapshots/last --gif play.gif
    python scripts/vis_mj.py FILE.h5/snapshots/last --reward RUN.h5

--eval_only scores it, --out with --count records it. Without --eval_only, --out, --reward or --gif
it opens a window; where there is no screen it writes play.gif instead.
"""

import os
import sys

from policyopt.command_line import Parser, whole
from policyopt.errors import UserError
from policyopt.files.atomic import check_output
from policyopt.options import MAX_TRAJS
from policyopt.provenance import draw_seed, provenance


def main(argv):
    p = Parser('vis_mj', __doc__)
    p.add_argument('policy', help='FILE.h5/snapshots/iter0000100, or …/last')
    p.add_argument('--eval_only', action='store_true', help='print returns and lengths of --count episodes')
    p.add_argument('--count', type=whole(1, MAX_TRAJS), help='episodes to play or to save (default: 50)')
    p.add_argument('--out', help='save the episodes as a trajectory file')
    p.add_argument('--gif', help='save an animation of --frames pictures')
    p.add_argument('--frames', type=whole(1), help='pictures of an animation, steps of a window (default: 200)')
    p.add_argument('--reward', metavar='RUN.h5', help='print its learned reward along the first episode (see imitate_mj.py --save_reward)')
    p.add_argument('--deterministic', action='store_true', help='most likely actions instead of sampled ones')
    p.add_argument('--max_traj_len', type=int)
    p.add_argument('--env_name', '--env', help='task to play, instead of the one stored in the file')
    p.add_argument('--seed', type=whole(0, 2**63 - 1), help='default: drawn and printed')
    args = p.parse_args(argv)
    plays = next((f'--{name}' for name in ('eval_only', 'out', 'reward') if getattr(args, name)), None)
    for name in ('gif', 'frames') if plays else ('count',):
        if getattr(args, name) is not None:
            seen = f'with {plays}, which makes no pictures' if plays else 'without --eval_only, --out or --reward; animations take --frames'
            raise UserError(f'--{name} {getattr(args, name)} has no effect {seen}; leave it out')
    args.count, args.frames = args.count or 50, args.frames or 200
    if args.out and os.path.isfile(args.out):
        raise UserError(f'{args.out}: exists already, and finished data is never overwritten; choose another --out')
    from policyopt.files import training_log

    inputs = [training_log.split_policy_path(args.policy)[0], *filter(None, [args.reward])]
    for path, what in ((args.out, 'the trajectories'), (args.gif, 'the animation')):
        if path is not None:
            check_output(path, what, inputs)
    if args.gif and not args.gif.lower().endswith('.gif'):
        raise UserError(f'{args.gif}: cannot write an animation of this kind; expected a name that ends in .gif')
    if args.seed is None:
        args.seed = draw_seed()
        print(f'seed: {args.seed}')
    (score if plays else show)(args)


def score(args):
    """Play --count episodes, print their returns, and save and score them if asked."""
    from policyopt import evaluation, load_reward, save_trajs

    policy, mdp = evaluation.open_policy(args.policy, args.env_name)
    how = {'deterministic': args.deterministic, 'max_traj_len': args.max_traj_len}
    trajs = evaluation.sample_episodes(policy, mdp, args.count, args.seed, **how)
    if args.reward:
        print(evaluation.compare_rewards(trajs, load_reward(args.reward, mdp, args.max_traj_len)))
    print(evaluation.scores(trajs))
    if args.out:
        attrs = provenance() | {'env_name': mdp.env_name, 'env_id': mdp.env_id, 'policy': args.policy, 'seed': args.seed}
        save_trajs(args.out, trajs, attrs)
        print(f'{len(trajs)} trajectories: {args.out}')


def show(args):
    """Show --frames pictures in a window or as a GIF, and print the returns of its episodes."""
    from policyopt import evaluation

    gif = args.gif or (None if any(map(os.environ.get, ('DISPLAY', 'WAYLAND_DISPLAY'))) or sys.platform == 'darwin' else 'play.gif')
    policy, mdp = evaluation.open_policy(args.policy, args.env_name)
    pictures = evaluation.frames(policy, mdp, args.frames, args.seed, deterministic=args.deterministic, max_traj_len=args.max_traj_len)
    for shown in evaluation.animate(pictures, gif):
        unfinished = '' if shown.over else f' so far (stopped at --frames {args.frames})'
        print(f'return: {shown.ret:.4f} in {shown.length} steps{unfinished}')
    if gif:
        print(f'animation: {gif} ({args.frames} pictures; --frames N for another number)')
