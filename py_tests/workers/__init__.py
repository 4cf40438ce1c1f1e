"""Worker processes: replaced, killed, added and taken away under load, and the load itself."""
