"""Evaluation: run scaffolds over an environment's tasks, store and resume, statistics, tables."""
