"""For writers of environments: seeded draws, options, published data sets, text."""
