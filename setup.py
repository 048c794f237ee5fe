"""The build; pyproject.toml says the rest."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPackages(build_py):
    """Leave this file out of the package of data files, whose folder is the root of the checkout."""

    def find_package_modules(self, package, package_dir):
        return [] if package == 'policyopt.data' else super().find_package_modules(package, package_dir)


if __name__ == '__main__':
    setup(cmdclass={'build_py': BuildPackages})
