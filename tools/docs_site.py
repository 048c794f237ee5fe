"""The site of docs/ (mkdocs.yml): it has the pages of results/ as well, and links to other files lead to the repository."""

import posixpath
import re
from pathlib import Path
from typing import Any

import tomllib
from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports] (only the extra docs has it)

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r'(\]\()(?!https?:|#)([^)#\s]+)([^)]*\))')


def on_config(config: Any) -> Any:
    """Put the pages of results/ into the navigation, its README first."""
    pages = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / 'results').rglob('*.md') if _is_page(path))
    pages.sort(key=lambda page: page != 'results/README.md')
    config.nav = [{'Results': pages} if item == {'Results': 'RESULTS'} else item for item in config.nav]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages, pictures and reports of results/."""
    for path in sorted((ROOT / 'results').rglob('*')):
        if path.suffix in ('.png', '.html') or _is_page(path):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links that leave docs/ and results/ lead to the repository."""
    source = page.file.src_uri if page.file.src_uri.startswith('results/') else f'docs/{page.file.src_uri}'

    def target(match):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        inside = path.removeprefix('docs/') if path.startswith('docs/') else path
        if files.get_file_from_path(inside):
            return match[1] + posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or '.') + match[3]
        if not (ROOT / path).exists():
            return match[0]  # mkdocs says that it leads nowhere
        kind = 'tree' if (ROOT / path).is_dir() else 'blob'
        return f'{match[1]}{config.extra["repository"]}/{kind}/main/{path}{match[3]}'

    config.extra['repository'] = _repository()
    return LINK.sub(target, markdown)


def _is_page(path):
    """Whether a file is a page, and not a table that a command has written beside its results."""
    return path.suffix == '.md' and (path.name == 'README.md' or not path.with_suffix('.h5').exists())


def _repository():
    """The address of the repository, which stands in pyproject.toml alone."""
    return tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['urls']['Repository']
