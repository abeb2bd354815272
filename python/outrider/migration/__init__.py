"""Moving agents to another version, configuration or host: what changes, in which order, and doing it safely."""
