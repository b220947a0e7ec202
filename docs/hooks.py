"""Hooks of MkDocs: pages that are generated from the rest of the repository, so that no text exists twice.

- ``reference/PACKAGE.md``: a page for each package, from its docstrings.
- ``results/``: the files of the folder ``results``.
- ``project/``: CONTRIBUTING, CHANGELOG, the licence and the model card.
- the table of methods, in place of ``<!-- methods -->``.
"""

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = ("grounding", "proposals", "training", "eval")
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "grounding/tagger/weights/MODEL_CARD.md": "project/model-card.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):(?=<code>)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replaces the folders of the navigation by the pages that are generated into them."""
    pages = {"reference/": reference_pages(), "results/": result_pages(), "project/": list(PROJECT.values())}
    for section in config.nav:
        for title, entries in section.items():
            if isinstance(entries, list):
                section[title] = [page for entry in entries for page in pages.get(str(entry), [entry])]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {page: package_page(Path(page).stem) for page in reference_pages()}
    pages |= {page: relink((ROOT / source).read_text("utf-8"), source, page) for source, page in copies().items()}
    for page, content in pages.items():
        files.append(File.generated(config, page, content=content))
    for path in (ROOT / "results").glob("*"):
        if path.suffix in (".csv", ".png", ".jpg"):
            files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Puts in the table of methods."""
    return markdown.replace("<!-- methods -->", methods_table()) if "<!-- methods -->" in markdown else markdown


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Docstrings mark names with Sphinx roles (``:class:`Name```): the page shows the name alone."""
    return ROLE.sub("", html)


def methods_table() -> str:
    """``METHODS`` as a table in Markdown: a row a method."""
    from grounding.attention.methods import METHODS  # imports PyTorch

    rows = ["| `attention=` | what it computes | read at | source |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        equation = method.equation.replace("|", "\\|")
        rows.append(f"| `{name}` | {equation} | {layer_name(method.target)} | {method.source} |")
    return "\n".join(rows)


def layer_name(target: str | None) -> str:
    """The default layer of a method in words."""
    return {None: "the network's own target", "averaged": "the layer that is averaged"}.get(target, f"the {target}")


def reference_pages() -> list[str]:
    """The pages of the packages: one for each folder with modules that have something public."""
    folders = [path.parent for package in PACKAGES for path in sorted((ROOT / package).rglob("__init__.py"))]
    names = [".".join(folder.relative_to(ROOT).parts) for folder in folders if modules(folder)]
    return [f"reference/{name}.md" for name in names]


def package_page(name: str) -> str:
    """The page of a package: what its own docstring says, then each of its modules."""
    folder = ROOT / name.replace(".", "/")
    about = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    described = "\n\n".join(f"::: {name}.{module}" for module in modules(folder))
    return f"# {name}\n\n{about}\n\n{described}\n"


def modules(folder: Path) -> list[str]:
    """The modules of a package by name."""
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def result_pages() -> list[str]:
    """The pages of ``results``, the README first."""
    names = sorted(path.name for path in (ROOT / "results").glob("*.md"))
    return [f"results/{name}" for name in sorted(names, key=lambda name: name != "README.md")]


def copies() -> dict[str, str]:
    """Path in the repository -> page, for the pages that are copies of a file."""
    return {page: page for page in result_pages()} | PROJECT


def relink(text: str, source: str, page: str) -> str:
    """A file's text with its links as they are seen from its page; a link to a file without a page becomes its text."""

    def link(match: re.Match[str]) -> str:
        picture, label, target, anchor = match.groups()
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        kept = place.startswith("results/") and (ROOT / place).is_file()
        found = copies().get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else None)
        found = found or (place if kept else None)
        if found is None:
            return label
        return f"{picture}[{label}]({posixpath.relpath(found, posixpath.dirname(page))}{anchor or ''})"

    return LINK.sub(link, text)
