"""Durable job queue; the only sub-package that knows DBOS."""
