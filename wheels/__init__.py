"""How the wheels are built and tested that people install: `make wheels` and `make check-wheels`."""
