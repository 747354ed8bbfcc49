"""A local vLLM server: installation, start, log, weights."""
