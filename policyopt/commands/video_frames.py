"""Save pictures of a policy at play, one PNG per step, for a film.

    python scripts/media/video_frames.py FILE.h5/snapshots/last frames/ --frames 300
    ffmpeg -framerate 30 -i frames/%05d.png play.mp4

The folder must be empty or new. A GIF is made at once by scripts/vis_mj.py --gif.
"""

import os

from policyopt.command_line import Parser, whole
from policyopt.errors import UserError
from policyopt.files.atomic import check_writable_dir


def main(argv):
    p = Parser('video_frames', __doc__)
    p.add_argument('policy', help='FILE.h5/snapshots/iter0000100, or …/last')
    p.add_argument('folder')
    p.add_argument('--frames', type=whole(1), default=300)
    p.add_argument('--env_name', '--env', help='task to play, instead of the one stored in the file')
    p.add_argument('--deterministic', action='store_true', help='most likely actions instead of sampled ones')
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args(argv)
    if os.path.lexists(args.folder) and (not os.path.isdir(args.folder) or os.listdir(args.folder)):
        raise UserError(f'{args.folder}: is no empty folder, and nothing is overwritten; expected a new or an empty one for the pictures')
    check_writable_dir(args.folder.rstrip('/'), 'the pictures')
    from PIL import Image

    from policyopt import evaluation

    policy, mdp = evaluation.open_policy(args.policy, args.env_name)
    pictures = evaluation.frames(policy, mdp, args.frames, args.seed, args.deterministic)
    for i, (picture, _) in enumerate(pictures):
        os.makedirs(args.folder, exist_ok=True)  # only now: a task that cannot be drawn leaves nothing behind
        Image.fromarray(picture).save(os.path.join(args.folder, f'{i:05d}.png'))
    print(f'{args.frames} pictures: {args.folder}')
