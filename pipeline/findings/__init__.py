"""Crops, decisions, smear summary, serialization."""
