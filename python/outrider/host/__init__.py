"""What one host does: supervisors, probes, registration and publishing."""
