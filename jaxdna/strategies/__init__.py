"""Ways to share the work that stand above the step: pipelines and the parameter server."""
