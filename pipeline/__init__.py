"""Pixels to findings: pure functions without I/O, clock, logger or network."""
