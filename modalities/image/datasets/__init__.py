"""Image data sets that come with the package."""
