"""Command line: one file per command, and the console."""
