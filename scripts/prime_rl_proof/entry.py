"""`python -m prime_rl_proof.entry NAME @ FILE`: an entry point of prime-rl (`orchestrator`, `env_server`) from its
checkout."""

from __future__ import annotations

import importlib
import sys

from prime_rl_proof.checkout import use_checkout


def main() -> None:
    use_checkout()
    import verifiers.v1 as vf

    if not hasattr(vf.Branch, "multi_modal_data"):  # this commit of prime-rl reads it, verifiers 0.4.0 has it no more
        vf.Branch.multi_modal_data = property(lambda branch: None)
    importlib.import_module(f"prime_rl.entrypoints.{sys.argv.pop(1)}").main()


if __name__ == "__main__":  # env_server starts its workers from here again
    main()
