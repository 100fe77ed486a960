"""How the site is built: ``make docs``. Pages are Markdown (MyST); the reference is read from the docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from multi_agent_scheduler.__about__ import VERSION

project = "Multi-Agent Scheduler"
author = "Multi-Agent Scheduler contributors"
project_copyright = author
release = version = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
source_suffix = {".md": "markdown"}
exclude_patterns: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
