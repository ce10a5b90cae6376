"""The published tables again: which runs, in which order, what is missing."""
