"""What leaves a graph."""
