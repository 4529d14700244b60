"""Folders of volumes as they are handed out."""
