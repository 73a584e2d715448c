"""Readers of models that come from elsewhere: torch modules, NIR files."""
