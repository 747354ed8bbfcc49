"""Parts of `scripts/prove_training.py`."""
