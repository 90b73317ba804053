"""Comparing source and org for a batch or a project, and writing down what was found."""
