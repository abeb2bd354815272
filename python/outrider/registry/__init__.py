"""Consul: the client, registration, watches, locks and the key-value layout."""
