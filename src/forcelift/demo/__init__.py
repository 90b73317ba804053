"""The demo: real public flights data, moved into a twin on this machine, with everything a first look needs."""
