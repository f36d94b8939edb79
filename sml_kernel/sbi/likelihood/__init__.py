"""From density ratios to a fit, its intervals and their coverage. Only arrays come in."""
