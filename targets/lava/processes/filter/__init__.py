"""Diagonal state-space models."""
