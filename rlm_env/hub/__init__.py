"""Environment packages: making one, checking and validating it, publishing it, describing it."""
