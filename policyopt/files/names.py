"""Names of runs and files: a run's id is `alg=…,task=…,num_trajs=…,run=…`, its log `<id>.h5.part`, and `<id>.h5` once it is done."""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence

from policyopt.errors import Unfit

KEYS = ('alg', 'task', 'num_trajs', 'run')  # the keys of an id, in their order


def cell_id(alg: str, task: str, num_trajs: int) -> str:
    """The common beginning of the ids of all runs of one cell."""
    return f'alg={alg},task={task},num_trajs={num_trajs}'


def id_of(alg: str, task: str, num_trajs: int, run: int) -> str:
    return f'{cell_id(alg, task, num_trajs)},run={run}'


def setting_word(value: object) -> str:
    """The value of a setting of a sweep, as written in names and commands."""
    return repr(value).replace('+', '') if isinstance(value, float) else str(value)


MAX_VARIANTS = 1000  # for one algorithm
MAX_RUNS = 1_000_000  # for one experiment
MAX_ID = 255  # characters; the limit of file systems


def sweep(alg: str, vary: Mapping[str, Sequence]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """[(name, ((setting, text), …))] for each combination of the {setting: values} that an algorithm varies.

    A name is for example `ga+reward_lr=0.003+reward_steps=1`; without settings it is the algorithm itself.
    Raises Unfit where there are more than MAX_VARIANTS.
    """
    num = math.prod(map(len, vary.values()))
    if num > MAX_VARIANTS:
        raise Unfit(f'{num} combinations', f'at most {MAX_VARIANTS}')
    options = [[(key, setting_word(value)) for value in values] for key, values in vary.items()]
    return [('+'.join([alg, *(f'{k}={v}' for k, v in settings)]), settings) for settings in itertools.product(*options)]


def settings_of(alg: str) -> tuple[str, dict[str, str]]:
    """(name without settings, {setting: text}) of an algorithm's name; no settings if it is not a name of a sweep."""
    base, *parts = alg.split('+')
    if not parts or not all(re.fullmatch(r'[A-Za-z]\w*=[\w.-]+', p, re.ASCII) for p in parts):
        return alg, {}
    return base, dict(p.split('=') for p in parts)


def parts_of(name: str) -> dict[str, str]:
    """{key: text} of an id, or of any other name with KEY=VALUE between commas."""
    return dict(p.split('=', 1) for p in name.split(',') if '=' in p)


def size_of(parts: dict[str, str]) -> int:
    """The dataset size in the parts of a name, as a number to sort by; 0 where there is none."""
    size = parts.get('num_trajs', '')
    return int(size) if size.isdecimal() else 0


def done_file(run_id: str) -> str:
    """The name of a run's finished log."""
    return f'{run_id}.h5'


def part_path(path: str) -> str:
    """The path of a log until it is done; `path` is its final path."""
    return f'{path}.part'


def lock_path(path: str) -> str:
    """The path of the lock file of the run whose log is `path`."""
    return f'{path}.lock'


def incomplete_path(path: str) -> str:
    """The path to which an unfinished output of a program is moved before the next attempt."""
    return f'{path}.incomplete'


def is_part(path: str) -> bool:
    """Whether a path is the path of an unfinished log."""
    return path.endswith('.part')


def current_path(path: str) -> str:
    """The present path of a log, which may have been finished since it was named."""
    done = path.removesuffix('.part')
    return done if is_part(path) and not os.path.exists(path) and os.path.exists(done) else path


def is_log(name: str) -> bool:
    """Whether the name of a file can be the name of a log, finished or not."""
    return name.endswith(('.h5', '.h5.part'))


def is_run(name: str) -> bool:
    """Whether the name of a file is the name of the log of a pipeline's run, finished or not."""
    return name.startswith('alg=') and is_log(name)


def name_of(path: str) -> str:
    """The id in the path of a run's log, finished or not; for other logs the name of the file without its ending."""
    return re.sub(r'\.h5(\.part)?$', '', os.path.basename(path))
