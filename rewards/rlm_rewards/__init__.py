"""Reward functions: pure, total, and independent of the rest of the project.

One module per benchmark. A score is a float in [0, 1] for any input whatsoever, in bounded time. The mode `official`
equals the benchmark's own scorer; the mode `strict` is ours.
"""
