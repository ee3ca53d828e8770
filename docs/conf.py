"""Configuration of the documentation; build it with ``sphinx-build -W docs docs/_build``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import reference

project = "gearproto"
author = "the gearproto developers"
project_copyright = "the gearproto developers"
version = release = version_of("gearproto")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]
exclude_patterns = ["_build", "generated"]  # other pages include what is generated
myst_fence_as_directive = ["mermaid"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # docstrings also name what is not public, or not ours
suppress_warnings = ["ref.python"]  # types of one name in both idioms

default_role = "py:obj"  # `names` in docstrings link to what they name
autodoc_member_order = "bysource"
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"gearproto {release}"


def setup(app: Sphinx) -> None:
    """Write the reference before Sphinx looks for pages."""
    app.connect("config-inited", lambda *_: reference.write(Path(__file__).parent / "reference"))
