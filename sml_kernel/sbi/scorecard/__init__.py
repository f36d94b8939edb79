"""What members, classes and ensembles are worth, in figures with bands."""
