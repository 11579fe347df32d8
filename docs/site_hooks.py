"""What the site has beyond docs/: pages made from files of the repository and from docstrings, and links that fit.

In the repository a link may point at any file. On the site one that leads out of docs/ becomes a link into the
repository where `repo_url` of mkdocs.yml names one, else its plain text.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
COPIES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
REFERENCE = {
    "python": (
        "Python API",
        *(f"zskt_dist.api.{name}" for name in ("transfer", "evaluate", "mean_transition_error")),
        *(f"zskt_dist.api.{name}" for name in ("TransferResult", "Progress", "Evaluation", "TransitionError")),
        "zskt_dist.errors",
    ),
    "config": (
        "Configuration",
        *(f"zskt_dist.config.{name}" for name in ("load", "keys")),
        *(
            f"zskt_dist.config.{name}"
            for name in ("schema", "inputs", "training", "inversion", "measuring", "execution", "graph")
        ),
        "zskt_dist.config.shipped",
    ),
    "algorithms": (
        "Algorithms",
        *(f"zskt_dist.algorithms.{name}" for name in ("belief_matching", "matching", "losses", "own_divergence")),
        *(
            f"zskt_dist.algorithms.{name}"
            for name in ("generator_terms", "transitions", "supervised", "scores", "estimates")
        ),
        *(f"zskt_dist.algorithms.{name}" for name in ("inversion", "statistics", "toy", "protocols")),
    ),
    "models": (
        "Networks",
        *(f"zskt_dist.models.{name}" for name in ("registry", "construction", "libraries", "user_code")),
        *(f"zskt_dist.models.{name}" for name in ("wide_resnet", "lenet", "resnet", "vgg", "generator")),
        *(
            f"zskt_dist.models.{name}"
            for name in ("layers", "taps", "logits", "examination", "tensors", "checkpointing")
        ),
    ),
    "engine": ("Engines", *(f"zskt_dist.engine.{name}" for name in ("base", "building", "ddp", "deepspeed"))),
    "speed": ("Fast paths", *(f"zskt_dist.speed.{name}" for name in ("fast_paths", "folding", "cuda_graphs", "work"))),
    "tasks": ("Tasks", *(f"zskt_dist.tasks.{name}" for name in ("registry", "stages", "base"))),
    "deploy": ("Deploy", "zskt_dist.export.load.load_network"),
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, source in COPIES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for name, (title, *objects) in REFERENCE.items():
        content = "\n\n".join([f"# {title}", *(f"::: {each}" for each in objects)])
        files.append(File.generated(config, f"reference/{name}.md", content=content + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    here = page.file.src_uri
    source = PurePosixPath(COPIES.get(here, f"docs/{here}"))
    pages = {path: name for name, path in COPIES.items()}

    def fitting(link: re.Match[str]) -> str:
        mark, text, target, anchor = link[1], link[2], link[3], link[4] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = normpath(source.parent / target)
        inside = pages.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(inside) is not None:
            return f"{mark}[{text}]({relpath(inside, PurePosixPath(here).parent)}{anchor})"
        if path.startswith("docs/"):
            return link[0]  # it is for mkdocs to say that there is no such page
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})" if config.repo_url else text

    return _LINK.sub(fitting, markdown)
