"""What runs and their files are called: the id `alg=…,task=…,num_trajs=…,run=…`, and `<id>.h5` for done, `<id>.h5.part` until then."""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence

from policyopt.errors import Unfit

KEYS = ('alg', 'task', 'num_trajs', 'run')  # of an id, in its order


def cell_id(alg: str, task: str, num_trajs: int) -> str:
    """What the ids of all runs of one cell begin with."""
    return f'alg={alg},task={task},num_trajs={num_trajs}'


def id_of(alg: str, task: str, num_trajs: int, run: int) -> str:
    return f'{cell_id(alg, task, num_trajs)},run={run}'


def setting_word(value: object) -> str:
    """A setting of a sweep as it stands in names and commands."""
    return repr(value).replace('+', '') if isinstance(value, float) else str(value)


MAX_VARIANTS = 1000  # of one algorithm
MAX_RUNS = 1_000_000  # of one experiment
MAX_ID = 255  # characters of a name, as file systems have it


def sweep(alg: str, vary: Mapping[str, Sequence]) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """[(name, ((setting, text), …))] of an algorithm that varies {setting: values}, for each combination.

    The names are `ga+reward_lr=0.003+reward_steps=1` and so on; without settings it is the algorithm itself.
    Raises Unfit where there are more than MAX_VARIANTS.
    """
    num = math.prod(map(len, vary.values()))
    if num > MAX_VARIANTS:
        raise Unfit(f'{num} combinations', f'at most {MAX_VARIANTS}')
    options = [[(key, setting_word(value)) for value in values] for key, values in vary.items()]
    return [('+'.join([alg, *(f'{k}={v}' for k, v in settings)]), settings) for settings in itertools.product(*options)]


def settings_of(alg: str) -> tuple[str, dict[str, str]]:
    """(name without settings, {setting: text}) of an algorithm's name, which need not be one of a sweep."""
    base, *parts = alg.split('+')
    if not parts or not all(re.fullmatch(r'[A-Za-z]\w*=[\w.-]+', p, re.ASCII) for p in parts):
        return alg, {}
    return base, dict(p.split('=') for p in parts)


def parts_of(name: str) -> dict[str, str]:
    """{key: text} of an id, or of any other name with KEY=VALUE between commas."""
    return dict(p.split('=', 1) for p in name.split(',') if '=' in p)


def size_of(parts: dict[str, str]) -> int:
    """The dataset size in the parts of a name as a number to sort by, so that 4 stands before 11; 0 where there is none."""
    size = parts.get('num_trajs', '')
    return int(size) if size.isdecimal() else 0


def done_file(run_id: str) -> str:
    """The name of a run's finished log."""
    return f'{run_id}.h5'


def part_path(path: str) -> str:
    """Where the log that will be `path` stands until it is done."""
    return f'{path}.part'


def lock_path(path: str) -> str:
    """Where the run whose log will be `path` holds its lock."""
    return f'{path}.lock'


def incomplete_path(path: str) -> str:
    """Where an output that a program left unfinished at `path` is moved, out of the way of its next attempt."""
    return f'{path}.incomplete'


def is_part(path: str) -> bool:
    """Whether a path is that of an unfinished log."""
    return path.endswith('.part')


def current_path(path: str) -> str:
    """Where a log stands by now: one that was unfinished when it was named may have been finished since."""
    done = path.removesuffix('.part')
    return done if is_part(path) and not os.path.exists(path) and os.path.exists(done) else path


def is_log(name: str) -> bool:
    """Whether a file can be a log by its name, finished or not."""
    return name.endswith(('.h5', '.h5.part'))


def is_run(name: str) -> bool:
    """Whether a file is the log of a pipeline's run by its name, finished or not."""
    return name.startswith('alg=') and is_log(name)


def name_of(path: str) -> str:
    """The id in the path of a run's log, finished or not; of other logs the file's name without its ending."""
    return re.sub(r'\.h5(\.part)?$', '', os.path.basename(path))
