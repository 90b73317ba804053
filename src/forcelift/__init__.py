"""Forcelift moves very large database tables into Salesforce and accounts for every row."""

__version__ = "0.1.0"
