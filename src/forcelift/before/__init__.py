"""Phases before a load."""
