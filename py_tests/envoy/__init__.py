"""The bridge in an Envoy of one's own: started by hand, with filters in front, with routes."""
