"""What `./kode` does once .venv is there; nothing here imports Django."""
