"""The viewer: what happened in the rollouts of a run, as a page in a browser."""
