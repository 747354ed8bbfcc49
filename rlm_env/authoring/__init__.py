"""Helpers for writers of environments: seeded draws, options, published data sets, long texts."""
