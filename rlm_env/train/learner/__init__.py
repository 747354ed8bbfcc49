"""From samples to new weights: packing, loss, model, optimizer, checkpoints."""
