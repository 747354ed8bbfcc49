"""A vLLM that we start ourselves: finding the model, checking the installation, starting, reading its log, stopping."""
