"""What keeps a signal for some steps."""
