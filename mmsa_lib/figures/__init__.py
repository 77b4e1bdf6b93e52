"""Figures: tidy tables in, a matplotlib figure out; the project's style; committed figures and their records."""
