"""Triton kernels of Q: `lanes` moves pixels, `patch` is the mathematics, `passes` and `finish` are the
kernels, `launch` the host.

Importing anything here imports triton; `qkernel.engines.triton` does so only when it is used.
"""
