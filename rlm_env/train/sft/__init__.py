"""Supervised training on saved rollouts."""
