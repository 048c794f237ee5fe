"""tanh, in place, by the library that is quickest on this kind of processor: most of the cost of a network next to its matrix products.

Nanoseconds per element of float64, one thread, in blocks of 512×100 (16×100 while sampling in brackets), best of 30:

| | AVX-512 (Zen 4) | AVX2 (that one, AVX-512 switched off) | AVX2 (Zen 3) |
|---|---|---|---|
| numpy tanh | 2.0 (2.6) | 6.0 (6.4) | 16–18 |
| torch tanh | 5.8 (7.8) | 4.9 (5.6) | 6.6 |
| torch 2σ(2x) − 1 | 1.7 (10.9) | 2.3 (7.4) | about 4 |
| numexpr tanh, without Intel's VML, as PyPI's | 21 (25) | 15 (15) | |
| numba tanh (PyPI's LLVM does not use SVML) | 15 (9.4) | 15 (9.4) | |
| numpy tanh, float32 | 0.4 (0.9) | 1.1 (1.4) | |
| torch 2σ(2x) − 1, float32 | 1.1 (10.6) | 1.0 (6.0) | |

So numpy serves float32, and float64 where its own tanh is compiled for AVX-512; 2σ(2x) − 1 by torch serves float64 everywhere else (AVX2,
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


def numpy_tanh_kernel() -> str:
    """The instruction set that numpy's tanh was dispatched to, e.g. 'X86_V4' or 'AVX512_SKX' (AVX-512), 'X86_V3'; '' before numpy 2."""
    introspect = getattr(np.lib, 'introspect', None)
    if introspect is None:
        return ''
    kinds = introspect.opt_func_info(func_name='^tanh$', signature='float64')
    return next(iter(kinds.get('tanh', {}).values()), {}).get('current', '')


def is_avx512(kernel: str) -> bool:
    """Whether a name of numpy's for an instruction set stands for AVX-512."""
    return kernel.startswith(('X86_V4', 'AVX512'))


def tanh_by_numpy_(x: np.ndarray) -> np.ndarray:
    return np.tanh(x, out=x)


def tanh_by_torch_(x: np.ndarray) -> np.ndarray:
    """In-place 2σ(2x) − 1 of a contiguous numpy array."""
    import torch  # not at the top: workers on AVX-512 never need it

    torch.from_numpy(x).mul_(2).sigmoid_().mul_(2).sub_(1)
    return x


def _tanh_by_type_(x: np.ndarray) -> np.ndarray:
    return tanh_by_torch_(x) if x.dtype == np.float64 else tanh_by_numpy_(x)


tanh_ = tanh_by_numpy_ if is_avx512(numpy_tanh_kernel()) else _tanh_by_type_
