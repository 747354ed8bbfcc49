"""What a training run leaves to read: metrics, tables, curves."""
