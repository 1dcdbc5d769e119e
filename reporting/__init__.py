"""Findings to standard objects, and their way out."""
