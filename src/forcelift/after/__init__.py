"""Phases after a load."""
