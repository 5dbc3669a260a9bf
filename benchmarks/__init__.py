"""What self-correction costs, as ratios measured in one run: `python -m benchmarks`."""
