"""The results of an experiment: statistics next to published results, as text, tables, pages and figures."""

import os
import sys

if 'matplotlib' not in sys.modules and (backend := os.environ.pop('MPLBACKEND', '')):
    # A command started from a notebook inherits the notebook's matplotlib backend. Without that backend, matplotlib cannot be imported.
    import matplotlib

    try:
        matplotlib.rcParams['backend'] = backend
        os.environ['MPLBACKEND'] = backend
    except ValueError:
        print(f'note: MPLBACKEND {backend!r} is not used: matplotlib has no such backend here', file=sys.stderr)
