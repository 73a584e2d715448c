"""What integrates and fires."""
