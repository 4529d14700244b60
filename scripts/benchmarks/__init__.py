"""Benchmarks against a named peer in the same run."""
