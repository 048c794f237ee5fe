"""Gradients and curvature products held against torch's autograd, the standardiser against repeated rows, specs and names of variables."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policyopt import nn
from policyopt.errors import UserError
from policyopt.nn import BLOCK_ROWS, Curvature, FeedforwardNet, net_shapes, parse_spec
from policyopt.options import ImitationOptions
from policyopt.policies import GaussianPolicy, GibbsPolicy
from policyopt.standardizer import Standardizer
from policyopt.torchutil import NetConfig
from policyopt.trajectories import ContinuousSpace, FiniteSpace
from policyopt.valuefuncs import ValueFunc

IN_DIM, OUT_DIM = 5, 3
F = torch.nn.functional
AUTOGRAD_ACTIVATIONS = {'tanh': torch.tanh, 'relu': torch.relu, 'lrelu': lambda x: F.leaky_relu(x, 0.01), 'elu': F.elu}


def fc(n):
    return {'type': 'fc', 'n': n}


def nonlin(func):
    return {'type': 'nonlin', 'func': func}


SPECS = {
    **{f: [fc(7), nonlin(f), fc(6), nonlin(f)] for f in AUTOGRAD_ACTIVATIONS},
    'no_hidden_layer': [],
    'one_linear_layer': [fc(4)],
    'two_linear_layers': [fc(4), fc(6), nonlin('tanh')],
    'nonlin_first': [nonlin('tanh'), fc(6), nonlin('elu')],
    'only_nonlin': [nonlin('elu')],
    'two_nonlins_in_a_row': [fc(6), nonlin('elu'), nonlin('tanh'), fc(4), nonlin('tanh'), nonlin('tanh')],
    'reshape': [fc(6), {'type': 'reshape', 'new_shape': [6]}, nonlin('tanh'), {'type': 'reshape', 'new_shape': [-1, 6]}, fc(4)],
}


def make_net(spec, seed=0, dtype=torch.float64, out_dim=OUT_DIM):
    """A net with every parameter away from 0, and its storage."""
    shapes = net_shapes('/Net', parse_spec(spec), IN_DIM, out_dim)
    num = sum(int(np.prod(s)) for s in shapes.values())
    net_P = torch.as_tensor(np.random.RandomState(seed).randn(num) * 0.6, dtype=dtype)
    return FeedforwardNet(parse_spec(spec), net_P, shapes.values())


def plain_forward(spec, shapes, net_P, x):
    """The same net in operations that autograd knows."""
    params = iter(nn.views(net_P, shapes))
    for layer in spec:
        if layer['type'] == 'fc':
            x = x @ next(params) + next(params)
        elif layer['type'] == 'nonlin':
            x = AUTOGRAD_ACTIVATIONS[layer['func']](x)
    return x @ next(params) + next(params)


def softmax_cross_entropy(out, target):
    """A loss whose second derivative couples the outputs of a row."""
    return -(torch.log_softmax(out, 1) * target).sum()


def inputs(num, dtype=torch.float64, seed=1):
    rng = np.random.RandomState(seed)
    target = rng.rand(num, OUT_DIM)
    return torch.as_tensor(rng.randn(num, IN_DIM), dtype=dtype), torch.as_tensor(target / target.sum(1, keepdims=True), dtype=dtype)


def close(actual, expected, rtol=1e-10):
    scale = float(expected.abs().max()) + 1e-30
    assert float((actual - expected).abs().max()) <= rtol * scale


# ---- gradients and curvature against autograd


def check_net(spec, num, dtype, rtol):
    check_single_output(spec, num, dtype, rtol)
    net = make_net(spec, dtype=dtype)
    x, target = inputs(num, dtype)
    v_P = torch.as_tensor(np.random.RandomState(2).randn(len(net.net_P)), dtype=dtype)

    theta_P = net.net_P.clone().requires_grad_()
    with torch.enable_grad():
        out = plain_forward(spec, net.shapes, theta_P, x)
        (grad_P,) = torch.autograd.grad(softmax_cross_entropy(out, target), theta_P)
    out = out.detach()

    def dout(out_K, rows):
        return torch.softmax(out_K, 1) - target[rows]

    def hessian_out(r_K, rows):
        p = torch.softmax(out[rows], 1)
        return p * r_K - p * (p * r_K).sum(1, keepdim=True)

    close(net.forward(x), out, rtol)
    out_ours, grad_ours = net.forward_backward(x, dout)
    close(out_ours, out, rtol)
    close(grad_ours, grad_P.detach(), rtol)
    curvature = Curvature(net, x)
    close(curvature.out_B_Do, out, rtol)
    # the Gauss-Newton product Jᵀ M J v
    u = torch.zeros_like(out, requires_grad=True)
    with torch.enable_grad():
        out_again = plain_forward(spec, net.shapes, theta_P, x)
        (vjp_P,) = torch.autograd.grad(out_again, theta_P, u, create_graph=True)
        (jv,) = torch.autograd.grad(vjp_P @ v_P, u, retain_graph=True)
        (gauss_newton,) = torch.autograd.grad(out_again, theta_P, hessian_out(jv, slice(None)))
    for _ in range(2):  # buffers of a call must not spoil the next one
        close(curvature.product(v_P, hessian_out), gauss_newton, rtol)


def check_single_output(spec, num, dtype, rtol):
    """Nets with one output take a way of their own to the Gauss-Newton product: against autograd's, for Σ w·out²/2."""
    net = make_net(spec, dtype=dtype, out_dim=1)
    x, rng = inputs(num, dtype)[0], np.random.RandomState(4)
    v_P, w_B = (torch.as_tensor(rng.rand(n) + 0.1, dtype=dtype) for n in (len(net.net_P), num))
    theta_P = net.net_P.clone().requires_grad_()
    u = torch.zeros((num, 1), dtype=dtype, requires_grad=True)
    with torch.enable_grad():
        out = plain_forward(spec, net.shapes, theta_P, x)
        (vjp_P,) = torch.autograd.grad(out, theta_P, u, create_graph=True)
        (jv,) = torch.autograd.grad(vjp_P @ v_P, u, retain_graph=True)
        (expected_P,) = torch.autograd.grad(out, theta_P, w_B[:, None] * jv)
    curvature = Curvature(net, x)
    for _ in range(2):  # buffers of a call must not spoil the next one
        close(curvature.product(v_P, lambda r, rows: r * w_B[rows, None]), expected_P, rtol)


@pytest.mark.parametrize('name', SPECS)
def test_gradients_and_curvature_equal_autograd(name):
    check_net(SPECS[name], 40, torch.float64, 1e-10)


@pytest.mark.parametrize('num', [1, BLOCK_ROWS - 1, BLOCK_ROWS, BLOCK_ROWS + 1, 1200])
def test_rows_are_worked_off_in_blocks_of_any_number(num):
    assert BLOCK_ROWS == 512
    check_net(SPECS['two_nonlins_in_a_row'], num, torch.float64, 1e-10)


@pytest.mark.parametrize('name', SPECS)
def test_float32_follows_autograd_to_1e_4(name):
    check_net(SPECS[name], 2 * BLOCK_ROWS + 1, torch.float32, 1e-4)


def test_a_net_serves_batches_that_shrink_and_grow():
    net, spec = make_net(SPECS['tanh']), SPECS['tanh']
    for num in (1200, 3, 600, 512, 1):
        x, target = inputs(num)
        theta_P = net.net_P.clone().requires_grad_()
        with torch.enable_grad():
            (grad_P,) = torch.autograd.grad(softmax_cross_entropy(plain_forward(spec, net.shapes, theta_P, x), target), theta_P)
        close(net.forward_backward(x, lambda out, rows, target=target: torch.softmax(out, 1) - target[rows])[1], grad_P)


def test_a_curvature_keeps_its_point_while_the_net_moves_on():
    """Conjugate gradient and line search use one net by turns; a forward pass must not disturb the cached activations."""
    net = make_net(SPECS['tanh'])
    x, target = inputs(700)
    v_P = torch.ones_like(net.net_P)
    curvature = Curvature(net, x)
    before = curvature.product(v_P, lambda r, rows: r.clone())
    net.forward(inputs(900, seed=9)[0])
    net.forward_backward(inputs(900, seed=9)[0], lambda out, rows: out.clone())
    assert torch.equal(curvature.product(v_P, lambda r, rows: r.clone()), before)


@pytest.mark.parametrize('name', [n for n in SPECS if n != 'no_hidden_layer'])
def test_policies_kl_hessians_equal_autograd(name):
    spec = SPECS[name]
    for cls, space in ((GibbsPolicy, FiniteSpace(OUT_DIM)), (GaussianPolicy, ContinuousSpace(OUT_DIM))):
        policy = cls(ContinuousSpace(IN_DIM), space, spec)
        rng = np.random.RandomState(3)
        policy.theta_P.copy_(torch.as_tensor(rng.randn(len(policy.theta_P)) * 0.4))
        x, v_P = torch.as_tensor(rng.randn(600, IN_DIM)), torch.as_tensor(rng.randn(len(policy.theta_P)))
        old = policy.adist(policy.net.forward(x))

        def mean_kl(theta_P, old=old, cls=cls, policy=policy, x=x):
            out = plain_forward(spec, policy.net.shapes, theta_P[policy.num_own :], x)
            if cls is GibbsPolicy:
                new = torch.log_softmax(out, 1)
            else:
                new = torch.cat([out, theta_P[: policy.num_own].exp().expand_as(out)], 1)
            return policy.kl(old, new).mean()

        theta_P = policy.theta_P.clone().requires_grad_()
        with torch.enable_grad():
            (grad_P,) = torch.autograd.grad(mean_kl(theta_P), theta_P, create_graph=True)
            (hv_P,) = torch.autograd.grad(grad_P @ v_P, theta_P)
        close(policy.kl_hvp(x)(v_P), hv_P, 1e-9)


def test_value_function_hessian_equals_autograd():
    vf = ValueFunc(ImitationOptions(policy_hidden_spec=json.dumps(SPECS['elu'])), IN_DIM - 1, 0.01)
    rng = np.random.RandomState(4)
    vf.theta_P.copy_(torch.as_tensor(rng.randn(len(vf.theta_P)) * 0.4))
    x, v_P = torch.as_tensor(rng.randn(530, IN_DIM)), torch.as_tensor(rng.randn(len(vf.theta_P)))
    theta_P = vf.theta_P.clone().requires_grad_()
    with torch.enable_grad():
        loss = ((vf.net.forward(x)[:, 0] - plain_forward(SPECS['elu'], vf.net.shapes, theta_P, x)[:, 0]) ** 2).mean()
        (grad_P,) = torch.autograd.grad(loss, theta_P, create_graph=True)
        (hv_P,) = torch.autograd.grad(grad_P @ v_P, theta_P)
    close(vf.kl_hvp(x)(v_P), hv_P, 1e-10)


# ---- standardiser


@given(
    dim=st.integers(1, 4),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 1000),
    num_before=st.integers(0, 5),
)
def test_weighted_update_equals_repeated_rows(dim, counts, offset, seed, num_before):
    rng = np.random.RandomState(seed)
    rows, before = rng.randn(len(counts), dim) + offset, rng.randn(num_before, dim)
    weighted, repeated = Standardizer(dim), Standardizer(dim)
    if num_before:
        weighted.update(torch.as_tensor(before))
        repeated.update(torch.as_tensor(before))
    weighted.update(torch.as_tensor(rows), torch.as_tensor(counts, dtype=torch.float64))
    repeated.update(torch.as_tensor(np.repeat(rows, counts, axis=0)))
    for a, b in zip(weighted.variables('').values(), repeated.variables('').values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-10, atol=1e-10)


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_pooling_over_updates_equals_one_update_and_standardising_is_undone(sizes, seed):
    rng = np.random.RandomState(seed)
    parts = [torch.as_tensor(rng.randn(n, 3) * 5 + 2) for n in sizes]
    norm = Standardizer(3)
    for part in parts:
        norm.update(part)
    x = torch.cat(parts)
    np.testing.assert_allclose(norm.mean_1_D[0], x.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(norm.stdev_1_D[0], x.std(0, correction=0), rtol=1e-6, atol=1e-6)
    assert float(norm.count) == len(x)
    np.testing.assert_allclose(norm.unstandardize(norm.standardize(x)), x, rtol=1e-9, atol=1e-9)


def test_the_first_update_replaces_the_initial_state():
    norm = Standardizer(2)
    assert norm.mean_1_D.eq(0).all() and norm.meansq_1_D.eq(1).all()
    norm.update(torch.tensor([[3.0, -1.0], [5.0, -1.0]], dtype=torch.float64))
    np.testing.assert_array_equal(norm.mean_1_D, [[4.0, -1.0]])
    np.testing.assert_array_equal(norm.stdev_1_D, [[1.0, 0.0]])


# ---- variables and specs


def test_variables_and_flat_order_are_those_of_2016():
    spec = [fc(4), nonlin('tanh'), fc(3), nonlin('tanh')]
    policy = GaussianPolicy(ContinuousSpace(5), ContinuousSpace(2), spec, nets=NetConfig(np.random.RandomState(0)))
    hidden = '/GaussianPolicy/hidden/FeedforwardNet/layer_{}/AffineLayer/{}'
    trained = [
        ('/GaussianPolicy/logstdevs_1_Da', (1, 2)),
        (hidden.format(0, 'W'), (5, 4)),
        (hidden.format(0, 'b'), (1, 4)),
        (hidden.format(2, 'W'), (4, 3)),
        (hidden.format(2, 'b'), (1, 3)),
        ('/GaussianPolicy/out/AffineLayer/W', (3, 2)),
        ('/GaussianPolicy/out/AffineLayer/b', (1, 2)),
    ]
    norm = [f'/GaussianPolicy/obsnorm/Standardizer/{n}' for n in ('count', 'mean_1_D', 'meansq_1_D')]
    assert list(policy.variables) == [trained[0][0], *norm, *(n for n, _ in trained[1:])]
    assert all(tuple(policy.variables[n].shape) == shape for n, shape in trained)
    policy.theta_P.copy_(torch.arange(len(policy.theta_P), dtype=torch.float64))
    flat = np.concatenate([policy.variables[n].numpy().ravel() for n, _ in trained])
    np.testing.assert_array_equal(flat, np.arange(len(flat)))


def test_hidden_weights_are_glorot_uniform_and_outputs_start_at_zero():
    policy = GibbsPolicy(ContinuousSpace(6), FiniteSpace(3), nn.SIMPLE_ARCHITECTURE, nets=NetConfig(np.random.RandomState(0)))
    for name, var in policy.variables.items():
        if '/out/' in name or name.endswith('/b'):
            assert not var.any(), name
        elif name.endswith('/W'):
            bound = np.sqrt(6 / sum(var.shape))
            assert 0.9 * bound < float(var.abs().max()) <= bound, name
            assert abs(float(var.std()) - bound / np.sqrt(3)) < 0.1 * bound, name
    assert GaussianPolicy(ContinuousSpace(6), ContinuousSpace(2), '[]').own_P.eq(0).all()


BAD_SPECS = {
    'not JSON': ('[{"type": "fc", "n": 10}', 'not JSON'),
    'a table': ('{"type": "fc", "n": 10}', 'expected a list of layers'),
    'null': ('null', 'expected a list of layers'),
    'a list of numbers': ('[100]', 'layer 0: 100 is not known'),
    'unknown type': ('[{"type": "conv", "n": 3}]', 'layer 0'),
    'no size': ('[{"type": "fc"}]', 'layer 0'),
    'size zero': ('[{"type": "fc", "n": 4}, {"type": "fc", "n": 0}]', 'layer 1'),
    'size a text': ('[{"type": "fc", "n": "100"}]', 'layer 0'),
    'size a fraction': ('[{"type": "fc", "n": 3.5}]', 'layer 0'),
    'unknown nonlinearity': ('[{"type": "fc", "n": 4}, {"type": "nonlin", "func": "swish"}]', 'tanh|relu|lrelu|elu'),
    'nonlinearity a list': ('[{"type": "nonlin", "func": ["tanh"]}]', 'layer 0'),
    'reshape to another size': ('[{"type": "fc", "n": 4}, {"type": "reshape", "new_shape": [2, 2]}]', 'reshape to [2, 2] after 4 units'),
    'a key of another layer': ('[{"type": "fc", "n": 8, "func": "relu"}]', 'layer 0'),
    'an unknown key': ('[{"type": "fc", "n": 8}, {"type": "nonlin", "func": "relu", "alpha": 1}]', 'layer 1'),
    'a key twice': ('[{"type": "fc", "n": 8, "n": 9}]', "a layer has the key 'n' twice"),
    'reshape without shape': ('[{"type": "reshape"}]', 'layer 0'),
}


@pytest.mark.parametrize('case', BAD_SPECS)
def test_a_bad_hidden_spec_is_one_sentence_naming_the_layer(case):
    spec, expected = BAD_SPECS[case]
    with pytest.raises(UserError) as e:
        GibbsPolicy(ContinuousSpace(3), FiniteSpace(2), spec)
    assert expected in str(e.value) and str(e.value).startswith('hidden spec') and '\n' not in str(e.value)


def test_the_spec_may_be_a_list_or_its_json_text():
    layers = [fc(3), nonlin('relu')]
    assert parse_spec(layers) == parse_spec(json.dumps(layers)) == layers
