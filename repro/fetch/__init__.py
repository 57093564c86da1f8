"""From a project URI to a tree of files and the commit it came from."""
