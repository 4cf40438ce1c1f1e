"""A server's start and end: import, lifespan, what fails at the start, signals, shutdown, the end of a loop."""
