"""Measurements of qkernel and their records: `python -m bench`. Runs from a checkout."""
