"""Packaging: `pip install -e .` for a checkout, `pip install -e '.[test]'` for the tests as well."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name='policyopt',
    version='0.1.0',
    description='Generative adversarial imitation learning as of 2016, on PyTorch and Gymnasium',
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='MIT',
    license_files=['LICENSE'],
    packages=find_packages(include=['policyopt*', 'environments*']),
    python_requires='>=3.10',
    install_requires=[
        'torch>=2.4',
        'gymnasium>=1.0',
        'tables>=3.9',
        'pyyaml>=6.0',
        'numpy>=1.26',
        'scipy>=1.11',
        'matplotlib>=3.8',
        'tqdm>=4.60',
        'threadpoolctl>=3.1',
    ],
    extras_require={
        # newer versions play the same tasks and step more slowly (benchmarks/RESULTS.md); 3.2.7 has no wheels for Python 3.14
        'mujoco': ['mujoco==3.2.7; python_version < "3.14"', 'mujoco>3.2.7; python_version >= "3.14"', 'imageio>=2.30', 'packaging>=23.0'],
        'video': ['imageio-ffmpeg>=0.5', 'pygame-ce>=2.4', 'Pillow>=10.0'],
        'test': ['pytest>=8.0', 'hypothesis>=6.100', 'ruff>=0.9'],
    },
)
