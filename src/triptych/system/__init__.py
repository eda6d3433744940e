"""Where and when to compute: bundles and what runs them. Nothing is imported here."""
