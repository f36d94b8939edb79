"""H → ττ over its backgrounds, from Pythia 8 or from files of the FAIR Universe challenge."""
