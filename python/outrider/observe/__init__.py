"""What happened in the fleet, and how much of the time it was there."""
