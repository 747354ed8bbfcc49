"""The untrusted side: what runs in the process of a REPL. The host imports nothing of it."""
