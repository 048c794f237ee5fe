"""tanh, in place, by the library that is quickest on this kind of processor (docs/performance.md has the times). It loads no torch.

numpy serves float32, and float64 where its own tanh is compiled for AVX-512; 2σ(2x) − 1 by torch serves float64 everywhere else (AVX2,
NEON). The choice depends on the kernel that numpy has dispatched to, not on measured times, so two machines of one kind get the same
bits. 2σ(2x) − 1 is within 5e-16 of tanh, but that is an absolute error: near 0 the relative one is up to 5e-16/|x|.
"""

import numpy as np

# Environment variables with which a processor with AVX-512 imitates one without: numpy's kernels, torch's, OpenBLAS's and MKL's.
WITHOUT_AVX512 = {
    'NPY_DISABLE_CPU_FEATURES': 'X86_V4 AVX512_ICL AVX512_SPR',
    'ATEN_CPU_CAPABILITY': 'avx2',
    'OPENBLAS_CORETYPE': 'Haswell',
    'MKL_ENABLE_INSTRUCTIONS': 'AVX2',
}


def _numpy_tanh_kernel() -> str:
    introspect = getattr(np.lib, 'introspect', None)
    kinds = {} if introspect is None else introspect.opt_func_info(func_name='^tanh$', signature='float64')
    return next(iter(kinds.get('tanh', {}).values()), {}).get('current', 'of unknown kind')


# The instruction set that numpy's tanh was dispatched to, e.g. 'X86_V4' or 'AVX512_SKX' (AVX-512), 'X86_V3'; not known before numpy 2.
KERNEL = _numpy_tanh_kernel()
HAS_AVX512 = KERNEL.startswith(('X86_V4', 'AVX512'))


def tanh_(x: np.ndarray) -> np.ndarray:
    """In-place tanh of a contiguous array, which is returned."""
    return np.tanh(x, out=x) if HAS_AVX512 or x.dtype != np.float64 else tanh_by_torch_(x)


def tanh_by_torch_(x: np.ndarray) -> np.ndarray:
    """In-place 2σ(2x) − 1."""
    import torch  # not at the top: workers on AVX-512 never need it

    torch.from_numpy(x).mul_(2).sigmoid_().mul_(2).sub_(1)
    return x
