"""Figures of the networks on labeled data packs."""
