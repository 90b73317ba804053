"""Before a migration: one module a command, each opens what it needs, looks, and writes down what it found."""
