"""Growth in the frameworks that people train with: a file each, imported where it is used."""
