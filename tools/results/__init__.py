"""The results pages of this repository: their tables, pictures and numbers, made from the shipped files."""
