"""Putting models into production: container engine, and what stands on it."""
