"""What Envoy's router does for an application behind it: the recipes of examples/envoy-router.yaml."""
