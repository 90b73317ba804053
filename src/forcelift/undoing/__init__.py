"""Taking back what a batch or a project did."""
