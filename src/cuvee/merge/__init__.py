"""Specialists become one model."""
