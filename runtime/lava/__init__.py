"""Lava's own environment, and scripts run in it under guard."""
