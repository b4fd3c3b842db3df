"""The web server: chat, traces and the library in a browser."""
