"""Training on rollouts, with the extra `[train]`.

Importing this package imports nothing, so that the rest of the project needs no torch. Import its modules instead, for
example `rlm_env.train.learner.loss.policy_loss`. The modules of configurations, `learner/samples.py` and
`rl/advantage.py` work without torch.
"""
