"""`nas import`: recordings to a data file."""
