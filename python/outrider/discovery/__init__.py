"""What is: the catalogue, lookups and watches."""
