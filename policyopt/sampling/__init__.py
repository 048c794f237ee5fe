"""Batches of trajectories: tasks and quotas, actors in numpy, many episodes stepped at once, worker processes. No torch."""
