"""What an experiment has shown: statistics next to published results, as text, tables, pages and figures."""

import os
import sys

if 'matplotlib' not in sys.modules and (backend := os.environ.pop('MPLBACKEND', '')):
    # A command that a notebook started inherits its backend, which may not be here; matplotlib could then not even be imported.
    import matplotlib

    try:
        matplotlib.rcParams['backend'] = backend
        os.environ['MPLBACKEND'] = backend
    except ValueError:
        print(f'note: MPLBACKEND {backend!r} is not used: matplotlib has no such backend here', file=sys.stderr)
