"""Scripts that run in Lava's own environment: they import Lava and numpy, and nothing of unscan."""
