"""Smaller and coarser weights."""
