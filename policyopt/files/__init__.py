"""The files on disk: HDF5 files with checksums, training logs and snapshots, expert trajectories, results."""
