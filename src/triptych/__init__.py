"""Triptych makes multimodal models small and fast, and proves it."""
