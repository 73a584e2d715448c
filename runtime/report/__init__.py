"""What a user looks at: drawings of the graph."""
