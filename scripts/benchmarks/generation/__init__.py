"""Benchmarks of generators."""
