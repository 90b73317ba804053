"""What became of a batch or a project, and what people said of it: read from what is recorded, never from a run."""
