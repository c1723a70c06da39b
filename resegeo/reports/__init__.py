"""A finished run as one page that anybody can read, and the same as data."""
