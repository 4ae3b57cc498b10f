"""edpct: a segmentation teacher in, a small and measured engine out."""

__version__ = "0.1.0"
