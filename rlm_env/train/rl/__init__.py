"""From tasks to batches of samples: scheduling, groups, advantages, the training loop."""
