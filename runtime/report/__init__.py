"""What a user looks at: the drawing of a graph, and a report of one HTML file on what was trained and deployed."""
