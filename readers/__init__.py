"""From a file to its pixels: a module for each kind of file."""
