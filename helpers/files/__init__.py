"""Files that a kill, a full disk or a second run cannot spoil."""
