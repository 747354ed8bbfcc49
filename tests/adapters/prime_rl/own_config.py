"""`python own_config.py RUNS`: reads each run, a list of TOML files, by prime-rl's own `RLConfig` and prints the class
of each of its environments. PRIME_RL_SRC names the checkout, PYTHONPATH holds our scripts."""

from __future__ import annotations

import json
import sys


def main(runs: list[list[str]]) -> None:
    from prime_rl_proof.checkout import use_checkout

    use_checkout()
    from prime_rl.configs.rl import RLConfig
    from pydantic_config import cli

    for files in runs:
        sys.argv = ["rl", *(part for file in files for part in ("@", file)), "--dry-run"]
        config = cli(RLConfig)
        for source in [*config.orchestrator.train.source, *config.orchestrator.eval.source]:
            print(type(source.env).__name__)


main(json.loads(sys.argv[1]))
