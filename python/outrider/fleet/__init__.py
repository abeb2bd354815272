"""What should be: the fleet file, its validation, graph of needs, placement and importers."""
