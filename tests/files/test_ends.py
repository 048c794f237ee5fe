"""Where episodes end: recordings of every layout arrive as the episodes that they are, or are refused with both readings."""

import numpy as np
import pytest

import policyopt as po
from policyopt.errors import UserError
from policyopt.files.importers import ReadOptions, import_trajs, read_source
from policyopt.files.trajectory_file import load_trajs

LENGTHS = np.array([30, 50, 40])


def padded(**more):
    """Three episodes in arrays (3, 50, …), filled up with zeros."""
    rng, (num, T) = np.random.default_rng(0), (3, 50)
    obs, acts, rews = np.zeros((num, T, 4)), np.zeros((num, T), int), np.zeros((num, T))
    for i, n in enumerate(LENGTHS):
        obs[i, :n], acts[i, :n], rews[i, :n] = rng.normal(size=(n, 4)), rng.integers(2, size=n), 1
    return {'obs': obs, 'acts': acts, 'rews': rews} | more


def flat(**more):
    rng, num = np.random.default_rng(0), int(LENGTHS.sum())
    return {'obs': rng.normal(size=(num, 4)), 'acts': rng.integers(2, size=num), 'rews': np.ones(num)} | more


STEP = np.arange(50) == LENGTHS[:, None] - 1
STAY = np.arange(50) >= LENGTHS[:, None] - 1
VALID = np.arange(50) < LENGTHS[:, None]
LAST = np.isin(np.arange(120), np.cumsum(LENGTHS) - 1)
FIRST = np.isin(np.arange(120), np.cumsum(LENGTHS) - LENGTHS)
SAME = {
    'dones': padded(dones=STEP),
    'dones that stay up': padded(dones=STAY),
    'dones with an axis more': padded(dones=STEP[..., None].astype('f4')),
    'terminals and no timeouts': padded(terminals=STEP, timeouts=0 * STEP),
    'timeouts': padded(timeouts=STEP),
    'truncated': padded(truncated=STEP.astype(float)),
    'lengths': padded(lengths=LENGTHS),
    'lengths and dones': padded(lengths=LENGTHS, dones=STEP),
    'a mask of valid steps': padded(masks=VALID),
    'a mask of 1 - done': padded(masks=1 - STAY),
    'episode_ends of each step': padded(episode_ends=STEP),
    'flat dones': flat(dones=LAST),
    'flat lengths': flat(lengths=LENGTHS),
    'flat lengths without a sign': flat(lengths=LENGTHS.astype('u1'), dones=LAST),
    'flat starts': flat(episode_starts=FIRST),
    'flat ends': flat(episode_ends=np.cumsum(LENGTHS)),
    'flat flags of both kinds': flat(terminals=LAST & (np.arange(120) < 60), timeouts=LAST & (np.arange(120) > 60)),
    'starts and dones': flat(episode_starts=FIRST, dones=LAST),
    'flat numbers of episodes': flat(episode_id=np.repeat([4, 2, 7], LENGTHS)),
    'numbers of episodes that float64 cannot tell apart': flat(episode_id=np.repeat(2**60 + np.arange(3), LENGTHS)),
    'numbers of episodes, some terminal': flat(traj_ids=np.repeat([0, 1, 2], LENGTHS), terminals=LAST & (np.arange(120) > 99)),
    'lengths as decimal numbers': padded(lengths=LENGTHS.astype(float)),
    'one observation more a row': padded(obs=np.concatenate([padded()['obs'], np.zeros((3, 1, 4))], axis=1), dones=STEP),
    'names of one thing': {{'obs': 'state', 'acts': 'action', 'rews': 'reward'}[k]: x for k, x in flat().items()} | {'done': LAST},
}


@pytest.mark.parametrize('case', SAME)
def test_every_array_that_says_where_episodes_end_is_used(case, tmp_path):
    np.savez(tmp_path / 'in.npz', **SAME[case])
    trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    assert trajs.lengths.tolist() == LENGTHS.tolist() and trajs.returns.tolist() == LENGTHS.tolist()


REFUSED = {
    'lengths against dones': (padded(lengths=LENGTHS - 5, dones=STEP), 'contradict each other', '--ends lengths'),
    'starts against dones': (flat(episode_starts=np.roll(FIRST, 3), dones=LAST), 'contradict each other', '--ends dones'),
    'lengths that do not add up': (flat(lengths=LENGTHS - 1), 'add up to 120', 'in.npz'),
    'ends that do not grow': (flat(episode_ends=np.array([120, 30])), 'in.npz: the lengths by episode_ends are [120 -90]', 'add up to 120'),
    'numbers that come back': (
        flat(episode_id=np.arange(120) % 2),
        'episode_id is 0 again at step 2',
        '--ends episode_id takes it as it is',
    ),
    'a number that is none': (flat(episode_id=np.full(120, np.nan)), 'episode_id is nan again at step 1', 'side by side'),
    'words': (flat(dones=np.array(['no'] * 120)), 'expected 0 or 1 for each step', 'dones of type <U2'),
    'numbers': (flat(dones=np.arange(120)), 'expected 0 or 1 for each step', 'dones holds 2'),
    'a mask alone': (flat(masks=1 - LAST), 'can mean that an episode ends or that a step counts', "give 'dones'"),
    'several episodes a row': (padded(obs=np.ones((3, 50, 4)) * np.arange(50)[:, None], dones=STEP), 'which axis is', '--time_axis'),
    'nothing': (flat(), 'nothing says where an episode ends', "'dones', 'terminals', 'timeouts' or 'lengths'"),
    'spare observations': ({'obs_0': np.ones((10, 4)), 'acts_0': np.ones(5)}, '10 observations for 5 actions', 'as many, or one more'),
    'spare rewards': (
        {'obs_0': np.ones((5, 4)), 'acts_0': np.ones(5), 'rews_0': np.ones(9)},
        'rewards has shape (9,) for 5 actions',
        'one for each',
    ),
    'other next_obs': ({'obs_0': np.ones((5, 4)), 'acts_0': np.ones(5), 'next_obs_0': np.ones((5, 3))}, 'next_obs of shape', '(5, 4)'),
    'a mask along the other axis': ({k: x.swapaxes(0, 1) for k, x in padded(masks=VALID).items()}, 'masks is 0 at step 0', 'the time'),
    'padding on the left': ({k: x[:, ::-1] for k, x in padded(dones=0 * STEP).items()}, 'steps 0 to 19 hold nothing', 'lengths'),
    'one step again and again': (padded(obs=np.where(VALID[..., None], padded()['obs'], -1)), 'steps 30 to 49 are all the same', 'lengths'),
    'flags of the step before': (flat(dones=FIRST), 'as where it says that an episode begins', 'episode_starts'),
    'normalised next_obs': (flat(next_obs=np.random.default_rng(1).normal(size=(120, 4)), dones=LAST), 'was it normalised', '--ends'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_contradicts_itself_is_refused_with_the_option_that_decides(case, tmp_path):
    arrays, *expected = REFUSED[case]
    np.savez(tmp_path / 'in.npz', **arrays)
    with pytest.raises(UserError) as refused:
        import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    assert all(text in str(refused.value) for text in expected) and not (tmp_path / 'out.h5').exists()


def test_next_observations_that_go_on_where_episodes_end_are_no_last_observations(tmp_path):
    """Some recorders keep the first observation of the next episode in the place of the last one, or flags one step late."""
    arrays = flat(dones=LAST)
    after = np.concatenate([arrays['obs'][1:], np.ones((1, 4))])
    np.savez(tmp_path / 'reset.npz', **arrays, timeouts=0 * LAST, next_obs=after)
    trajs, _ = import_trajs(str(tmp_path / 'reset.npz'), str(tmp_path / 'reset.h5'))
    assert trajs.lengths.tolist() == LENGTHS.tolist() and trajs.terminal_B.all() and not trajs.lastobs_B_Do.any()
    np.savez(tmp_path / 'late.npz', **flat(dones=np.roll(LAST, 2)), next_obs=np.where(LAST[:, None], 5.0, after))
    with pytest.raises(UserError, match=r'but next_obs goes on there and breaks off elsewhere: 3 episodes, 120 steps \(30, 50, 40\)'):
        import_trajs(str(tmp_path / 'late.npz'), str(tmp_path / 'late.h5'))


def test_the_option_decides(tmp_path):
    np.savez(tmp_path / 'in.npz', **padded(lengths=LENGTHS - 5, dones=STEP))
    for name, lengths in (('lengths', LENGTHS - 5), ('dones', LENGTHS)):
        trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / f'{name}.h5'), ends=name)
        assert trajs.lengths.tolist() == lengths.tolist()


def test_the_option_names_several_arrays_and_those_of_each_episode(tmp_path):
    late = np.arange(120) > 60
    np.savez(tmp_path / 'in.npz', **flat(terminals=LAST & ~late, timeouts=LAST & late, episode_starts=np.roll(FIRST, 3)))
    with pytest.raises(UserError, match='--ends terminals,timeouts or --ends episode_starts'):
        import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'flat.h5'), ends='terminals,timeouts')
    assert trajs.lengths.tolist() == LENGTHS.tolist()
    one = {'obs_0': np.ones((9, 2)), 'acts_0': np.ones(9), 'dones_0': np.arange(9) == 8, 'lengths_0': [7]}
    np.savez(tmp_path / 'one.npz', **one)
    with pytest.raises(UserError, match='--ends lengths or --ends dones|--ends dones or --ends lengths'):
        import_trajs(str(tmp_path / 'one.npz'), str(tmp_path / 'out.h5'))
    assert import_trajs(str(tmp_path / 'one.npz'), str(tmp_path / 'one.h5'), ends='lengths')[0].lengths.tolist() == [7]
    (tmp_path / 'csvs').mkdir()
    (tmp_path / 'csvs' / 'a.csv').write_text('obs0,act,done\n1,0,1\n')
    for source, name in (('in.npz', 'rews'), ('in.npz', 'dones'), ('csvs', 'lengths')):
        with pytest.raises(UserError, match=f"--ends: no array '{name}' that says where episodes end; there is"):
            import_trajs(str(tmp_path / source), str(tmp_path / 'out.h5'), ends=name)


@pytest.mark.parametrize(('axis', 'more'), [(0, 0), (1, 0), (1, 1)])
def test_buffers_of_several_environments_are_cut_along_the_time(axis, more, tmp_path):
    """As Stable-Baselines3 keeps them, (time, environment, …), or the other way round, then perhaps with the last observation."""
    rng, dones = np.random.default_rng(0), np.zeros((60, 2), bool)
    dones[[19, 59], 0] = dones[[9, 39], 1] = True
    arrays = {'obs': rng.normal(size=(60, 2, 3)), 'acts': rng.integers(2, size=(60, 2)), 'rews': np.ones((60, 2)), 'dones': dones}
    if axis == 1:
        arrays = {name: np.swapaxes(x, 0, 1) for name, x in arrays.items()}
        arrays['obs'] = np.concatenate([arrays['obs'], np.zeros((2, more, 3))], axis=1)
    np.savez(tmp_path / 'in.npz', **arrays)
    trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'), time_axis=axis)
    assert trajs.lengths.tolist() == [20, 40, 10, 30, 20]
    assert np.array_equal(trajs.obs[0], (arrays['obs'] if axis == 0 else np.swapaxes(arrays['obs'], 0, 1))[:20, 0])


def test_environments_side_by_side_may_have_an_observation_more_than_actions(tmp_path):
    obs, dones = np.random.default_rng(0).normal(size=(2, 31, 3)), np.arange(30) % 10 == 9
    np.savez(tmp_path / 'in.npz', obs=obs, acts=np.zeros((2, 30, 1)), dones=np.array([dones, dones]))
    found = read_source(str(tmp_path / 'in.npz'), ReadOptions(time_axis=1)).episodes
    assert [len(e.obs) for e in found] == [10, 10, 11] * 2, 'the last episode of each has what its last action led to'


@pytest.mark.parametrize(('obs', 'after'), [('f4', 'f8'), ('f8', 'f4'), ('f2', 'f8'), ('f4', 'f4'), ('f8', 'f8')])
def test_next_observations_of_another_type_follow_all_the_same(obs, after, tmp_path):
    x = np.random.default_rng(0).normal(size=(101, 4)) * [1, 1e3, 1e-3, 1]
    arrays = {'acts': np.zeros(100, int), 'rews': np.ones(100), 'dones': np.arange(100) == 99}
    np.savez(tmp_path / 'in.npz', obs=x[:-1].astype(obs), next_obs=x[1:].astype(after), **arrays)
    trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    assert trajs.lengths.tolist() == [100]


def test_an_episode_may_be_one_step_long(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 4))
    one = {'obs_0': x[:1], 'next_obs_0': x[1:2], 'acts_0': [1], 'terminal_0': [False], 'obs_1': x[1:], 'acts_1': [0], 'terminal_1': [True]}
    np.savez(tmp_path / 'in.npz', **one)
    trajs, _ = import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    assert trajs.lengths.tolist() == [1, 1] and trajs.terminal_B.tolist() == [False, True]
    assert np.array_equal(trajs.lastobs_B_Do, x[1:])


def truncated_and_terminated():
    x, y = np.random.default_rng(0).normal(size=(61, 4)), np.random.default_rng(1).normal(size=(41, 4))
    return x, y, np.arange(100) == 99, np.arange(100) == 59


def check_ends(path):
    x, y, _, _ = truncated_and_terminated()
    trajs = load_trajs(str(path))
    assert trajs.lengths.tolist() == [60, 40] and trajs.terminal_B.tolist() == [False, True]
    np.testing.assert_allclose(trajs.lastobs_B_Do, [x[-1], y[-1]])
    np.testing.assert_allclose(trajs.obs.stacked, np.concatenate([x[:-1], y[:-1]]))


def test_what_the_last_action_led_to_is_kept_from_flat_arrays(tmp_path):
    x, y, terminals, timeouts = truncated_and_terminated()
    obs, after = np.concatenate([x[:-1], y[:-1]]), np.concatenate([x[1:], y[1:]])
    ends = {'terminals': terminals, 'timeouts': timeouts}
    np.savez(tmp_path / 'in.npz', observations=obs, next_observations=after, actions=np.zeros(100, int), **ends)
    import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    check_ends(tmp_path / 'out.h5')


def test_what_the_last_action_led_to_is_kept_from_arrays_for_each_episode(tmp_path):
    x, y, _, _ = truncated_and_terminated()
    arrays = {'obs_0': x, 'acts_0': np.zeros(60, int), 'terminal_0': False, 'obs_1': y, 'acts_1': np.zeros(40, int), 'terminal_1': True}
    np.savez(tmp_path / 'in.npz', **arrays)
    import_trajs(str(tmp_path / 'in.npz'), str(tmp_path / 'out.h5'))
    check_ends(tmp_path / 'out.h5')


def test_what_the_last_action_led_to_is_kept_from_csv_files_whatever_the_order_of_their_columns(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    x, y, _, _ = truncated_and_terminated()
    for i, (obs, order) in enumerate(((x, [3, 1, 0, 2]), (y, [0, 2, 1, 3]))):
        names = [f'obs{k}' for k in order] + [f'next_obs{k}' for k in order[::-1]] + ['act', 'terminated', 'truncated']
        lines = [','.join(names)]
        for t in range(len(obs) - 1):
            last = t == len(obs) - 2
            ends = [int(last and i == 1), int(last and i == 0)]
            lines.append(','.join(map(repr, [*obs[t, order].tolist(), *obs[t + 1, order[::-1]].tolist(), 0, *ends])))
        (folder / f'{i}.csv').write_text('\n'.join(lines) + '\n')
    import_trajs(str(folder), str(tmp_path / 'out.h5'))
    check_ends(tmp_path / 'out.h5')


CSVS = {
    'a column twice': (['obs0,obs0,act\n1,2,0\n'], "the column 'obs0' stands twice"),
    'other columns': (['obs0,obs1,act\n1,2,0\n', 'obs0,obs2,act\n1,2,0\n'], 'differs from 0.csv in obs1, obs2'),
    'another order': (['obs_y,obs_x,act\n1,2,0\n', 'obs_x,obs_y,act\n1,2,0\n'], r'obs_x, obs_y, act; .*in the same order'),
    'numbers and words': (['obs0,obs1,obs_id,act\n1,2,0,0\n'], 'the columns obs0, obs1 and obs_id may not all be of one obs'),
    'a probability': (['obs0,action,action_prob\n1,2,0\n'], 'the columns action and action_prob may not all be of one act; .*drop the'),
    'another word': (['obs_x,obs_y,observation_id,act\n1,2,0,0\n'], 'obs_x, obs_y and observation_id may not all be'),
    'next ones of others': (['obs0,obs1,next_obs1,next_obs2,act\n1,2,3,4,0\n'], 'next_obs1, next_obs2 beside obs0, obs1; expected'),
    'a number as Python writes it': (['obs0,act\n1_000,0\n'], "'1_000' is not a number"),
    'Arabic digits': (['obs0,act\n١٢,0\n'], 'is not a number'),
}


@pytest.mark.parametrize('case', CSVS)
def test_csv_files_that_could_be_read_wrongly_are_refused(case, tmp_path):
    texts, expected = CSVS[case]
    (tmp_path / 'in').mkdir()
    for i, text in enumerate(texts):
        (tmp_path / 'in' / f'{i}.csv').write_text(text, encoding='utf-8')
    with pytest.raises(UserError, match=expected):
        import_trajs(str(tmp_path / 'in'), str(tmp_path / 'out.h5'))


ROWS = [f'{t / 10},{t % 2},1,{t == 3 or t == 9}\n' for t in range(10)]  # two episodes, of four and of six steps


@pytest.mark.parametrize('header', ['observation,action,reward,done', 'obs_x,act,rew,terminated', 'obs0,acts0,rewards,truncated'])
def test_a_csv_file_may_hold_several_episodes(header, tmp_path):
    """As pandas writes True and False, with an empty line at the end."""
    (tmp_path / 'all.csv').write_text(f'{header}\n{"".join(ROWS)}\n')
    trajs, _ = import_trajs(str(tmp_path / 'all.csv'), str(tmp_path / 'out.h5'))
    assert trajs.lengths.tolist() == [4, 6] and trajs.returns.tolist() == [4, 6] and trajs.a.stacked.ravel().tolist() == [0, 1] * 5


def test_a_csv_file_may_number_its_episodes(tmp_path, capsys):
    """Columns whose names only begin like those of observations and actions are none."""
    (tmp_path / 'all.csv').write_text('episode,obs0,act,active,observed_at\n' + ''.join(f'{t // 4},{t},0,1,99\n' for t in range(8)))
    trajs, _ = import_trajs(str(tmp_path / 'all.csv'), str(tmp_path / 'out.h5'))
    assert trajs.lengths.tolist() == [4, 4] and trajs.obs.stacked.ravel().tolist() == list(range(8))
    assert 'not used: active, observed_at\n' in capsys.readouterr().err


def test_ten_columns_are_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.csv').write_text(','.join([*(f'obs{k}' for k in sorted(map(str, range(12)))), 'act']) + '\n' +
                                            ','.join([*sorted(map(str, range(12))), '0']) + '\n')  # fmt: skip
    trajs, _ = import_trajs(str(tmp_path / 'in'), str(tmp_path / 'out.h5'))
    assert trajs.obs.stacked.tolist() == [list(range(12))]


def test_columns_without_numbers_are_in_the_order_of_the_file(tmp_path, capsys):
    (tmp_path / 'a.csv').write_text('obs_x,obs_y,obs_theta,obs_v,action_0,reward,truncated\n1,2,3,4,0,1,1\n')
    trajs, _ = import_trajs(str(tmp_path / 'a.csv'), str(tmp_path / 'out.h5'))
    assert trajs.obs.stacked.tolist() == [[1, 2, 3, 4]]
    assert 'used: obs_x, obs_y, obs_theta, obs_v, action_0, reward, truncated\n' in capsys.readouterr().err


@pytest.mark.parametrize('after', [('obs_next1', 'obs_next0'), ('obs_1_next', 'obs_0_next')])
def test_next_observations_may_be_called_as_in_tianshou(after, tmp_path):
    (tmp_path / 'a.csv').write_text(f'obs0,obs1,{",".join(after)},act,truncated\n1,2,4,3,0,0\n3,4,6,5,0,1\n')
    trajs, _ = import_trajs(str(tmp_path / 'a.csv'), str(tmp_path / 'out.h5'))
    assert trajs.obs.stacked.tolist() == [[1, 2], [3, 4]] and trajs.lastobs_B_Do.tolist() == [[5, 6]]


def test_python_takes_the_last_observation_and_how_each_episode_ended(tmp_path):
    x, y, _, _ = truncated_and_terminated()
    acts = [np.zeros(60, int), np.zeros(40, int)]
    po.Demonstrations.from_arrays([x, y], acts, terminated=[False, True]).save(tmp_path / 'out.h5')
    check_ends(tmp_path / 'out.h5')
    po.Demonstrations.from_arrays([x, y[:-1]], acts, terminated=[False, True])
    for obs, terminated, expected in (
        ([x[:-1], y], [False, True], r'obs\[0\] lacks the observation after the last action'),
        ([x, y], None, 'say terminated='),
        ([x, y], [True], 'give True or False for each of 2 episodes'),
    ):
        with pytest.raises(po.UserError, match=expected):
            po.Demonstrations.from_arrays(obs, acts, terminated=terminated)


def test_demonstrations_say_what_they_are():
    x, _, _, _ = truncated_and_terminated()
    text = repr(po.Demonstrations.from_arrays([x[:-1]], [np.arange(60) % 2], [np.ones(60)]))
    assert text == '<Demonstrations: 1 episodes, 60 pairs; observations 4 numbers, actions integers 0 to 1; mean return 60>'


def test_inspect_says_what_is_understood_and_writes_nothing(run_script, tmp_path):
    np.savez(tmp_path / 'in.npz', **flat(dones=LAST, infos=np.zeros(3)))
    said = run_script('import_trajs.py', 'in.npz', '--inspect').stdout.splitlines()
    assert said[1:3] == ['used: obs, acts, rews, dones', 'not used: infos'] and 'episodes: 3 (3 of unknown end)' in said[3]
    assert said[4].startswith('lengths: 30 to 50, median 40') and list(tmp_path.glob('*.h5')) == []
    said = run_script('import_trajs.py', 'in.npz', '--inspect', '--env_name', 'MountainCar-v0', rc=2).stderr
    assert "4 observation dims, but env 'MountainCar-v0' has 2" in said
    np.savez(tmp_path / 'ids.npz', **flat(episode_id=np.repeat([0, 1, 0], LENGTHS)))
    assert 'episodes: 3' in run_script('import_trajs.py', 'ids.npz', '--inspect', '--ends', 'episode_id').stdout


def test_next_observations_that_continue_nothing_are_not_called_used(tmp_path, capsys):
    noise = np.random.default_rng(1).normal(size=(3, 50, 4))
    np.savez(tmp_path / 'flat.npz', **flat(next_observations=noise.reshape(-1, 4)[:120], lengths=LENGTHS))
    (tmp_path / 'csvs').mkdir()
    for name, episode in zip(('a.csv', 'b.csv'), noise[:2], strict=True):
        lines = ['obs0,act0,next_obs0,truncated', *(f'{x},0,{y},0' for x, y in episode[:, :2])]
        (tmp_path / 'csvs' / name).write_text('\n'.join(lines))
    obs = padded()['obs']
    some = {f'obs_{i}': x for i, x in enumerate(obs)} | {f'acts_{i}': np.ones(50) for i in range(3)}
    some |= {f'timeouts_{i}': np.zeros(50) for i in range(3)}
    some |= {'next_obs_0': np.concatenate([obs[0, 1:], noise[0, :1]]), 'next_obs_1': noise[1], 'next_obs_2': noise[2]}
    np.savez(tmp_path / 'some.npz', **some)
    for source, used, unused in (
        ('flat.npz', 'obs, acts, rews, lengths', 'next_observations'),
        ('csvs', 'obs0, act0, truncated', 'next_obs0'),
        ('some.npz', 'obs_N, acts_N, next_obs_N, timeouts_N', 'nothing'),
    ):
        import_trajs(str(tmp_path / source), str(tmp_path / f'{source}.h5'))
        said = [line for line in capsys.readouterr().err.splitlines() if 'no rewards' not in line]
        assert said[1:3] == [f'used: {used}', f'not used: {unused}']
        assert said[-1] == 'note: where next_obs does not continue the observations of an episode, it is not used'


def test_actions_of_a_finite_space_may_be_stored_as_decimal_numbers(run_script, tmp_path):
    np.savez(tmp_path / 'in.npz', **flat(dones=LAST) | {'acts': np.arange(120) % 2 * 1.0})
    run_script('import_trajs.py', 'in.npz', 'out.h5', '--env_name', 'CartPole-v1')
    assert load_trajs(str(tmp_path / 'out.h5')).a.stacked.dtype == np.int64
    run_script('import_trajs.py', 'in.npz', 'plain.h5')
    options = ['--env_name', 'CartPole-v1', '--max_iter', '2', '--bclone_eval_freq', '1']
    run_script('imitate_mj.py', '--mode', 'bclone', '--data', 'plain.h5', *options)
