"""The training runs behind imitate_mj.py and run_rl_mj.py: from options to a finished log, stopped and continued at will."""

import hashlib
import json
import os
import signal

import numpy as np
import torch

from policyopt import rl
from policyopt.build import check_data_fits, imitation_optimizer, sim_config, value_function, warn_of_constant_features
from policyopt.cloning import BehavioralCloningOptimizer
from policyopt.files import trajectories
from policyopt.files.runs import part_path
from policyopt.files.snapshots import TrainingLog, read_root
from policyopt.nn import SIMPLE_ARCHITECTURE, TINY_ARCHITECTURE
from policyopt.policies import make_policy
from policyopt.sampling.tasks import MDP
from policyopt.torchutil import numerics, setup_torch
from policyopt.util import MAX_ITER, RunFailed, UserError, check_writable_dir, draw_seed, now, provenance

STOPPED = 75  # exit code after a signal: the state is saved, --resume continues (EX_TEMPFAIL)
HARMLESS = ('log', 'resume', 'print_freq', 'verbose', 'data', 'max_iter')  # options that may differ between a run and its continuation

AT_LEAST_1, FRACTION = (1, np.inf, '1 or more'), (0, 1, '0 to 1')
ABOVE_0, FROM_0 = (np.finfo(float).tiny, np.finfo(float).max, 'a number above 0'), (0, np.finfo(float).max, '0 or more')
# Smallest and largest value of the numbers among the options, in words too. Mode bclone replaces save_freq by eval_freq, which is first.
RANGES = dict.fromkeys(('max_iter', 'bclone_eval_freq', 'save_freq', 'print_freq', 'min_total_sa', 'reward_steps'), AT_LEAST_1)
RANGES |= dict.fromkeys(('bclone_batch_size', 'max_traj_len', 'sim_batch_size'), AT_LEAST_1)
RANGES |= dict.fromkeys(('discount', 'lam', 'bclone_train_frac'), FRACTION)
RANGES |= dict.fromkeys(('policy_max_kl', 'vf_max_kl'), ABOVE_0)
RANGES |= dict.fromkeys(('policy_cg_damping', 'vf_cg_damping', 'policy_ent_reg', 'reward_ent_reg_weight'), FROM_0)
RANGES |= dict.fromkeys(('bclone_lr', 'reward_lr'), FROM_0)
RANGES['seed'] = (0, 2**32 - 1, '0 to 4294967295')


def train_imitation(args):
    """Run imitate_mj.py's options to the end; returns an exit code."""
    if args.mode == 'bclone':
        args.print_freq = args.save_freq = args.bclone_eval_freq
    device, dtype = prepare(args)
    trajs = trajectories.load_trajs(args.data, args.limit_trajs)
    mdp = MDP(args.env_name)
    check_data_fits(args.data, trajs, mdp)
    expert = trajectories.subsample(trajs, args.data_subsamp_freq)[:3]
    print(f'Expert dataset: {len(trajs.r.stacked)} pairs in {len(trajs)} trajectories, average return {trajs.returns.mean():.2f}')
    print(f'Every {args.data_subsamp_freq}. pair is used: {len(expert[0])} pairs')

    rng = np.random.RandomState(args.seed)
    nets = {'rng': rng, 'dtype': dtype, 'device': device}
    policy = make_policy(mdp.obs_space, mdp.action_space, args.policy_hidden_spec, args.obsnorm_mode != 'none', **nets)
    if args.obsnorm_mode == 'expertdata':
        warn_of_constant_features(expert[0])
        policy.update_obsnorm(expert[0])
    if args.mode == 'bclone':
        opt = BehavioralCloningOptimizer(
            policy, expert[0], expert[1], rng, args.bclone_lr, args.bclone_batch_size, args.bclone_eval_freq, args.bclone_train_frac
        )
    else:
        opt = imitation_optimizer(args, mdp, policy, expert, nets)
    return Run(args, opt, data_digest=digest(expert)).go()


def train_rl(args):
    """Run run_rl_mj.py's options to the end; returns an exit code."""
    device, dtype = prepare(args)
    mdp = MDP(args.env_name)
    horizon = mdp.horizon(args.max_traj_len)
    rng = np.random.RandomState(args.seed)
    nets = {'rng': rng, 'dtype': dtype, 'device': device}
    policy = make_policy(mdp.obs_space, mdp.action_space, args.policy_hidden_spec, bool(args.enable_obsnorm), **nets)
    time_scale = args.vf_include_time / (mdp.time_limit or horizon)
    vf = value_function(args, mdp, time_scale, nets, bool(args.enable_obsnorm))
    opt = rl.SamplingPolicyOptimizer(
        mdp, policy, vf, sim_config(args, horizon), args.discount, args.lam, args.policy_max_kl, args.policy_cg_damping, args.seed, rng
    )
    return Run(args, opt).go()


def prepare(args):
    """Check options that argparse cannot, resolve architecture and seed, and set up torch; returns (device, dtype)."""
    for name, (low, high, allowed) in RANGES.items():
        value = getattr(args, name, None)
        if value is not None and not low <= value <= high:  # this way round, NaN is refused too
            raise UserError(f'--{name} {value}: give {allowed}')
    if getattr(args, 'plot_freq', 0):
        raise UserError(f'--plot_freq {args.plot_freq}: plots while training are gone; run scripts/showlog.py on the log instead')
    if args.tiny_policy and args.policy_hidden_spec is not None:
        raise UserError('--tiny_policy and --policy_hidden_spec both choose the nets; give one of them')
    if args.policy_hidden_spec is None:
        args.policy_hidden_spec = TINY_ARCHITECTURE if args.tiny_policy else SIMPLE_ARCHITECTURE
    if args.log is not None:
        if not args.log or os.path.isdir(args.log):
            raise UserError(f"--log '{args.log}': expected the name of a file, e.g. run.h5")
        check_writable_dir(args.log, 'the log')
        if os.path.exists(args.log) and not args.resume:
            raise UserError(f'{args.log}: exists already, and finished data is never overwritten; choose another --log')
        if os.path.exists(part_path(args.log)) and not args.resume:
            raise UserError(f'{part_path(args.log)}: an unfinished run; continue it with --resume, or delete it to start again')
    elif args.resume:
        raise UserError('--resume needs --log, the file of the run to continue')
    if None in (args.seed, args.max_iter) and args.resume and os.path.exists(part_path(args.log)):
        started = read_root(part_path(args.log))['args']
        for name in ('seed', 'max_iter'):  # drawn or left to its default when the run was started
            if getattr(args, name) is None:
                setattr(args, name, started.get(name))
    if args.max_iter is None:
        args.max_iter = MAX_ITER
    if args.seed is None:
        args.seed = draw_seed()
        print(f'seed: {args.seed}')
    torch.set_grad_enabled(False)
    return setup_torch(args.device, args.dtype)


def digest(arrays):
    """A short digest of the expert pairs, to recognise a checkpoint of other data."""
    sha = hashlib.sha256()
    for a in arrays:
        sha.update(np.ascontiguousarray(a).tobytes())
    return sha.hexdigest()


class Run:
    """One training run: iterate, log, save at every save_freq, stop on a signal, continue bit for bit."""

    def __init__(self, args, opt, data_digest=''):
        self.args, self.opt = args, opt
        attrs = provenance() | {'numerics': numerics(), 'args': json.dumps(vars(args)), 'seed': args.seed, 'data_digest': data_digest}
        self.log = TrainingLog(args.log, attrs)
        self.signal = None

    def go(self):
        args = self.args
        if args.log is not None and os.path.exists(args.log):
            print(f'{args.log}: is complete already, and a finished run is not made longer')
            return 0
        if args.resume and os.path.exists(self.log.part_path):
            self.restore()
        for num in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(num, self.on_signal)
        while self.opt.iteration < args.max_iter:
            iteration = self.opt.iteration
            fields = self.opt.step()
            self.check_finite(fields)
            self.log.append(fields)
            last = iteration == args.max_iter - 1
            save = iteration % args.save_freq == 0
            if save or last:
                self.log.add_snapshot(iteration, self.opt.policy.export())
            if iteration % args.print_freq == 0 or last:
                self.print_row(fields)
            if (save or self.signal) and not last:
                self.log.save(self.state())
            if self.signal and not last:
                name = signal.Signals(self.signal).name
                print(f'stopped by {name} after iteration {iteration}; continue with --resume', flush=True)
                return STOPPED
        self.log.finish({'end_time': now(), 'wall_time': f'{self.opt.total_time:.3f}'})
        if args.log is not None:
            print(f'done: {args.log}\nlearning curve: python scripts/showlog.py {args.log}')
        return 0

    def on_signal(self, num, frame):
        self.signal = num

    def check_finite(self, fields):
        bad = [name for name, value, _ in fields if value is not None and not np.isfinite(value)]
        if bad or not torch.isfinite(self.opt.policy.theta_P).all():
            what = bad[0] if bad else 'the policy'
            raise RunFailed(
                f'iteration {self.opt.iteration - 1}: {what} is not a finite number; nothing after the last save is kept. '
                'Look at the scale of rewards and observations, or lower the step sizes'
            )

    def print_row(self, fields):
        if self.opt.iteration == 1 or self.opt.iteration % (20 * self.args.print_freq) == 1:
            print(' '.join(f'{name:>9}' for name, _, _ in fields))
        print(' '.join(f'{_cell(value):>9}' for _, value, _ in fields), flush=True)

    def state(self):
        """Everything a continued run needs beyond the log."""
        state = {k: v for m in self.models() for k, v in m.export().items()}
        state |= {f'/state/model{i}{k}': v for i, m in enumerate(self.models()) for k, v in m.state().items()}
        state |= {f'/optimizer/{k}': np.array(v) for k, v in self.opt.counters().items()}
        _, keys, pos, has_gauss, cached = self.opt.rng.get_state()
        return state | {'/rng/keys': keys, '/rng/pos': np.array([pos, has_gauss]), '/rng/cached_gaussian': np.array(cached)}

    def models(self):
        return [m for m in (self.opt.policy, getattr(self.opt, 'vf', None), getattr(self.opt, 'reward', None)) if m is not None]

    def restore(self):
        """Continue from the part file, after checking that it is a state of this very run."""
        path, mine = self.log.part_path, dict(self.log.attrs)
        state = self.log.restore()
        theirs = json.loads(self.log.attrs['args'])
        for key, value in vars(self.args).items():
            if key not in HARMLESS and theirs.get(key) != value:
                raise UserError(f'{path}: was started with --{key} {theirs.get(key)}, not {value}; give the same options, or delete it')
        if self.args.max_iter < theirs['max_iter']:
            raise UserError(
                f'{path}: was started with --max_iter {theirs["max_iter"]}, not {self.args.max_iter}; a run can be made longer, not shorter'
            )
        if self.log.attrs['data_digest'] != mine['data_digest']:
            raise UserError(f'{path}: was started with other expert data than {self.args.data}; give the same file, or delete it')
        for i, model in enumerate(self.models()):
            model.load(state, path)
            prefix = f'/state/model{i}'
            own = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix + '/')}
            if own:
                model.load_state(own)
        self.opt.load_counters({k.removeprefix('/optimizer/'): v for k, v in state.items() if k.startswith('/optimizer/')})
        if self.args.max_iter != theirs['max_iter']:  # a run that was started with as many is the same to the bit
            longer = {'args': json.dumps(theirs | {'max_iter': self.args.max_iter})}
            self.log.attrs |= longer | {'command': f'{self.log.attrs["command"]}; {mine["command"]}'}
        pos, has_gauss = state['/rng/pos']
        self.opt.rng.set_state(('MT19937', state['/rng/keys'], int(pos), int(has_gauss), float(state['/rng/cached_gaussian'])))
        print(f'continuing {path} at iteration {self.opt.iteration} of {self.args.max_iter}')
        kinds = self.log.attrs.get('numerics', 'a processor that it does not name').split('; ')
        if mine['numerics'] != kinds[-1]:
            print(f'{path}: was computed with {kinds[-1]}, here with {mine["numerics"]}: what follows will not be equal to the bit')
            self.log.attrs['numerics'] = '; '.join([*kinds, mine['numerics']])


def _cell(value):
    if value is None:
        return 'nan'
    return str(value) if isinstance(value, (int, np.integer)) else f'{value:.4g}'
