"""Tasks: gymnasium's, the user's own and those of 2016 (`legacy/…`), one at a time or many in lock-step.

Everything outside uses `policyopt.environments.rlgymenv`: env_info, SingleEnv, make_vec_env.
"""
