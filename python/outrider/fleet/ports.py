"""Names of ports that mean something, wherever a port has a name."""

MAIN = "main"  # what callers use
HEALTH = "health"  # what an http probe asks
CALL = "call"  # where an agent serves calls
