"""What callers from Python give, as what the program works with; or a UserError with its name, what it is and what is expected."""

from __future__ import annotations

import contextlib
import numbers
import os
from typing import Any

import numpy as np

from policyopt.errors import FAILURES, UserError


def kind_of(x: Any) -> str:
    """A value by its type, with its article."""
    name = type(x).__name__
    return f'{"an" if name[:1].lower() in "aeiou" else "a"} {name}'


def shown(x: Any) -> str:
    """A value in a few words: a large array by its type, shape and range."""
    if not isinstance(x, np.ndarray) or x.size <= 8 and x.dtype.kind != 'O':
        with contextlib.suppress(*FAILURES):  # an object of the user's own may have any __repr__
            return ' '.join(repr(x).split())[:80]
        return kind_of(x)
    return f'{x.dtype} of shape {x.shape}' + (f' from {x.min()} to {x.max()}' if x.dtype.kind in 'biuf' else '')


def as_path(x: Any, name: str = 'path') -> str:
    """The path of a file as text."""
    if not isinstance(x, str | os.PathLike) or not isinstance(os.fspath(x), str):
        raise UserError(f'{name} is {kind_of(x)}; expected the path of a file, as text or pathlib.Path')
    if not os.fspath(x):
        raise UserError(f'{name} is empty; expected the path of a file')
    return str(os.fspath(x))


def as_array(x: Any, name: str) -> np.ndarray:
    """Anything array-like as an array: tensors without their gradients, and masked arrays only if nothing in them is masked."""
    if callable(getattr(x, 'detach', None)):
        x = x.detach().cpu()
    elif isinstance(x, list | tuple) and any(callable(getattr(y, 'detach', None)) for y in x):
        x = [as_array(y, name) for y in x]
    if np.ma.is_masked(x):
        raise UserError(f'{name} has masked values, which stand for no number; fill them or leave them out')
    try:
        return np.asarray(x)
    except (ValueError, TypeError, RuntimeError, OverflowError) as e:  # lists of different lengths, for example
        raise UserError(f'{name} is no array: {" ".join(str(e).split())}') from e


def as_numbers(x: Any, name: str) -> np.ndarray:
    """Anything array-like as a float64 array; raises UserError, which calls it `name`, unless it holds finite numbers."""
    x = as_array(x, name)
    if x.dtype.kind not in 'biuf':
        raise UserError(f'{name} is of type {x.dtype}; expected numbers')
    if not np.isfinite(x).all():
        raise UserError(f'{name} holds NaN or infinity; expected finite numbers')
    return x.astype(np.float64)


def as_integer(x: Any, name: str, low: int, high: int | None = None) -> int:
    """A whole number, of numpy too, from low to high; None: without an upper limit."""
    if isinstance(x, bool) or not isinstance(x, numbers.Integral) or int(x) < low or (high is not None and int(x) > high):
        expected = f'from {low} to {high}' if high is not None else f'of {low} or more'
        raise UserError(f'{name} is {str(x)[:80]!r}; expected a whole number {expected}')
    return int(x)


def as_flag(x: Any, name: str) -> bool:
    """True or False, of numpy too, or 1 or 0; no words, which are all true."""
    if not isinstance(x, bool | np.bool_ | int | np.integer) or x not in (0, 1):
        raise UserError(f'{name} is {str(x)[:80]!r}; expected True or False')
    return bool(x)


def as_generator(rng: Any, name: str = 'rng') -> np.random.Generator:
    """A numpy.random.Generator, from one, from a seed, or fresh from None."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as e:
        raise UserError(f'{name} is {str(rng)[:80]!r}; expected a numpy.random.Generator, a seed from 0, or None') from e


def check_shapes(**arrays: Any) -> None:
    """Check every array against the shape letters at the end of its keyword: check_shapes(obs_B_Do=…, a_B_Da=…).

    The letters after the first underscore name the axes; one letter has one size throughout the call.
    Raises UserError: "a_B_Da has shape (99, 6), but B is 100 in obs_B_Do".
    """
    bound = {}
    for name, x in arrays.items():
        letters = name.split('_')[1:]
        shape = tuple(x.shape)
        if len(shape) != len(letters):
            raise UserError(f'{name} has shape {shape}, but its name promises {len(letters)} axes ({", ".join(letters)})')
        for letter, size in zip(letters, shape, strict=True):
            seen_size, seen_in = bound.setdefault(letter, (size, name))
            if seen_size != size:
                raise UserError(f'{name} has shape {shape}, but {letter} is {seen_size} in {seen_in}')
