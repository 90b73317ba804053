"""What is done after a load: prove it, undo it, report it."""
