"""Files and folders that cannot be read: what each is, and how to convert it into an .npz file."""

from __future__ import annotations

import itertools
import os
import re
import zipfile

from policyopt.errors import UserError
from policyopt.shipped import as_typed

TEXTS = {  # {kind: what a file is and what to do, then lines of Python if needed; PATH becomes the path of the file}
    'replay buffer': (
        'a replay buffer of Stable-Baselines3, pickled, which could run code when it is read. If you trust who made it, convert it:',
        'import numpy as np; from stable_baselines3.common.save_util import load_from_pkl',
        "buffer, names = load_from_pkl(PATH), 'observations next_observations actions rewards dones timeouts pos full'.split()",
        "np.savez('converted.npz', **{name: getattr(buffer, name) for name in names if hasattr(buffer, name)})",
    ),
    'pickle': (
        'a pickle, which could run code when it is read. If you trust who made it, convert it; a list of dictionaries, for example:',
        'import pickle, numpy as np; episodes = pickle.load(open(PATH, "rb"))',
        "keys = 'observations', 'actions', 'rewards'",
        "np.savez('converted.npz', **{f'{key}_{i}': x[key] for i, x in enumerate(episodes) for key in keys})",
    ),
    'parquet': (
        'a Parquet file. Convert it; with the columns of LeRobot, for example:',
        'import numpy as np, pandas as pd; steps = pd.read_parquet(PATH)',
        "obs, acts = np.stack(steps['observation.state']), np.stack(steps['action'])",
        "np.savez('converted.npz', obs=obs, acts=acts, episode_starts=steps['frame_index'] == 0)",
    ),
    'tfrecord': (
        'a data set of TensorFlow (RLDS, TFRecord files). Convert it where tensorflow_datasets is installed:',
        'import numpy as np, tensorflow_datasets as tfds; data = tfds.builder_from_directory(PATH).as_dataset("train")',
        "episodes = [list(e['steps'].as_numpy_iterator()) for e in data]  # the last step has no action",
        "arrays = {f'obs_{i}': np.stack([s['observation'] for s in e]) for i, e in enumerate(episodes)}",
        "arrays |= {f'acts_{i}': np.stack([s['action'] for s in e[:-1]]) for i, e in enumerate(episodes)}",
        "np.savez('converted.npz', **arrays)",
    ),
    'json': (
        'a JSON file. Convert it; a list of episodes, for example:',
        'import json, numpy as np; episodes = json.load(open(PATH))',
        "keys = 'observations', 'actions', 'rewards'",
        "np.savez('converted.npz', **{f'{key}_{i}': x[key] for i, x in enumerate(episodes) for key in keys})",
    ),
    'npy': (
        'a single array. Put the arrays of all episodes into one file, for example:',
        'import numpy as np; obs, acts = np.load(PATH), np.load("acts.npy")',
        "np.savez('converted.npz', obs=obs, acts=acts, dones=np.load('dones.npy'))",
    ),
    'model': (
        'a model that Stable-Baselines3 has saved, not demonstrations. Let it play some:',
        'import policyopt; from stable_baselines3 import PPO  # or what it was trained with',
        "policyopt.Demonstrations.record(PPO.load(PATH), 'ENV', episodes=10).save('trajs.h5')",
    ),
    'arrow': ('a part of a data set. Give the folder that holds it, with its state.json',),
    'minari': ('a Minari data set. Give its id, such as cartpole/expert-v0, with MINARI_DATASETS_PATH set to the folder of all data sets',),
    'splits': ('a data set of several parts. Give one of its folders: SPLITS',),
    'zarr': (
        'a Zarr store. Convert it; as of diffusion policy, for example:',
        'import numpy as np, zarr; z = zarr.open(PATH, "r")',
        "np.savez('converted.npz', obs=z['data/state'][:], acts=z['data/action'][:], episode_ends=z['meta/episode_ends'][:])",
    ),
    'torch': (
        'a file of torch.save, which could run code when it is read. If you trust who made it, convert it, for example:',
        'import numpy as np, torch; data = torch.load(PATH, map_location="cpu")',
        "np.savez('converted.npz', **{key: data[key].numpy() for key in ('obs', 'acts', 'dones')})",
    ),
    'matlab': (
        'a MATLAB file. Convert it, for example:',
        'import numpy as np, scipy.io; data = scipy.io.loadmat(PATH)',
        "np.savez('converted.npz', **{key: data[key] for key in ('obs', 'acts', 'dones')})",
    ),
    'video': ('a video or a picture, which holds no actions. Give the recorded observations and actions as an .npz file',),
    'npz': ('an .npz file under another name. Give it a name that ends in .npz',),
    'archive': ('an archive. Unpack it and give what is in it',),
}
SUFFIXES = {
    'pickle': ('.pkl', '.pickle', '.p', '.joblib'), 'parquet': ('.parquet',), 'json': ('.json', '.jsonl'), 'npy': ('.npy',),
    'arrow': ('.arrow', '.feather'), 'torch': ('.pt', '.pth'), 'matlab': ('.mat',), 'zarr': ('.zarr',),
    'video': ('.mp4', '.avi', '.mkv', '.webm', '.mov', '.gif', '.png', '.jpg', '.jpeg'),
    'archive': ('.zip', '.gz', '.tgz', '.tar', '.xz', '.bz2', '.zst', '.7z'),
}  # fmt: skip
STARTS = {b'PAR1': 'parquet', b'\x93NUMPY': 'npy', b'ARROW1': 'arrow', b'MATLAB 5.0': 'matlab', b'\x1f\x8b': 'archive', b'BZh': 'archive'}
IN_FOLDER = {
    'dataset_dict.json': 'splits', '.zgroup': 'zarr', 'zarr.json': 'zarr', 'data/main_data.hdf5': 'minari', 'data/metadata.json': 'minari',
}  # fmt: skip


def unread_kind(path: str) -> str | None:
    """The kind of a file or folder, a key of TEXTS; None if it is unknown."""
    is_folder = os.path.isdir(path)
    for name, kind in IN_FOLDER.items():
        if os.path.isfile(os.path.join(path, name)):
            return kind
    names = [name for _, _, files in itertools.islice(os.walk(path), 1000) for name in files] if is_folder else [os.path.basename(path)]
    if any('.tfrecord' in name for name in names):
        return 'tfrecord'
    if is_folder:
        return 'parquet' if any(name.endswith('.parquet') for name in names) else None
    try:
        with open(path, 'rb') as f:
            start = f.read(4096)
    except OSError as e:
        raise UserError(f'{path}: cannot be read ({e.strerror}); ask its owner, or copy it') from e
    if start[:1] == b'\x80' and len(start) > 1 and 2 <= start[1] <= 5:
        return 'replay buffer' if b'stable_baselines3.common.buffers' in start else 'pickle'
    if start.startswith(b'PK\x03\x04'):
        return _kind_of_zip(path)
    if start[4:8] == b'ftyp':
        return 'video'
    by_start = (kind for mark, kind in STARTS.items() if start.startswith(mark))
    by_name = (kind for kind, suffixes in SUFFIXES.items() if path.lower().endswith(suffixes))
    return next(itertools.chain(by_start, by_name), None)


def _kind_of_zip(path: str) -> str:
    try:
        with zipfile.ZipFile(path) as f:
            names = f.namelist()
    except Exception:  # on damaged bytes zipfile raises errors of any type
        return 'archive'
    if names and all(name.endswith('.npy') for name in names):
        return 'npz'
    if 'policy.pth' in names:
        return 'model'
    return 'torch' if any(name.endswith('data.pkl') for name in names) else 'archive'


def refuse_unread(path: str) -> None:
    """Raise UserError for a file or folder of a kind in TEXTS."""
    kind = unread_kind(path)
    if kind is None:
        return
    what, *lines = (re.sub(r'\bPATH\b', lambda _: repr(path), text) for text in TEXTS[kind])
    if kind == 'splits':
        folders = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
        what = what.replace('SPLITS', ', '.join(os.path.join(path, name) for name in folders) or 'none is there')
    if lines and kind != 'model':
        lines.append(f'# then: {as_typed("import_trajs.py converted.npz trajs.h5")}')
    raise UserError(f'{path}: is {what}' + ''.join(f'\n  {line}' for line in lines))
