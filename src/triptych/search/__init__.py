"""From a budget to a recipe, and from a dataset to a bundle."""
