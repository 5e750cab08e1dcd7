"""Towers: what the packed run asks of each class of vision tower. One file a class; `sizes` is without torch."""
