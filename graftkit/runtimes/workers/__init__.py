"""What runs in other processes: scripts that know a runtime's package and numpy alone, and never import graftkit."""
