"""The method on other libraries' models."""
