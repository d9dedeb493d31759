"""Where recordings come from and where they go. Needs no torch."""
