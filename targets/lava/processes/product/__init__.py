"""What multiplies two signals."""
