"""The org twin: a simulated Salesforce org with one data file, a product of its own.

It imports nothing else of forcelift, so that a proof against the twin is not a proof of the loader against itself.
"""
