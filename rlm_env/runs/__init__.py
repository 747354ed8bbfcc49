"""Shared by evaluations and training runs: run folder, JSONL log, record, options, models, errors, console."""
