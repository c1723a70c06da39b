"""The command line of resegeo. It parses, calls and reports; the work is in the library."""
