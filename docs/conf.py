"""Sphinx configuration of the site: `make docs`."""

from __future__ import annotations

import sensorium

project = "Sensorium"
author = "the Sensorium authors"
copyright = author
version = release = sensorium.__version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "coverage*"]  # `make coverage` writes a page of its own
nitpicky = True

html_theme = "furo"
html_title = "Sensorium"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#1f5f8b",
        "color-brand-content": "#1f5f8b",
    },
    "dark_css_variables": {
        "color-brand-primary": "#8cc7ee",
        "color-brand-content": "#8cc7ee",
    },
}
