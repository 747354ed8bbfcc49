"""tiny-rlm's lessons in `codeqa-rlm`."""
