"""Who uses it: the command line."""
