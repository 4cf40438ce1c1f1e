"""What those see and do who run the server: its logs, and certificates that are renewed."""
