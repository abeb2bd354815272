"""How risky it is to migrate an agent, from measured facts; the points choose the strategy and the gates."""
