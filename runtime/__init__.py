"""The runtime: run a graph, count its operations, and compare executions."""
