"""Matrix memories."""
