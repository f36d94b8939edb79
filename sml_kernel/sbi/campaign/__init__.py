"""Ten thousand networks planned, trained in stacks and scored, with nothing lost."""
