"""What comes into a graph."""
