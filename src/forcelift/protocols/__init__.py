"""What the inner parts ask of the world: source, org, clock. Adapters implement these; nothing here does I/O."""
