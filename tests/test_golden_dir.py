"""A folder without golden vectors must not look like parity."""

import shutil
import subprocess
import sys

import golden_tools
import pytest
from conftest import REPO, script_env


def parity_tests(golden_dir):
    """Run the parity tests on the vectors of a folder."""
    files = [str(REPO / 'tests' / name) for name in ('test_golden.py', 'test_golden_imitation.py')]
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *files]
    return subprocess.run(command, cwd=REPO, env=script_env(GOLDEN_DIR=str(golden_dir)), capture_output=True, text=True, timeout=300)


def test_an_empty_folder_fails(tmp_path):
    done = parity_tests(tmp_path)
    assert done.returncode == 2 and f'{tmp_path}: holds no golden vectors' in done.stdout, done.stdout
    assert ' passed' not in done.stdout and ' skipped' not in done.stdout


def test_a_folder_with_some_kinds_runs_those(tmp_path):
    for name in ('b_standardizer.npz', 'b_standardizer.json', 'i_optim.npz', 'j_hash.json'):
        shutil.copy(REPO / 'tests' / 'golden' / name, tmp_path)
    done = parity_tests(tmp_path)
    assert done.returncode == 0 and '\n3 passed, ' in done.stdout and ' skipped' in done.stdout, done.stdout


def test_a_folder_of_other_files_or_none_is_refused(tmp_path, monkeypatch):
    (tmp_path / 'vectors.npz').write_bytes(b'')
    for folder in (tmp_path, tmp_path / 'absent'):
        monkeypatch.setattr(golden_tools, 'GOLDEN', folder)
        with pytest.raises(FileNotFoundError, match='holds no golden vectors b_standardizer'):
            golden_tools.files('b_standardizer*.npz')


def test_our_own_folder_must_hold_every_kind(monkeypatch):
    monkeypatch.setattr(golden_tools, 'GOLDEN', golden_tools.OWN_GOLDEN)
    golden_tools.files('b_standardizer*.npz')
    with pytest.raises(FileNotFoundError, match='holds no golden vectors m_'):
        golden_tools.files('m_*.npz')
