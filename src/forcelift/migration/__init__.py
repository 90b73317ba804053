"""A batch from its beginning to its end: who may work on it, in which order, and what a resume does again."""
