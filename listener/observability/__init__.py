"""Logging, metrics, audit forwarding."""
