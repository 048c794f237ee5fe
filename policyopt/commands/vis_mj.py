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

from policyopt.command_line import Parser
from policyopt.errors import UserError
from policyopt.files.atomic import check_output
from policyopt.provenance import draw_seed, provenance


def main(argv):
    p = Parser('vis_mj', __doc__)
    p.add_argument('policy', help='FILE.h5/snapshots/iter0000100, or …/last')
    p.add_argument('--eval_only', action='store_true', help='print returns and lengths of --count episodes')
    p.add_argument('--count', type=int, help='episodes to play or to save (default: 50)')
    p.add_argument('--out', help='save the episodes as a trajectory file')
    p.add_argument('--gif', help='save an animation of --frames pictures')
    p.add_argument('--frames', type=int, help='pictures of an animation, steps of a window (default: 200)')
    p.add_argument('--reward', metavar='RUN.h5', help='print its learned reward along the first episode (see imitate_mj.py --save_reward)')
    p.add_argument('--deterministic', action='store_true', help='most likely actions instead of sampled ones')
    p.add_argument('--max_traj_len', type=int)
    p.add_argument('--env_name', '--env', help='task to play, instead of the one stored in the file')
    p.add_argument('--seed', type=int, help='default: drawn and printed')
    p.add_argument('--verbose', action='store_true')
    args = p.parse_args(argv)
    plays = next((f'--{name}' for name in ('eval_only', 'out', 'reward') if getattr(args, name)), None)
    for name in ('gif', 'frames') if plays else ('count',):
        if getattr(args, name) is not None:
            seen = f'with {plays}, which makes no pictures' if plays else 'without --eval_only, --out or --reward, where --frames counts'
            raise UserError(f'--{name} {getattr(args, name)} has no effect {seen}; leave it out')
    args.count, args.frames = 50 if args.count is None else args.count, 200 if args.frames is None else args.frames
    for name, value, low in (('count', args.count, 1), ('frames', args.frames, 1), ('seed', args.seed or 0, 0)):
        if value < low:
            raise UserError(f'--{name} {value}: give {low} or more')
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
    """Play --count episodes, print their returns, save and judge them where that is wanted."""
    from policyopt import evaluation, load_reward, save_trajs

    _, mdp, trajs = evaluation.evaluate_file(
        args.policy, args.count, args.seed, deterministic=args.deterministic, env_name=args.env_name, max_traj_len=args.max_traj_len
    )
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
    played = evaluation.open_policy(args.policy, args.env_name)
    for shown in evaluation.animate(*played, gif, args.frames, args.seed, deterministic=args.deterministic, max_traj_len=args.max_traj_len):
        unfinished = '' if shown.over else f' so far (stopped at --frames {args.frames})'
        print(f'return: {shown.ret:.4f} in {shown.length} steps{unfinished}')
    if gif:
        print(f'animation: {gif} ({args.frames} pictures; --frames N for another number)')
