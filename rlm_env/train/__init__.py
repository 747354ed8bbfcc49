"""Training on rollouts, with the extra `[train]`.

Importing the package itself imports nothing, so that the rest of the project needs no torch: its parts are used by
module, for example `rlm_env.train.learner.loss.policy_loss`. Of them, `config`, `samples` and `advantage` need no torch either.
"""
