"""Many runs from one YAML file: what to run, where it stands, who executes it."""
