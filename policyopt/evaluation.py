"""Loading and playing policies: exactly N episodes of a policy on its task, for expert data, results and scores."""

import numpy as np

from environments.rlgymenv import BadEnvironment, make_env
from policyopt.files.snapshots import read_snapshot
from policyopt.policies import policy_from_snapshot
from policyopt.sampling.tasks import MDP, sample_trajectories
from policyopt.util import RunFailed, UserError, check_writable_dir, replacing


def load_policy(policy_path, mdp):
    """The policy stored at 'FILE.h5/snapshots/iter0000100' (or '…/snapshots/last'), of ours or of 2016, checked against the task."""
    snapshot = read_snapshot(policy_path)
    policy = policy_from_snapshot(snapshot, mdp)
    mdp.warn_of_another_task(policy_path, snapshot.args.get('env_name'))
    return policy


def sample_episodes(policy, mdp, num_trajs, seed, deterministic=False, max_traj_len=None):
    """Exactly num_trajs episodes, in the order in which they were started, as a TrajBatch.

    A pure function of its arguments: episode i has its own random stream. deterministic takes the most likely action.
    """
    if num_trajs < 1:
        raise UserError(f'{num_trajs} episodes were asked for; give 1 or more')
    return sample_trajectories(policy.actor(), mdp, num_trajs, mdp.horizon(max_traj_len), (seed, 'evaluate'), deterministic)


def evaluate_file(policy_path, num_trajs, seed, deterministic=False, env_name=None, max_traj_len=None):
    """Play the policy 'FILE.h5/snapshots/…' on env_name, or on the task that its file names; returns (policy, mdp, TrajBatch)."""
    stored = read_snapshot(policy_path).args.get('env_name')
    if not (env_name or stored):
        raise UserError(f'{policy_path}: does not say which env it was trained on; give --env_name')
    mdp = MDP(env_name or stored)
    policy = load_policy(policy_path, mdp)
    return policy, mdp, sample_episodes(policy, mdp, num_trajs, seed, deterministic, max_traj_len)


def frames(policy, env_name, num_frames, seed, deterministic=False, max_traj_len=None):
    """Yield RGB pictures (H, W, 3) of a policy at play, episode after episode.

    Raises UserError where the task cannot be drawn, RunFailed where it fails at play.
    """
    try:
        env = make_env(env_name, render_mode='rgb_array')
    except BadEnvironment as e:
        raise UserError(f'{e}; an animation needs the render_mode rgb_array') from e
    actor, rng = policy.actor(), np.random.default_rng(seed)
    try:
        t, obs = 0, env.reset(int(rng.integers(2**31)))
        for _ in range(num_frames):
            yield env.render()
            obs, _, done = env.step(actor.act(actor.outputs(obs[None]), None if deterministic else actor.noise(rng, 1))[0])
            t += 1
            if done or t == max_traj_len:
                t, obs = 0, env.reset(int(rng.integers(2**31)))
    except BadEnvironment as e:
        raise RunFailed(str(e)) from e
    finally:
        env.close()


def animate(policy, env_name, out, num_frames, seed, deterministic=False, max_traj_len=None, fps=30):
    """Save a policy at play as a GIF (out), or show it in a window (out None)."""
    pictures = frames(policy, env_name, num_frames, seed, deterministic, max_traj_len)
    if out is None:
        import matplotlib.pyplot as plt

        image = None
        for picture in pictures:
            image = plt.imshow(picture) if image is None else image
            image.set_data(picture)
            plt.axis('off')
            plt.pause(1 / fps)
        return
    from PIL import Image

    check_writable_dir(out, 'the animation')
    images = [Image.fromarray(picture) for picture in pictures]
    with replacing(out) as tmp:
        images[0].save(tmp, format='GIF', save_all=True, append_images=images[1:], duration=int(1000 / fps), loop=0)
