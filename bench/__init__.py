"""Benchmarks: a floor, this tool and its peers on the same rows, measured in one run (`make bench`)."""
