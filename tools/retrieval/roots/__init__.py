"""Where the folders of a library are: on this machine, inside a container, or at a URL."""
