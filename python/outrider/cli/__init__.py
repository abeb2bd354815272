"""The command line, `outrider`."""
