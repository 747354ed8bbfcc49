"""Reward functions: pure, total, importable without anything else of the project.

One module per benchmark. A score is a float in [0, 1] for any input whatsoever, in bounded time; `official` gives what
the benchmark's own scorer gives, `strict` is ours.
"""
