"""Every figure of the course, by notebook theme."""
