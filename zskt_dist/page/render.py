"""A page from its sections; the template escapes whatever stands in them."""

from functools import cache
from typing import Any

from zskt_dist.page.facts import Facts
from zskt_dist.page.sections import sections, subtitle
from zskt_dist.runs.conclusion import conclusion
from zskt_dist.version import __version__


def render(facts: Facts) -> str:
    """The whole page; the same for the same files."""
    result = facts.result
    page: str = _template().render(
        title=f"{result['experiment']} / {result['name']}",
        subtitle=subtitle(facts),
        headline=conclusion(result, facts.latencies),
        sections=list(sections(facts)),
        version=__version__,
    )
    return page


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("zskt_dist.page", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
