"""Every environment as a `verifiers` (v1) taskset, every scaffold as its harness: for its commands and for prime-rl.

    vf-eval needle-rlm -m MODEL --client.base-url http://127.0.0.1:8000/v1 --no-push

The packages of the environments, and `rlm_env` itself, export `RLMTaskset`, `RLMHarness` and `RLMSeatsEnv` on demand
(`rlm_env/plugins.py`), so that the id of the package names all three. Nothing here decides how a rollout goes or what
it is worth: that is done by the scaffold and the environment, as everywhere else. `docs/prime_rl.md` says what to set.

Needs the extra `verifiers`.
"""
