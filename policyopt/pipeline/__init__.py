"""The experiment, without knowing any algorithm: the YAML file, its runs, how they are run, and the three stages."""
