"""Data sets of time series: generated ones, and windows of recordings."""
