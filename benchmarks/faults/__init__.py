"""Faults for benchmarks/chaos.py: what is disturbed, how, and how the end is judged."""
