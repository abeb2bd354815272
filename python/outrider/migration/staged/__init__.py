"""Staged migration: an agent moves to another host or version in steps that are judged, and back by itself."""
