"""Weighted events of several classes: read, checked, selected; and families known exactly."""
