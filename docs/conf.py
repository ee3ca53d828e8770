"""Configuration of the documentation; build it with ``sphinx-build -W docs docs/_build``."""

from importlib.metadata import version as version_of

project = "gearproto"
author = "the gearproto developers"
project_copyright = "the gearproto developers"
version = release = version_of("gearproto")

extensions = ["myst_parser", "sphinxcontrib.mermaid"]
exclude_patterns = ["_build", "generated"]  # other pages include what is generated
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"gearproto {release}"
