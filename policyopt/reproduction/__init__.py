"""The study of a reproduction: whole algorithms beside published results, with negative controls; builds on reporting."""
