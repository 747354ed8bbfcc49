"""Asking a question about files: from names of models and paths to an answer. No environment, no score."""
