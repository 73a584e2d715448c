"""The compiler: what was trained in parallel becomes a graph that runs one step at a time."""
