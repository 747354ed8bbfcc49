"""New weights into the engine, and the proof that they arrived."""
