"""The making of tiny-rlm: teachers, sessions, tokenizer, supervised training. Only scripts import it.

Nothing here runs when tiny-rlm is used: the shipped model is sampled by vLLM token by token, like any other.
"""
