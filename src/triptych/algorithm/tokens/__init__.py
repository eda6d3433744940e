"""Fewer tokens between the blocks of an encoder."""
