"""Each kind of file: checked, read, and written so that nothing is lost."""
