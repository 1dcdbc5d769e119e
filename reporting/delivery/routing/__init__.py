"""Routing rules."""
