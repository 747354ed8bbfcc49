"""What `scripts/prime_rl_cpu.py` is made of: a checkout of prime-rl on a machine without a GPU."""
