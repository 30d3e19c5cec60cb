"""Restoring whole photographs: reading them with all they carry, tile by tile, and writing them back."""
