"""Simulated images of known truth."""
