"""Plan files: YAML or JSON that states a whole plan."""
