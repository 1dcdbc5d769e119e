"""Photograph files to RGB, strictly: a damaged file is refused, never filled in."""
