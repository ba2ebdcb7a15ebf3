"""How the site is built: guides, a page for each public name, a gallery and a course that run in the build."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
# Kernels of the notebooks are processes of their own.
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])

from site_pages import figure_scraper, write_api_pages

import radplan

project = "radplan"
author = "The radplan developers"
project_copyright = author
version = release = radplan.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinx_design",
    "sphinx_copybutton",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
exclude_patterns = [
    "_build",
    "_ext",
    "gallery/*",
    "**/.ipynb_checkpoints",
    "built_gallery/*.ipynb",
    "built_gallery/*.json",
]
suppress_warnings = [
    "config.cache",
    "mystnb.unknown_mime_type",
    "ref.python",  # attributes of one name in several classes
]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_use_param = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
default_role = "literal"

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "built_gallery",
    "filename_pattern": r"plot_",
    "image_scrapers": (figure_scraper,),
    "backreferences_dir": None,
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": (),
    "plot_gallery": "True",
    "abort_on_example_error": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "radplan"
html_static_path = ["_build/static"]
mathjax_path = "mathjax/tex-svg.js"  # part of the site, which needs no network to show formulas
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "announcement": "Research software: not a medical device, not for the treatment of patients.",
}

write_api_pages(HERE)
mathjax = files("mathjax").joinpath("static/mathjax/es5/tex-svg.js")
(HERE / "_build" / "static" / "mathjax").mkdir(parents=True, exist_ok=True)
(HERE / "_build" / "static" / "mathjax" / "tex-svg.js").write_bytes(mathjax.read_bytes())
