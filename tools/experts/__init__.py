"""The training of the shipped experts."""
