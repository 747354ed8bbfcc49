"""Our environments in other people's frameworks. The only room that imports them, each in its own package."""
