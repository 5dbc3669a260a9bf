"""The small model that ships: trained in the shapes world, for a first try and for tests."""
