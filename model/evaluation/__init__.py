"""Measuring what restores: protocol, methods, metrics, tables."""
