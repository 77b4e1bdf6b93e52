"""Library behind a reproducible companion to four papers on multimodal sentiment analysis."""

__version__ = "0.1.0"
