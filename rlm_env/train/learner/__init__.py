"""Training samples in, new weights out: packing, loss, model, optimizer, checkpoints."""
