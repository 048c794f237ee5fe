"""What Python callers give that is something else: a sentence, or the thing that was meant; never an exception of a library."""

import gymnasium
import numpy as np
import pytest
import torch

import policyopt as po

spaces = gymnasium.spaces
NET = '[{"type": "fc", "n": 4}, {"type": "nonlin", "func": "tanh"}]'
OURS = po.ContinuousSpace(3), po.FiniteSpace(2)
FEW = {'iterations': 12, 'seed': 0, 'bclone_batch_size': 5, 'progress': False}


def make(obs_space=OURS[0], action_space=OURS[1], spec=NET, **more):
    return po.make_policy(obs_space, action_space, spec, **more)


def demos():
    return po.Demonstrations.from_arrays([np.random.default_rng(0).normal(size=(30, 4))] * 2, [np.arange(30) % 2] * 2)


def asked(expert):
    return po.train('dagger', 'CartPole-v0', demos(), dagger_rounds=2, expert=expert, **FEW)


def from_arrays(obs, actions):
    return po.Demonstrations.from_arrays([obs], [actions])


def ended(terminated):
    return po.Demonstrations.from_arrays([np.zeros((2, 3))] * 2, [[0, 1]] * 2, terminated=terminated)


class NoSpec(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)

    @property
    def spec(self):
        raise RuntimeError('no spec')


class NoSpace(gymnasium.Env):
    @property
    def observation_space(self):
        raise RuntimeError('no space')


def cloned(**more):
    return po.train('bc', 'CartPole-v0', demos(), **(FEW | more))


def of_rows(**more):
    return po.Demonstrations.from_arrays([np.zeros((1, 4))], [[0]], **more)


async def later(iteration, row):
    return False


def played(**more):
    return po.evaluate(lambda obs: 0, 'CartPole-v0', 1, **more)


WRONG = {
    **{
        f'a word for {name}': (call, f"{name} is 'no'; expected True or False")
        for name, call in {
            'progress': lambda: cloned(progress='no'),
            'deterministic': lambda: played(deterministic='no'),
            'enable_obsnorm': lambda: make(enable_obsnorm='no'),
            'download': lambda: po.Demonstrations.from_minari('a/b-v0', download='no'),
        }.items()
    },
    'a word to record by': (lambda: po.Demonstrations.record(lambda obs: 0, 'CartPole-v0', deterministic='no'), 'deterministic is'),
    'a word to act by': (lambda: make().act(np.zeros(3), 'no'), "deterministic is 'no'"),
    'a word to predict by': (lambda: make().predict(np.zeros(3), deterministic='no'), "deterministic is 'no'"),
    'a number for deterministic': (lambda: played(deterministic=0.5), "deterministic is '0.5'"),
    'numbers for deterministic': (lambda: make().act(np.zeros(3), np.zeros(2)), 'deterministic is'),
    'nothing as a data set': (lambda: po.Demonstrations.from_minari(None), 'dataset is a NoneType; expected the id of a Minari data set'),
    'a list as a data set': (lambda: po.Demonstrations.from_minari([]), 'dataset is a list'),
    'a number as parts': (lambda: po.Demonstrations.from_minari('a/b-v0', obs_keys=3), 'obs_keys is an int; expected the names'),
    'an async callback': (lambda: cloned(callback=later), 'callback is async'),
    'two starts': (lambda: cloned(init=make(), init_policy='x.h5'), r'init and init_policy \(x.h5\) both name a policy to start from'),
    'a start for trpo': (
        lambda: po.train('trpo', 'CartPole-v0', iterations=1, init=make()),
        "algorithm 'trpo' starts from a new policy; leave init out",
    ),
    'a line end in a name': (lambda: of_rows(env_name='a\nb'), r"env_name is 'a\\nb'; expected an environment's id"),
    'an empty name': (lambda: of_rows(env_name=''), "env_name is ''; expected an environment's id"),
    'a long name': (lambda: of_rows(env_name='x' * 70000), 'env_name is .* of 70000 characters; expected'),
    'numbers as spaces': (lambda: make(3, 2), 'obs_space is 3; expected a ContinuousSpace or FiniteSpace'),
    'a Dict': (lambda: make(spaces.Dict({})), r'obs_space is Dict\(\)'),
    'an image': (lambda: make(spaces.Box(0, 1, (2, 2))), 'obs_space is Box'),
    'finite observations': (lambda: make(spaces.Discrete(2)), 'obs_space is .*; expected a ContinuousSpace, or a Box'),
    'actions from 1': (lambda: make(action_space=spaces.Discrete(2, start=1)), 'action_space is Discrete'),
    'a number as rng': (lambda: make(rng=0), 'rng is an int; expected a numpy.random.RandomState'),
    'a dtype for integers': (lambda: make(dtype='int64'), 'dtype is none of those'),
    'a number as bounds': (lambda: make(action_space=po.ContinuousSpace(2), bounds_2_Da=3), r'bounds_2_Da has shape \(\); expected'),
    'words as bounds': (lambda: make(action_space=po.ContinuousSpace(2), bounds_2_Da=['a']), 'bounds_2_Da is of type <U1'),
    'bounds the wrong way': (lambda: make(action_space=po.ContinuousSpace(1), bounds_2_Da=[[1], [-1]]), 'lowest numbers above the highest'),
    'bounds of finite actions': (lambda: make(bounds_2_Da=[[0], [1]]), 'bounds_2_Da is given, but actions are finite'),
    'a set as a layer': (lambda: make(spec=[{1}]), r'hidden spec, layer 0: "\{1\}" is not known'),
    'a number as weights': (lambda: make().load(3, 'these'), 'these: is an int; expected {name: array}'),
    'a gpu': (lambda: make(device='gpu'), '^device=gpu: expected'),
    'a number as a policy': (lambda: po.load_policy(3), 'policy_path is an int; expected the path'),
    'nothing as a policy': (lambda: po.load_policy(None), 'policy_path is a NoneType'),
    'a number as a task': (lambda: po.load_policy('expert_policies/classic/CartPole-v0.h5', 3), 'mdp is an int; expected a task'),
    'a name as a task': (lambda: po.load_reward('x.h5', 'CartPole-v0'), 'mdp is a str; expected a task, such as MDP'),
    'a fraction of trajectories': (lambda: po.load_trajs('x.h5', 1.5), 'limit_trajs is a float; expected a whole number'),
    'a number as trajectories': (lambda: po.load_trajs(3), 'path is an int'),
    'layers that are no JSON': (
        lambda: po.train('bclone', 'CartPole-v0', demos(), policy_hidden_spec=[np.float32(1)], **FEW),
        'policy_hidden_spec is a list; expected a list of layers, or the JSON text',
    ),
    'rewards that add up to infinity': (
        lambda: po.Demonstrations.from_arrays([np.ones((3, 2))], [[0, 1, 0]], [np.full(3, 1.7e308)]),
        'the arrays: the return of trajectory 0 is inf in size; expected less than',
    ),
    'observations without a mean square': (
        lambda: from_arrays(np.full((1, 3), -1e300), [0]),
        r'the arrays: the observation of step 0 is 1e\+300 in size; expected less than 1e\+150',
    ),
    'an empty path': (lambda: po.load_policy(''), 'policy_path is empty; expected the path of a file'),
    'an empty path of demonstrations': (lambda: po.Demonstrations.load(''), 'path is empty'),
    'the first 0': (lambda: demos().first(0), "num is '0'; expected a whole number from 1 to"),
    'a torch module': (
        lambda: po.evaluate(make(po.ContinuousSpace(4)).to_torch(), 'CartPole-v0', 1),
        r'policy is a torch module, DeterministicPolicy, that failed on an array .*torch.as_tensor\(obs\)',
    ),
    'bytes as a path': (lambda: po.load_policy(b'x.h5'), 'policy_path is a bytes'),
    'a number as a reward': (lambda: po.load_reward(3, po.MDP('CartPole-v0')), 'path is an int'),
    'a number as demonstrations': (lambda: po.Demonstrations.load(3), 'path is an int'),
    'a number to save at': (lambda: demos().save(3), 'path is an int'),
    'a masked observation': (lambda: make().act(np.ma.masked_array([1.0, 2, 3], [0, 1, 0])), 'has masked values'),
    'a word as rng': (lambda: make().act(np.zeros(3), False, rng='a'), "rng is 'a'; expected a numpy.random.Generator, a seed"),
    'a negative seed': (lambda: make().act(np.zeros(3), False, rng=-1), "rng is '-1'"),
    'masked demonstrations': (lambda: from_arrays(np.ma.masked_array(np.zeros((3, 3)), True), [0, 1, 0]), r'obs\[0\] has masked'),
    'masked actions': (lambda: from_arrays(np.zeros((3, 3)), np.ma.masked_array([0, 1, 0], True)), r'actions\[0\] has masked'),
    'actions of 2^63': (lambda: from_arrays(np.zeros((1, 3)), np.array([2**63], np.uint64)), r'episode 0: actions.*below 2\^63'),
    'a callback': (lambda: po.train('bc', 'CartPole-v0', demos(), callback=3, **FEW), 'callback is an int; expected a function'),
    'a list of algorithms': (lambda: po.train(['ga'], 'CartPole-v0', demos(), iterations=1), 'there is no algorithm'),
    'a ragged expert': (lambda: asked(lambda obs: [[1], [1, 2]]), 'what the expert returned is no array'),
    'a masked expert': (lambda: asked(lambda obs: np.ma.masked_array(np.zeros(len(obs), int), True)), 'has masked values'),
    'ragged ends': (lambda: ended([[True], [True, False]]), 'terminated is no array'),
    'masked ends': (lambda: ended(np.ma.masked_array([True, True], [True, False])), 'terminated has masked values'),
    'a number as episodes': (lambda: po.Demonstrations.from_arrays(np.array(3.0), [[0]]), 'obs is a ndarray; give a list'),
    'a number as the task of arrays': (lambda: po.Demonstrations.from_arrays([np.zeros((1, 3))], [[0]], env_name=3), 'env_name is 3;'),
    'no demonstration': (lambda: po.train('bc', None, demos()[:0], **FEW), 'demos holds no episode'),
    'no dimension': (lambda: make(po.ContinuousSpace(0)), "the size of obs_space is '0'; expected a whole number of 1 or more"),
    'actions below none': (lambda: make(action_space=po.FiniteSpace(-2)), "the size of action_space is '-2'"),
    'words as weights': (lambda: make().load(dict.fromkeys(make().export(), 'a'), 'these'), 'these: .* is of type <U1; expected numbers'),
    'numbers as names of weights': (lambda: make().load({1: 2}, 'these'), 'these: lacks the variable .*; it holds 1'),
    'a folder that takes no file': (lambda: demos().save('/proc/x.h5'), '/proc/x.h5: cannot be written'),
    'an env whose spec raises': (lambda: po.MDP(NoSpec()), 'failed with RuntimeError: no spec'),
    'a class whose spec raises': (lambda: po.MDP(NoSpec), 'failed with RuntimeError: no spec'),
    'an env whose space raises': (lambda: po.MDP(NoSpace()), 'no space'),
}
LOGS = {
    'a slash': ({'a/b': [1.0]}, {}, "column called 'a/b'; expected a text without '/'"),
    'a line end': ({'a\nb': [1.0]}, {}, 'printable characters'),
    'half a character': ({'a\udc80': [1.0]}, {}, 'printable characters'),
    "a name of PyTables'": ({'_v_x': [1.0]}, {}, 'that does not begin with _f_ or'),
    'another task': ({'a': [1.0]}, {'env_name': 'CartPole-v1'}, r"the policy is for ContinuousSpace\(dim=3\).*, but env 'CartPole-v1' has"),
    'a line end in the task': ({'a': [1.0]}, {'env_name': 'a\nb'}, r"env_name is 'a\\nb'"),
    'no name': ({'': [1.0]}, {}, "column called ''"),
    'a number as a name': ({3: [1.0]}, {}, 'column called 3'),
    'columns without end': ({f'c{i}': [1.0] for i in range(3000)}, {}, 'log has 3000 columns'),
    'long names': ({f'{i:062d}': [1.0] for i in range(570)}, {}, 'log has 570 columns with names of 35340 bytes, more than a file can'),
    'a long name': ({'x' * 100_000: [1.0]}, {}, "column called 'xxx.*; expected a text without '/', of at most"),
    'numbers beyond single precision': ({'a': [1.0, 1e300]}, {}, r"log\['a'\] holds numbers beyond 3.4e38"),
    'iterations that fall': ({'iter': [5, 1]}, {}, r"log\['iter'\] does not rise"),
    'ragged': ({'a': [[1], [1, 2]]}, {}, r"log\['a'\] is no array"),
    'masked': ({'a': np.ma.masked_array([1.0, 2.0], [0, 1])}, {}, r"log\['a'\] has masked values"),
    'iterations beyond int32': ({'iter': [2**40]}, {}, r'below 2\^31'),
    'a word as a seed': ({'a': [1.0]}, {'seed': 'x'}, "seed is 'x'; expected a whole number"),
    'a seed below 0': ({'a': [1.0]}, {'seed': -1}, "seed is '-1'"),
    'an env itself': ({'a': [1.0]}, {'env_name': gymnasium.make('CartPole-v1')}, "env_name is <TimeLimit.*>; expected an environment's id"),
    'a number as env': ({'a': [1.0]}, {'env_name': 3}, 'env_name is 3; expected'),
}


@pytest.mark.parametrize('case', WRONG)
def test_another_thing_is_refused_in_a_sentence(case):
    call, sentence = WRONG[case]
    with pytest.raises(po.UserError, match=sentence):
        call()


@pytest.mark.parametrize('case', LOGS)
def test_a_run_that_cannot_be_written_is_refused_and_leaves_no_file(case, tmp_path):
    log, more, sentence = LOGS[case]
    with pytest.raises(po.UserError, match=sentence):
        po.write_run(tmp_path / 'run.h5', make(), log, **more)
    assert not list(tmp_path.iterdir())


def test_a_torch_module_is_played_as_the_message_says():
    policy = make(po.ContinuousSpace(4))
    module = policy.to_torch()
    returns = po.evaluate(lambda obs: module(torch.as_tensor(obs)), 'CartPole-v0', 2).returns
    assert returns.tolist() == po.evaluate(policy, 'CartPole-v0', 2).returns.tolist()
    assert repr(demos()[:0]) == '<Demonstrations: no episodes>'


def test_a_column_may_have_a_name_of_several_words(tmp_path, recwarn):
    po.write_run(tmp_path / 'run.h5', make(), {'mean return': [1.0]})
    assert not recwarn.list


def test_a_callback_ends_a_run_with_a_bool_of_numpy():
    assert cloned(callback=lambda iteration, row: np.bool_(iteration < 3)).ended == 'callback'


def test_gymnasiums_spaces_stand_for_ours():
    policy = make(spaces.Box(-1, 1, (3,)), spaces.Discrete(2))
    assert (policy.obs_space, policy.action_space) == OURS and type(policy.act(np.zeros(3))) is int
    assert make(action_space=spaces.Box(-1, 1, (2,)), dtype='float32').act(np.zeros(3)).shape == (2,)


def test_tensors_with_gradients_and_numbers_of_numpy_are_what_they_hold(tmp_path):
    policy, obs = make(), torch.zeros(5, 3, requires_grad=True)
    assert policy.act(obs).shape == (5,)
    held = from_arrays(obs, torch.zeros(5, dtype=torch.int64))
    assert held.a.stacked.dtype == np.int64 and not held.obs.stacked.any()
    log = {'a': torch.ones(2, requires_grad=True), 'b': [torch.ones((), requires_grad=True)] * 2, 'steps': [2**40, 2**41]}
    po.write_run(tmp_path / 'run.h5', policy, log, seed=np.int64(3))
    from policyopt.files.training_log import read_log, read_root

    written = read_log(str(tmp_path / 'run.h5'))
    assert [int(x) for x in written['steps']] == [2**40, 2**41] and read_root(str(tmp_path / 'run.h5'))['args']['seed'] == 3


def test_a_function_that_exits_is_a_failure():
    """Not the end of the caller's program, as if all were well."""
    with pytest.raises(po.RunFailed, match=r'<lambda> exited with 0; expected actions'):
        po.evaluate(lambda obs: exit(0), 'CartPole-v1', 1)
