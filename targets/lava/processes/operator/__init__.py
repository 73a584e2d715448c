"""What has no memory."""
