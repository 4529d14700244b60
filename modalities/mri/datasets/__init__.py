"""Folders of volumes in their published form."""
