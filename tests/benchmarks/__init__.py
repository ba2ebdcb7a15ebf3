"""Speed and memory, measured as ratios beside the peer in one run: ``python -m tests.benchmarks``."""
