"""outriderd: wires the parts of one host together."""
