"""Python functions that models may call: their schema, and running the calls on the host."""
