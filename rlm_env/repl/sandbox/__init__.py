"""The kernel's side: how a process is confined before any model-written code runs."""
