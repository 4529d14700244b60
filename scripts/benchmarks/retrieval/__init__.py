"""Benchmarks of retrieval: of dense vectors (`__main__`), and of sparse ones and tokens."""
