"""The asv suite. See README.md one folder up."""
