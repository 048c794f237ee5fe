"""What only our own documents and shipped experts need; not part of the installed package."""
