"""The phases of a running migration."""
