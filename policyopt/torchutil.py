"""Torch settings and conversions shared by all models."""

import os
import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from policyopt import elementwise
from policyopt.errors import UserError

DTYPES = {'float64': torch.float64, 'float32': torch.float32}


@dataclass(frozen=True)
class NetConfig:
    """What all nets of a run share: the generator of their first weights (None: they are 0, or loaded), type and device."""

    rng: np.random.RandomState | None = None
    dtype: torch.dtype = torch.float64
    device: torch.device | str = 'cpu'


def as_device(device: torch.device | str, name: str = '--device ') -> torch.device:
    """A device of this machine; raises UserError, which calls it `name`, for one that is unknown or absent."""
    if not re.fullmatch(r'(cpu|cuda)(:\d+)?', str(device)):
        known = {'gpu': '. A GPU is called cuda', 'mps': ". Apple's GPUs have no float64, which the nets compute in"}
        raise UserError(f"{name}{device}: expected 'cpu', or 'cuda' on a machine with a GPU of NVIDIA or AMD{known.get(str(device), '')}")
    try:
        dev = torch.device(device)
        torch.zeros(1, device=dev)
    except (RuntimeError, AssertionError) as e:
        raise UserError(f"{name}{device}: {str(e).splitlines()[0]}; expected 'cpu', or 'cuda' on a machine with a GPU") from e
    return dev


def numerics() -> str:
    """What decides the last bits of a result in addition to seed and versions: the instruction sets and the BLAS kernel in use.

    For example 'numpy X86_V4, torch AVX512, openblas 0.3.31.188.0 SkylakeX'. Equal seeds give equal bits where this and the versions of
    the packages are equal.
    """
    import threadpoolctl

    libraries = [lib for lib in threadpoolctl.threadpool_info() if lib.get('architecture')]
    # scipy brings a BLAS of its own, which computes nothing here and is loaded in some processes only
    libraries = [lib for lib in libraries if f'{os.sep}numpy' in lib['filepath']] or libraries
    kernels = {f'{lib["internal_api"]} {lib["version"]} {lib["architecture"]}' for lib in libraries}
    return ', '.join([f'numpy {elementwise.KERNEL}', f'torch {torch.backends.cpu.get_cpu_capability()}', *sorted(kernels)])


def to_tensor(x: ArrayLike, like: torch.Tensor) -> torch.Tensor:
    """A numpy array as a tensor with the device and precision of `like`; shares memory on the CPU where it can."""
    return torch.as_tensor(np.ascontiguousarray(x)).to(device=like.device, dtype=like.dtype)


def mm(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """out = a @ b, returned.

    On a CPU it goes through numpy: its BLAS is a fifth faster than torch's at these sizes, and seven times for two columns.
    """
    if out.is_cuda:
        return torch.mm(a, b, out=out)
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())
    return out


def tanh_(x: torch.Tensor) -> torch.Tensor:
    """In-place tanh; on a CPU by the quickest library there (elementwise.py)."""
    if x.is_cuda:
        return x.tanh_()
    elementwise.tanh_(x.numpy())
    return x


def row_dots(a_B_D: torch.Tensor, b_B_D: torch.Tensor) -> torch.Tensor:
    """(B,) dot products of rows; on a CPU in one pass over memory."""
    if a_B_D.is_cuda:
        return (a_B_D * b_B_D).sum(1)
    return torch.from_numpy(np.einsum('bd,bd->b', a_B_D.numpy(), b_B_D.numpy()))
