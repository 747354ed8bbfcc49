"""Where packages are published: a package index, the Environments Hub, Hugging Face."""
