"""Variables by name, layers from the JSON spec, and the models that hold them.

Letters: B rows, Di inputs, Do outputs, D any dim, P flat trained parameters.

All learning here needs three things of a network: outputs, gradients of a sum over rows, and products with the Hessian of
such a sum. They are written out for fully connected nets and run over blocks of rows that stay in the cache, in place, in
buffers that live as long as the net; autograd would stream every intermediate through memory. The tests hold them
against autograd and against the numbers of 2016.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike

from policyopt.arguments import as_numbers, kind_of
from policyopt.errors import UserError
from policyopt.standardizer import Standardizer
from policyopt.torchutil import NetConfig, mm, row_dots, tanh_, to_tensor

OfRows = Callable[[torch.Tensor, slice], torch.Tensor]  # called with a block of rows and its slice of all rows

MAX_LAYERS, MAX_UNITS, MAX_PARAMETERS = 1000, 100_000, 10**8  # of one net: far more than learns here, and a spec can come from a file
BLOCK_ROWS = 512  # of float64; as many bytes for other types

SIMPLE_ARCHITECTURE = (
    '[{"type": "fc", "n": 100}, {"type": "nonlin", "func": "tanh"}, {"type": "fc", "n": 100}, {"type": "nonlin", "func": "tanh"}]'
)
TINY_ARCHITECTURE = SIMPLE_ARCHITECTURE.replace('100', '64')


@dataclass(frozen=True)
class Activation:
    """A function f as a module of torch without state, and its derivative computed from the output h = f(z).

    `apply_(z)` is f in place; `backward_(delta, h)` multiplies delta by f'. own_derivative: h ↦ f' where `backward_` rounds otherwise.
    """

    module: torch.nn.Module
    apply_: Callable[[torch.Tensor], torch.Tensor]
    backward_: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    is_piecewise_linear: bool = False
    own_derivative: Callable[[torch.Tensor], torch.Tensor] | None = None

    def derivative(self, h: torch.Tensor) -> torch.Tensor:
        """f'."""
        return self.backward_(torch.ones_like(h), h) if self.own_derivative is None else self.own_derivative(h)


aten = torch.ops.aten  # the backward kernels of autograd: one pass over memory

ACTIVATIONS = {
    'tanh': Activation(
        torch.nn.Tanh(),
        tanh_,
        lambda delta, h: aten.tanh_backward.grad_input(delta, h, grad_input=delta),
        own_derivative=lambda h: (h * h).neg_().add_(1),
    ),
    'relu': Activation(
        torch.nn.ReLU(),
        torch.relu_,
        lambda delta, h: aten.threshold_backward.grad_input(delta, h, 0, grad_input=delta),
        is_piecewise_linear=True,
    ),
    'lrelu': Activation(
        torch.nn.LeakyReLU(0.01),
        torch.nn.functional.leaky_relu_,
        lambda delta, h: aten.leaky_relu_backward.grad_input(delta, h, 0.01, True, grad_input=delta),
        is_piecewise_linear=True,
    ),
    'elu': Activation(
        torch.nn.ELU(),
        torch.nn.functional.elu_,
        lambda delta, h: aten.elu_backward.grad_input(delta, 1.0, 1.0, 1.0, True, h, grad_input=delta),
    ),
}

LAYER_KEYS = {'fc': {'type', 'n'}, 'nonlin': {'type', 'func'}, 'reshape': {'type', 'new_shape'}}


def _layer(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A layer of JSON, in which a key that stands twice would silently mean its last value."""
    layer = dict(pairs)
    if len(layer) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f'hidden spec: a layer has the key {twice[:80]!r} twice; expected it once')
    return layer


def parse_spec(spec: Any) -> list[dict]:
    """A hidden spec (JSON text or list) as a list of layers, checked.

    `{"type":"fc","n":64}`, `{"type":"nonlin","func":"tanh"|"relu"|"lrelu"|"elu"}`, `{"type":"reshape","new_shape":[…]}`.
    Raises UserError naming the layer.
    """
    shown = repr(spec if len(str(spec)) <= 200 else f'{str(spec)[:200]}…')
    try:
        layers = json.loads(spec, object_pairs_hook=_layer) if isinstance(spec, str) else spec
    except (ValueError, RecursionError) as e:  # not JSON, a number of thousands of digits, or brackets nested too deeply
        raise UserError(f"hidden spec {shown}: not JSON ({e}); write e.g. '{TINY_ARCHITECTURE}'") from e
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise UserError(f'hidden spec {shown}: expected a list of layers, at most {MAX_LAYERS}, e.g. {TINY_ARCHITECTURE}')
    for i, layer in enumerate(layers):
        kind = layer.get('type') if isinstance(layer, dict) else None
        good = (
            (kind == 'fc' and type(layer.get('n')) is int and 0 < layer['n'] <= MAX_UNITS)
            or (kind == 'nonlin' and layer.get('func') in list(ACTIVATIONS))
            or (kind == 'reshape' and isinstance(layer.get('new_shape'), list))
        )
        if not good or layer.keys() - LAYER_KEYS[layer['type']]:
            seen = json.dumps(layer, default=repr)[:200]
            raise UserError(
                f'hidden spec, layer {i}: {seen} is not known; expected {{"type":"fc","n":1 to {MAX_UNITS}}}, '
                f'{{"type":"nonlin","func":{"|".join(ACTIVATIONS)}}} or {{"type":"reshape","new_shape":[…]}}'
            )
    return layers


class Model:
    """Named variables in the order of 2016, and the trained ones as one flat vector.

    `theta_P` is the storage: every trained variable is a view of it, so writing the vector sets the net.
    Trained order: a scope's own variables first, then its children as created; W before b.
    """

    obsnorm: Standardizer | None = None

    def __init__(self, shapes: dict[str, tuple[int, ...]], nets: NetConfig, norm_dims: dict[str, int]):
        """shapes: {name: shape} of the trained variables. norm_dims: {scope: dim} of the normalisers."""
        self.theta_P = torch.zeros(sum(math.prod(s) for s in shapes.values()), dtype=nets.dtype, device=nets.device)
        self._trained = dict(zip(shapes, views(self.theta_P, shapes.values()), strict=True))
        self.normalizers = {scope: Standardizer(dim, nets.dtype, nets.device) for scope, dim in norm_dims.items()}

    def update_obsnorm(self, obs_B_Do: ArrayLike, weight_B: torch.Tensor | None = None) -> None:
        """Pool observations (numpy or tensor) into the standardiser; does nothing without one."""
        if self.obsnorm is not None:
            self.obsnorm.update(to_tensor(obs_B_Do, self.obsnorm.mean_1_D), weight_B)

    def normalized_obs(self, obs_B_Do: ArrayLike) -> torch.Tensor:
        norm = self.obsnorm
        return to_tensor(obs_B_Do, self.theta_P) if norm is None else norm.standardize(to_tensor(obs_B_Do, norm.mean_1_D))

    @property
    def variables(self) -> dict[str, torch.Tensor]:
        """{full name: tensor} in the order of 2016: own variables, normalisers, hidden layers, output."""
        own = {n: v for n, v in self._trained.items() if n.count('/') == 2}
        norms = {n: v for scope, norm in self.normalizers.items() for n, v in norm.variables(scope).items()}
        return own | norms | {n: v for n, v in self._trained.items() if n not in own}

    def export(self) -> dict[str, np.ndarray]:
        """{full name: float array} for a snapshot."""
        return {n: v.detach().cpu().numpy().copy() for n, v in self.variables.items()}

    def load(self, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Set every variable from {name: array}; raises UserError on a missing name or another shape."""
        if not isinstance(arrays, Mapping):
            raise UserError(f'{where}: is {kind_of(arrays)}; expected {{name: array}}, as export() returns them')
        for scope, norm in self.normalizers.items():
            norm.expect(arrays, scope)
        for name, var in self.variables.items():
            if name not in arrays:
                raise UserError(f'{where}: lacks the variable {name}; it holds {", ".join(sorted(map(str, arrays))) or "none"}')
            array = as_numbers(arrays[name], f'{where}: {name}')
            if tuple(array.shape) != tuple(var.shape):
                raise UserError(f'{where}: {name} has shape {array.shape}, but the task and the stored options ask for {tuple(var.shape)}')
            var.copy_(torch.as_tensor(array))

    def state(self) -> dict[str, np.ndarray]:
        """Arrays that a checkpoint needs beyond `export` (none here; subclasses may add)."""
        return {}

    def __reduce__(self) -> tuple:
        """Copy and pickle by torch.save: unlike pickle, it keeps every view of `theta_P` a view of it."""
        with io.BytesIO() as buffer:
            torch.save(self.__dict__, buffer)
            return _restored, (type(self), buffer.getvalue())


def _restored(cls: type, saved: bytes) -> Any:
    """The inverse of Model.__reduce__; a pickle can run code, as what is inside this one can."""
    model: Any = object.__new__(cls)
    where = None if torch.cuda.is_available() else 'cpu'
    model.__dict__.update(torch.load(io.BytesIO(saved), map_location=where, weights_only=False))
    return model


def views(flat_P: torch.Tensor, shapes: Iterable[tuple[int, ...]]) -> list[torch.Tensor]:
    """Consecutive views of a flat vector with the given shapes."""
    out, at = [], 0
    for shape in shapes:
        n = math.prod(shape)
        out.append(flat_P[at : at + n].view(shape))
        at += n
    return out


def net_shapes(scope: str, spec: list[dict], in_dim: int, out_dim: int) -> dict[str, tuple[int, ...]]:
    """{variable name: shape} of a hidden spec plus the affine output layer."""
    shapes, dim = {}, in_dim
    for i, layer in enumerate(spec):
        if layer['type'] == 'fc':
            at = f'{scope}/hidden/FeedforwardNet/layer_{i}/AffineLayer'
            shapes |= {f'{at}/W': (dim, layer['n']), f'{at}/b': (1, layer['n'])}
            dim = layer['n']
        elif layer['type'] == 'reshape' and layer['new_shape'] not in ([dim], [-1, dim]):
            shape = layer['new_shape']
            raise UserError(f'hidden spec, layer {i}: reshape to {shape} after {dim} units; fully connected layers take [{dim}]')
    shapes |= {f'{scope}/out/AffineLayer/W': (dim, out_dim), f'{scope}/out/AffineLayer/b': (1, out_dim)}
    num = sum(math.prod(s) for s in shapes.values())
    if num > MAX_PARAMETERS:
        raise UserError(f'the hidden spec makes a net of {num} parameters; expected at most {MAX_PARAMETERS}, so use fewer units')
    return shapes


class Affine(NamedTuple):
    """An affine map h W + b: W (inputs, outputs), b (1, outputs). Also the parts of another flat vector that have its shapes."""

    W: torch.Tensor
    b: torch.Tensor


class Stage(NamedTuple):  # an affine map and then an activation, by its name; each may be None
    affine: Affine | None
    activation: str | None


class FeedforwardNet:
    """Hidden layers and the affine output, on parameters that a Model owns.

    net_P: its part of the model's flat vector. shapes: those of W and b of each affine map, in order.
    hs, here and in Curvature: the inputs of a block, and then the outputs of each stage.
    """

    def __init__(self, spec: list[dict], net_P: torch.Tensor, shapes: Iterable[tuple[int, ...]]):
        self.shapes = list(shapes)
        self.net_P = net_P
        affines = iter(self.affine_views(net_P))
        self.stages: list[Stage] = []
        for layer in spec:
            if layer['type'] == 'fc':
                self.stages.append(Stage(next(affines), None))
            elif layer['type'] == 'nonlin':
                affine = self.stages.pop().affine if self.stages and self.stages[-1].activation is None else None
                self.stages.append(Stage(affine, layer['func']))
        self.stages.append(Stage(next(affines), None))
        self._buffers = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {'_buffers': {}}

    def affine_views(self, flat_P: torch.Tensor) -> list[Affine]:
        """Views of a vector like net_P, one for each affine map in order."""
        parts = views(flat_P, self.shapes)
        return [Affine(W, b) for W, b in zip(parts[::2], parts[1::2], strict=True)]

    def init(self, rng: np.random.RandomState | None) -> None:
        """Hidden weights Glorot uniform (±√(6/(in+out)), drawn in layer order), biases 0, the output layer 0; all 0 without rng."""
        self.net_P.zero_()
        for affine, _ in self.stages[:-1]:
            if affine is not None and rng is not None:
                bound = math.sqrt(6 / sum(affine.W.shape))
                affine.W.copy_(torch.as_tensor(rng.uniform(low=-bound, high=bound, size=tuple(affine.W.shape))))

    def _buffer(self, key: Hashable, rows: int, cols: int) -> torch.Tensor:
        buf = self._buffers.get(key)
        if buf is None or buf.shape[0] < rows or buf.shape[1] != cols:
            buf = self._buffers[key] = torch.empty((max(rows, 1), cols), dtype=self.net_P.dtype, device=self.net_P.device)
        return buf[:rows]

    def _forward_block(self, x_B_Di: torch.Tensor, out_B_Do: torch.Tensor, keep: Hashable | None = None) -> list[torch.Tensor]:
        """Return hs of a block of rows; hs[i] is the input of stage i. The next call with the same `keep` overwrites them."""
        hs = [x_B_Di]
        for i, (affine, act) in enumerate(self.stages):
            last = i == len(self.stages) - 1
            if affine is None:
                h = self._buffer((keep, i), *hs[-1].shape).copy_(hs[-1])
            else:
                h = out_B_Do if last else self._buffer((keep, i), len(x_B_Di), affine.W.shape[1])
                mm(hs[-1], affine.W, out=h).add_(affine.b)
            hs.append(h if act is None else ACTIVATIONS[act].apply_(h))
        return hs

    def _blocks(self, x_B_Di: torch.Tensor) -> Iterator[slice]:
        rows = BLOCK_ROWS * 8 // self.net_P.element_size()
        for start in range(0, len(x_B_Di), rows):
            yield slice(start, min(start + rows, len(x_B_Di)))

    def _new_out(self, x_B_Di: torch.Tensor) -> torch.Tensor:
        return torch.empty((len(x_B_Di), self.shapes[-1][1]), dtype=self.net_P.dtype, device=self.net_P.device)

    def forward(self, x_B_Di: torch.Tensor) -> torch.Tensor:
        """Outputs (B, Do)."""
        out_B_Do = self._new_out(x_B_Di)
        for rows in self._blocks(x_B_Di):
            self._forward_block(x_B_Di[rows], out_B_Do[rows])
        return out_B_Do

    def functional(self, net_P: torch.Tensor, x_B_Di: torch.Tensor) -> torch.Tensor:
        """Outputs (B, Do) under other parameters, in operations that torch.func differentiates."""
        affines, h = iter(self.affine_views(net_P)), x_B_Di
        for affine, act in self.stages:
            if affine is not None:
                other = next(affines)
                h = torch.addmm(other.b, h, other.W)
            h = h if act is None else ACTIVATIONS[act].module(h)
        return h

    @property
    def is_piecewise_linear(self) -> bool:
        """Whether no activation has a second derivative."""
        return all(act is None or ACTIVATIONS[act].is_piecewise_linear for _, act in self.stages)

    def input_gradient(self, x_B_Di: torch.Tensor, dout_B_Do: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Return D = ∂/∂x of Σ dout·out, (B, Di), and the function that maps r (B, Di) to the gradient of Σ r·D with respect to net_P.

        For piecewise linear nets only: a small change of the parameters switches no unit, so D depends on the weights alone.
        """
        hs, delta = [x_B_Di], dout_B_Do
        for affine, act in self.stages[:-1]:
            h = hs[-1] if affine is None else torch.addmm(affine.b, hs[-1], affine.W)
            hs.append(h if act is None else ACTIVATIONS[act].module(h))
        deltas = {}  # {stage: derivative with respect to the output of its affine map}
        for i, (affine, act) in reversed([*enumerate(self.stages)]):
            if act is not None:
                delta = ACTIVATIONS[act].backward_(delta, hs[i + 1])
            if affine is not None:
                deltas[i] = delta
                delta = torch.mm(delta, affine.W.t())

        def gradient(r_B_Di):
            r, grad_P = r_B_Di, torch.zeros_like(self.net_P)
            grads = iter(self.affine_views(grad_P))
            for i, (affine, act) in enumerate(self.stages):
                if affine is not None:
                    torch.mm(r.t(), deltas[i], out=next(grads).W)
                    r = torch.mm(r, affine.W)
                r = r if act is None else ACTIVATIONS[act].backward_(r, hs[i + 1])
            return grad_P

        return delta, gradient

    def forward_backward(self, x_B_Di: torch.Tensor, dout: OfRows) -> tuple[torch.Tensor, torch.Tensor]:
        """Outputs and the gradient with respect to net_P of a sum over rows.

        dout(out, rows) returns d loss/d out for the rows of a slice, in a tensor that may be overwritten; it is called once a
        block, right after its forward pass.
        """
        out_B_Do, grad_P = self._new_out(x_B_Di), torch.zeros_like(self.net_P)
        grads = self.affine_views(grad_P)
        for rows in self._blocks(x_B_Di):
            hs = self._forward_block(x_B_Di[rows], out_B_Do[rows])
            self._backward_block(hs, dout(hs[-1], rows), grads)
        return out_B_Do, grad_P

    def _backward_block(
        self, hs: list[torch.Tensor], delta: torch.Tensor, grads: list[Affine], derivatives: list[torch.Tensor | None] | None = None
    ) -> None:
        """Add the gradients of a block to grads. hs: from `_forward_block`. delta: d loss/d out. derivatives: f' of each stage or None."""
        remaining = [*grads]  # of the affine maps that are still to come
        for i, (affine, act) in reversed([*enumerate(self.stages)]):
            if act is not None:
                derivative = None if derivatives is None else derivatives[i]
                delta = ACTIVATIONS[act].backward_(delta, hs[i + 1]) if derivative is None else delta.mul_(derivative)
            if affine is not None:
                self._add_gradients(remaining.pop(), hs[i], delta)
                if not remaining:
                    break  # a nonlinearity before the first affine map has nothing to learn
                delta = mm(delta, affine.W.t(), out=self._buffer(('delta', i), len(delta), affine.W.shape[0]))

    def _add_gradients(self, grad: Affine, h_in: torch.Tensor, delta: torch.Tensor) -> None:
        """Add the gradients of an affine map for one block: h_inᵀ δ and the sum of δ."""
        grad.W.add_(mm(h_in.t(), delta, out=self._buffer('gradient', *grad.W.shape)))
        grad.b.add_(delta.sum(0, keepdim=True))


class Curvature:
    """Hessian-vector products of L(θ) = Σ_rows ℓ(out(θ)) at a net's present parameters; to be used before these change.

    ∂ℓ/∂out must be 0 there, as it is for the KL divergence from the net's own outputs. The Gauss–Newton product is then exact:
    H v = Jᵀ M J v with M = ∂²ℓ/∂out² (Pearlmutter 1994). A net with a single output caches ∂out/∂z of every layer z = h W + b.
    Then J v = Σ_layers ∂out/∂z·(h V + v_b), which halves the matrix products of a forward and a backward pass.
    """

    def __init__(self, net: FeedforwardNet, x_B_Di: torch.Tensor):
        self.net = net
        self.blocks = []  # (rows, hs, derivatives) per block
        self.out_B_Do = net._new_out(x_B_Di)
        for rows in net._blocks(x_B_Di):
            hs = net._forward_block(x_B_Di[rows], self.out_B_Do[rows], keep=('curvature', rows.start))
            derivatives = [None if act is None else ACTIVATIONS[act].derivative(h) for (_, act), h in zip(net.stages, hs[1:], strict=True)]
            self.blocks.append((rows, hs, derivatives))
        self.sensitivities: Any = None  # [[(h, ∂out/∂z) …] per block] of a net with a single output
        if self.out_B_Do.shape[1] == 1:
            self.sensitivities = [self._sensitivities(hs, derivatives) for _, hs, derivatives in self.blocks]

    def _sensitivities(self, hs: list[torch.Tensor], derivatives: list[torch.Tensor | None]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """[(h (B, Di), ∂out/∂z (B, D))] of a block's affine maps in order, without that of the output."""
        hidden, found = self.net.stages[:-1], []
        first = next((i for i, (affine, _) in enumerate(hidden) if affine is not None), len(hidden))
        output: Any = self.net.stages[-1].affine
        delta = output.W.t()
        for i in range(len(hidden) - 1, first - 1, -1):
            affine, derivative = hidden[i].affine, derivatives[i]
            delta = delta.expand(len(hs[0]), -1) if derivative is None else delta * derivative
            if affine is not None:
                found.append((hs[i], delta))
                if i > first:
                    delta = delta @ affine.W.t()
        return found[::-1]

    def _single_output_product(self, v_P: torch.Tensor, hessian_out: OfRows) -> torch.Tensor:
        """H v from the cached sensitivities."""
        net = self.net
        result_P = torch.zeros_like(net.net_P)
        *results, result_out = net.affine_views(result_P)
        *vs, v_out = net.affine_views(v_P)
        for (rows, hs, _), layers in zip(self.blocks, self.sensitivities, strict=True):
            r_out = mm(hs[-2], v_out.W, out=net._buffer('r_out', len(hs[0]), 1)).add_(v_out.b)
            for k, (v, (h, sens)) in enumerate(zip(vs, layers, strict=True)):
                rz = mm(h, v.W, out=net._buffer(('directional', k), *sens.shape)).add_(v.b)
                r_out[:, 0].add_(row_dots(sens, rz))
            r_delta = hessian_out(r_out, rows)
            net._add_gradients(result_out, hs[-2], r_delta)
            for k, (result, (h, sens)) in enumerate(zip(results, layers, strict=True)):
                delta = torch.mul(sens, r_delta, out=net._buffer(('directional', k), *sens.shape))
                net._add_gradients(result, h, delta)
        return result_P

    def product(self, v_P: torch.Tensor, hessian_out: OfRows) -> torch.Tensor:
        """H v as a flat vector; hessian_out(r_out, rows) maps J v (rows of a block) to M J v."""
        if self.sensitivities is not None:
            return self._single_output_product(v_P, hessian_out)
        net = self.net
        result_P = torch.zeros_like(net.net_P)
        results, vs = net.affine_views(result_P), net.affine_views(v_P)
        for rows, hs, derivatives in self.blocks:
            net._backward_block(hs, hessian_out(self._directional(hs, derivatives, vs), rows), results, derivatives)
        return result_P

    def _directional(self, hs: list[torch.Tensor], derivatives: list[torch.Tensor | None], vs: list[Affine]) -> torch.Tensor:
        """J v for the rows of a block."""
        net, remaining = self.net, iter(vs)
        r: Any = None  # None before the first affine map: v does not change the inputs
        for i, (affine, _) in enumerate(net.stages):
            if affine is not None:
                v = next(remaining)
                shape = len(hs[i]), v.W.shape[1]
                rz = mm(hs[i], v.W, out=net._buffer(('directional', i), *shape)).add_(v.b)
                r = rz if r is None else rz.add_(mm(r, affine.W, out=net._buffer('product', *shape)))
            if r is not None and derivatives[i] is not None:
                r.mul_(derivatives[i])
        assert r is not None  # the last map is affine
        return r
