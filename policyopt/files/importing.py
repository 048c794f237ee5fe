"""The name from before 1.0 of what is public in policyopt.files.importers."""

from policyopt.files.importers import import_trajs, save_minari

__all__ = ['import_trajs', 'save_minari']
